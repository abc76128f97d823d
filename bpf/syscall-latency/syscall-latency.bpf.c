// SPDX-License-Identifier: GPL-2.0
#include "histogram.h"
#include "syscalls.h"
#include "timed.h"

#define ENTRIES 8192 /* containers, times the different calls that each makes in an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_syscall syscall DOC("the system call");
} __attribute__((packed, aligned(4))); /* padding is not the same in equal keys */

struct value {
	gadget_histogram latency DOC("how long calls took that returned in the interval, also where they waited");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

SEC("tp_btf/sys_enter")
int BPF_PROG(entered, struct pt_regs *regs)
{
	call_begins();
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 number = syscall_number(regs);
	struct gadget_header header;
	struct value *value;
	struct key key = {};
	__u64 time;

	if (number == NO_SYSCALL || !gadget_fill(&header))
		return 0;
	time = time_taken(header.timestamp);
	if (!time) /* it began before the stream */
		return 0;
	key.cgroup_id = header.cgroup_id;
	key.syscall = gadget_syscall_numbered(number);
	value = gadget_row(&key);
	if (value)
		gadget_histogram_add(value->latency, time);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
