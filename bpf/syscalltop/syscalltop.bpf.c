// SPDX-License-Identifier: GPL-2.0
#include "table.h"
#include "syscalls.h"

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

/* When a thread began its call. Each thread has its own, so nobody can take another's room. agent/features.py knows
 * what a kernel lacks that refuses a map of such a name. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} calls_of_tasks SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(entered, struct pt_regs *regs)
{
	__u64 id = bpf_get_current_pid_tgid(), *began;

	if (!param_time || !process_chosen(id >> 32, bpf_get_current_uid_gid()))
		return 0;
	began = bpf_task_storage_get(&calls_of_tasks, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (began)
		*began = bpf_ktime_get_boot_ns();
	return 0;
}

/* How long the call took that returns now. 0 if it began before the stream. */
static __always_inline __u64 time_taken(__u64 now)
{
	__u64 *began = bpf_task_storage_get(&calls_of_tasks, bpf_get_current_task_btf(), NULL, 0), since;

	if (!began || !*began)
		return 0;
	since = *began;
	*began = 0;
	return now - since;
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
