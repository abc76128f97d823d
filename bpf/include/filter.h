/* SPDX-License-Identifier: GPL-2.0 */
/* What the user chose, for programs that run in the thread that they are about: most hooks, and samples. A program that
 * sees packets runs in whatever thread the packet interrupted: see packets.h. */
#pragma once

#include "choice.h"

/* Whether a thread is chosen: --pid, --uid, --comm. */
static __always_inline bool thread_chosen(__u32 pid, __u32 uid, const char *comm)
{
	return process_chosen(pid, uid) && comm_chosen(comm);
}

/* Fill the header of an event for the current thread, whose container is known. False if the user did not choose the
 * thread by --comm. */
static __always_inline bool fill_current(struct gadget_header *header, __u64 cgroup_id)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 owner = bpf_get_current_uid_gid();

	/* some kernels before 6.2 leave behind the name what an earlier event had there */
	__builtin_memset(header->comm, 0, sizeof(header->comm));
	bpf_get_current_comm(header->comm, sizeof(header->comm));
	if (!comm_chosen(header->comm))
		return false;
	header->timestamp = bpf_ktime_get_boot_ns();
	header->cgroup_id = cgroup_id;
	header->pid = id >> 32;
	header->tid = id;
	header->uid = owner;
	header->gid = owner >> 32;
	header->text_length = 0;
	return true;
}

/* Fill the header of an event for the current thread. False if the user did not choose the thread: send nothing then.
 */
static __always_inline bool gadget_fill(struct gadget_header *header)
{
	__u64 cgroup_id = bpf_get_current_cgroup_id();

	if (!process_chosen(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid()))
		return false;
	return cgroup_chosen(current_cgroup(), &cgroup_id) && fill_current(header, cgroup_id);
}

/* Whether the user chose a task that a hook passes, which need not be the current one. *cgroup_id becomes the id of its
 * container's cgroup. */
static __always_inline bool task_chosen(struct task_struct *task, __u64 *cgroup_id)
{
	struct cgroup *cgroup = task->cgroups->dfl_cgrp;

	*cgroup_id = cgroup->kn->id;
	return process_chosen(task->tgid, task->cred->uid.val) && comm_chosen(task->comm) &&
	       cgroup_chosen(cgroup, cgroup_id);
}

/* Fill the header of an event for any task, whoever runs. Says whether the user chose the task, and its container. */
static __always_inline void fill_for(struct gadget_header *header, struct task_struct *task, bool *thread,
				     bool *container)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	header->timestamp = bpf_ktime_get_boot_ns();
	header->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	header->pid = BPF_CORE_READ(task, tgid);
	header->tid = BPF_CORE_READ(task, pid);
	header->uid = BPF_CORE_READ(task, real_cred, uid.val);
	header->gid = BPF_CORE_READ(task, real_cred, gid.val);
	header->text_length = 0;
	__builtin_memset(header->comm, 0, sizeof(header->comm)); /* an earlier event may have left a longer name */
	BPF_CORE_READ_STR_INTO(&header->comm, task, comm);
	*thread = thread_chosen(header->pid, header->uid, header->comm);
	*container = cgroup_chosen(cgroup, &header->cgroup_id);
}

/* Fill the header of an event for a task that need not be the current one. False if the user did not choose it. */
static __always_inline bool gadget_fill_for(struct gadget_header *header, struct task_struct *task)
{
	bool thread, container;

	fill_for(header, task, &thread, &container);
	return thread && container;
}

/* Fill the header of an event for one task, and a second header for another one. False if the user chose neither: the
 * thread of one, and the container of one. The event shows other.cgroup_id as a gadget_container. */
static __always_inline bool gadget_fill_pair(struct gadget_header *header, struct task_struct *task,
					     struct gadget_header *other, struct task_struct *second)
{
	bool thread, container, second_thread, second_container;

	fill_for(header, task, &thread, &container);
	fill_for(other, second, &second_thread, &second_container);
	return (thread || second_thread) && (container || second_container);
}
