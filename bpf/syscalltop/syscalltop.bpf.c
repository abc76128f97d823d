// SPDX-License-Identifier: GPL-2.0
#include "table.h"
#include "syscalls.h"
#include "timed.h"

#define ENTRIES 16384 /* processes, times the different calls that each makes in an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_pid pid DOC("process id, as the host sees it");
	gadget_syscall syscall DOC("the system call");
	gadget_comm comm DOC("name of the process");
};

struct value {
	__u64 calls DOC("calls that returned in the interval");
	__u64 errors DOC("of these, how many failed");
	gadget_duration time DOC("how long they took together, in nanoseconds, also where they waited");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

PARAM(bool, time, true, "measure how long calls take, which makes each a little longer");

SEC("tp_btf/sys_enter")
int BPF_PROG(entered, struct pt_regs *regs)
{
	if (param_time)
		call_begins();
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	struct task_struct *task = current_task();
	__u32 number = syscall_number(regs);
	struct gadget_header header;
	struct value *value;
	struct key key = {};
	__u64 time;

	if (number == NO_SYSCALL || !gadget_fill(&header))
		return 0;
	time = param_time ? time_taken(header.timestamp) : 0;
	key.cgroup_id = header.cgroup_id;
	key.pid = header.pid;
	key.syscall = gadget_syscall_numbered(number);
	BPF_CORE_READ_STR_INTO(&key.comm, task, group_leader, comm);
	value = gadget_row(&key);
	if (!value)
		return 0;
	__sync_fetch_and_add(&value->calls, 1);
	if (result < 0 && result >= -4095) /* MAX_ERRNO: a greater one is an address */
		__sync_fetch_and_add(&value->errors, 1);
	__sync_fetch_and_add(&value->time, time);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
