// SPDX-License-Identifier: GPL-2.0
/* The kernel adds up how long each thread has waited for a CPU. When a thread leaves a CPU, what was added since it
 * last did so is the wait that ended when it came. */
#include "histogram.h"
#include "waits.h"

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

/* The thread that a CPU has, and how long it had waited all told before it came: of one that did not leave a CPU yet
 * since the programs run. */
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

/* A thread leaves its CPU. came: its arrival was seen, and how long it had waited before is known. */
static __always_inline void count(struct task_struct *task, bool came, __u64 before)
{
	bool is_new = task->sched_info.pcount == 1;
	__u64 since;
	struct value *value;
	struct key key = {.uid = ANY_UID};
	__u32 tid = task->pid;
	bool known;

	if (!task_chosen(task, &key.cgroup_id))
		return;
	known = came || is_new || bpf_map_lookup_elem(&waits, &tid);
	waited_since(task, came ? before : 0, &since);
	if (!known)
		return;
	if (param_processes) {
		key.pid = task->tgid;
		key.uid = task->cred->uid.val;
		BPF_CORE_READ_STR_INTO(&key.comm, task, group_leader, comm);
	}
	value = gadget_row(&key);
	if (value)
		gadget_histogram_add(value->waited, since);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempted, struct task_struct *leaves, struct task_struct *comes)
{
	__u32 zero = 0;
	struct arrival *arrival = bpf_map_lookup_elem(&arrivals, &zero);

	if (!arrival)
		return 0;
	if (leaves->pid) /* 0 is the idle thread, which does not wait */
		count(leaves, arrival->tid == leaves->pid, arrival->waited);
	arrival->tid = comes->pid;
	arrival->waited = comes->sched_info.run_delay;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
