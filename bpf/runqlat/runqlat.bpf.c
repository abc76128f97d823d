// SPDX-License-Identifier: GPL-2.0
/* The kernel adds up how long each thread has waited for a CPU. When one gets a CPU, a program remembers the sum so
 * far; when it leaves that CPU, what was added is the wait that ended when it came. */
#include "histogram.h"

#define ENTRIES 8192 /* containers, or processes with --processes, that ran in an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_pid pid DOC("with --processes: process id, as the host sees it");
	gadget_comm comm DOC("with --processes: name of the process");
	gadget_uid uid DOC("with --processes: user id, as the host sees it");
};

struct value {
	gadget_histogram waited DOC("how long threads that were ready waited for a CPU each time");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

PARAM(bool, processes, false, "a histogram for each process, not for each container");

/* The thread that a CPU has, and how long it had waited all told before it came. */
struct arrival {
	__u64 waited;
	__u32 tid;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

static __always_inline void count(struct task_struct *task, __u64 waited)
{
	struct value *value;
	struct key key = {.uid = ANY_UID};

	if (!task_chosen(task, &key.cgroup_id))
		return;
	if (param_processes) {
		key.pid = task->tgid;
		key.uid = task->cred->uid.val;
		BPF_CORE_READ_STR_INTO(&key.comm, task, group_leader, comm);
	}
	value = gadget_row(&key);
	if (value)
		gadget_histogram_add(value->waited, waited);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempted, struct task_struct *leaves, struct task_struct *comes)
{
	__u32 zero = 0;
	struct arrival *arrival = bpf_map_lookup_elem(&arrivals, &zero);

	if (!arrival)
		return 0;
	if (arrival->tid && arrival->tid == leaves->pid) /* 0 is nobody: the idle thread does not wait */
		count(leaves, leaves->sched_info.run_delay - arrival->waited);
	arrival->tid = comes->pid;
	arrival->waited = comes->sched_info.run_delay;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
