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
	gadget_duration throttled DOC("how long the limit of CPU time kept CPUs from them, in nanoseconds");
	gadget_percent
		pressure DOC("share of the last 10 s in which one of its threads waited for a CPU (PSI, some avg10)");
	gadget_percent stalled DOC("share of the last 10 s in which all of its threads waited (PSI, full avg10)");
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

/* How long each group of tasks had been throttled when a program last looked, by the number of its css. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ENTRIES);
	__type(key, __u64);
	__type(value, __u64);
} throttles SEC(".maps");

/* How long the group that a task is in has been throttled since the last look. One of another CPU's that came first has
 * counted the time; one that has not been seen begins with what it has. */
static __always_inline __u64 throttled(struct task_struct *task)
{
	struct task_group *group = BPF_CORE_READ(task, sched_task_group);
	__u64 now = BPF_CORE_READ(group, cfs_bandwidth.throttled_time), number = BPF_CORE_READ(group, css.serial_nr);
	__u64 *last = bpf_map_lookup_elem(&throttles, &number), before;

	if (!last) {
		bpf_map_update_elem(&throttles, &number, &now, BPF_NOEXIST);
		return 0;
	}
	before = *last;
	return now > before && __sync_val_compare_and_swap(last, before, now) == before ? now - before : 0;
}

/* Hundredths of a percent: the kernel has percents as fixed-point numbers (FSHIFT of linux/sched/loadavg.h). */
static __always_inline __u64 pressure(struct psi_group *group, int state)
{
	__u64 share = 0;

	bpf_probe_read_kernel(&share, sizeof(share),
			      (void *)group + bpf_core_field_offset(struct psi_group, avg) + state * 3 * sizeof(share));
	return share * 100 >> 11;
}

/* The pressure on CPUs of the cgroup with an id, which is a task's or above it. Where the kernel does not keep it, a
 * group has no times. */
static __noinline int read_pressure(struct value *value, struct cgroup *cgroup, __u64 id)
{
	struct psi_group *group = NULL;

	if (!value)
		return 0;
	value->pressure = value->stalled = COUNT_UNKNOWN;
	if (!bpf_core_field_exists(((struct psi_group *)0)->avg)) /* CONFIG_PSI is off */
		return 0;
	for (int i = 0; i < CONTAINER_DEPTH && cgroup && BPF_CORE_READ(cgroup, kn, id) != id; i++)
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	if (!cgroup)
		return 0;
	if (bpf_core_field_exists(cgroup->psi))
		group = BPF_CORE_READ(cgroup, psi);
	else if (bpf_core_field_exists(((struct cgroup___before_6_1 *)0)->psi))
		group = (void *)cgroup + bpf_core_field_offset(struct cgroup___before_6_1, psi);
	if (!group || !BPF_CORE_READ(group, avg_next_update))
		return 0;
	value->pressure = pressure(group, bpf_core_enum_value(enum psi_states, PSI_CPU_SOME));
	if (bpf_core_enum_value_exists(enum psi_states, PSI_CPU_FULL))
		value->stalled = pressure(group, bpf_core_enum_value(enum psi_states, PSI_CPU_FULL));
	return 0;
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
	if (!value->cpu) /* once in an interval: the kernel brings them up to date every two seconds */
		read_pressure(value, task->cgroups->dfl_cgrp, key.cgroup_id);
	__sync_fetch_and_add(&value->cpu, runtime);
	if (bpf_core_field_exists(task->sched_info))
		__sync_fetch_and_add(&value->waited, waited(task, key.cgroup_id, task->se.sum_exec_runtime == runtime));
	else
		value->waited = DURATION_UNKNOWN;
	if (bpf_core_field_exists(task->sched_task_group))
		__sync_fetch_and_add(&value->throttled, throttled(task));
	else
		value->throttled = DURATION_UNKNOWN;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
