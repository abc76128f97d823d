// SPDX-License-Identifier: GPL-2.0
/* The kernel tells of each piece of CPU time when it charges it to a task: when the task leaves the CPU, and else at
 * each tick. The cgroup's own account (cpu.stat) is made of the same pieces. */
#include "table.h"
#include "waits.h"

#define ENTRIES 8192

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_pid pid DOC("with --processes: process id, as the host sees it");
	gadget_comm comm DOC("with --processes: name of the process");
	gadget_uid uid DOC("with --processes: user id, as the host sees it");
};

struct value {
	gadget_duration cpu DOC("CPU time in the interval, in nanoseconds");
	gadget_duration waited DOC("how long threads that were ready waited for a CPU, together, in nanoseconds");
	gadget_latest_duration
		throttled DOC("how long the limit of CPU time has kept CPUs from them since the container's "
			      "cgroup was made, in nanoseconds");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

PARAM(bool, processes, false, "a row for each process, not for each container");

/* How long a thread has waited since the last look. A thread that is older than the programs is not known before. */
static __always_inline __u64 waited(struct task_struct *task, __u64 cgroup_id, bool is_new)
{
	__u64 since;

	if (!waited_since(task, is_new ? 0 : task->sched_info.run_delay, &since))
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, cgroup_id);
	return since;
}

SEC("tp_btf/sched_stat_runtime")
int BPF_PROG(charged, struct task_struct *task, __u64 runtime)
{
	struct value *value;
	struct key key = {.uid = ANY_UID};

	if (!task_chosen(task, &key.cgroup_id))
		return 0;
	if (param_processes) {
		key.pid = task->tgid;
		key.uid = task->cred->uid.val;
		BPF_CORE_READ_STR_INTO(&key.comm, task, group_leader, comm);
	}
	value = gadget_row(&key);
	if (!value)
		return 0;
	__sync_fetch_and_add(&value->cpu, runtime);
	if (bpf_core_field_exists(task->sched_info))
		__sync_fetch_and_add(&value->waited, waited(task, key.cgroup_id, task->se.sum_exec_runtime == runtime));
	else
		value->waited = DURATION_UNKNOWN;
	if (bpf_core_field_exists(task->sched_task_group))
		value->throttled = BPF_CORE_READ(task, sched_task_group, cfs_bandwidth.throttled_time);
	else
		value->throttled = DURATION_UNKNOWN;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
