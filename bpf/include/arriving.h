/* SPDX-License-Identifier: GPL-2.0 */
/* Which processes are a runtime's. What it does in a container before it starts the container's program is not the
 * container's: it mounts, and changes roots and namespaces. A process that is moved into a container from outside, or
 * made in it by one outside, arrives. So do those that it makes, until each begins a program in another mount namespace
 * than its parent's. Those that came before the programs were attached are not known.
 *
 * Who includes it says before by arrival_lost(container) how one is counted that found no room. */
#pragma once

#include <asm/errno.h>

#include "containers.h"

/* Processes on their way into a container, by pid. They are few, and soon gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} arriving SEC(".maps");

/* Whether the current process is a runtime's. */
static __always_inline bool is_arriving(void)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&arriving, &pid);
}

/* The container that a cgroup is in, or the cgroup's own id while it is not known; 0 outside of all. */
static __always_inline __u64 whose(struct cgroup *cgroup)
{
	__u64 id = BPF_CORE_READ(cgroup, kn, id);

	return find_container(cgroup, &id) == OUTSIDE ? 0 : id;
}

static __always_inline void arrives(__u32 pid, __u64 container)
{
	__u32 yes = 1;

	if (bpf_map_update_elem(&arriving, &pid, &yes, BPF_ANY) == -E2BIG)
		arrival_lost(container);
}

/* Who moves itself is not taken for a runtime: a container may move its processes among cgroups inside its own. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(process_moved, struct cgroup *to, const char *path, struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);
	__u64 container;

	if (BPF_CORE_READ(to, root, hierarchy_id) != 0 || pid == bpf_get_current_pid_tgid() >> 32)
		return 0;
	container = whose(to);
	if (!container)
		bpf_map_delete_elem(&arriving, &pid);
	else if (container != whose(current_cgroup()))
		arrives(pid, container);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_made, struct task_struct *parent, struct task_struct *child)
{
	__u32 own = BPF_CORE_READ(parent, tgid), pid = BPF_CORE_READ(child, tgid);
	struct cgroup *from = BPF_CORE_READ(parent, cgroups, dfl_cgrp), *to = BPF_CORE_READ(child, cgroups, dfl_cgrp);
	__u64 container;

	if (own == pid)
		return 0;
	if (from != to) { /* CLONE_INTO_CGROUP */
		container = whose(to);
		if (container && container != whose(from))
			arrives(pid, container);
	} else if (bpf_map_lookup_elem(&arriving, &own)) {
		arrives(pid, whose(to));
	}
	return 0;
}

/* Runtimes execute themselves on the way, in the mount namespace of their parent. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(program_began, struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);

	if (bpf_map_lookup_elem(&arriving, &pid) &&
	    BPF_CORE_READ(task, nsproxy, mnt_ns) != BPF_CORE_READ(task, real_parent, nsproxy, mnt_ns))
		bpf_map_delete_elem(&arriving, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_ended, struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);

	if (pid == BPF_CORE_READ(task, pid))
		bpf_map_delete_elem(&arriving, &pid);
	return 0;
}
