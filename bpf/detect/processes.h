/* SPDX-License-Identifier: GPL-2.0 */
/* What events have of their process: all begin here. */
#pragma once

#include "event.h"

/* Members of what the task points to: by plain loads if the kernel allows them. */
#define READ(task, ...)        (task_has_type() ? READ_PLAIN(task, __VA_ARGS__) : BPF_CORE_READ(task, __VA_ARGS__))
#define READ_PLAIN(task, a, b) ((task)->a->b)

/* tty_nr of /proc/PID/stat */
static __always_inline __u32 tty_of(struct task_struct *task)
{
	struct tty_struct *tty = READ(task, signal, tty);
	__u32 major, minor;

	if (!tty)
		return 0;
	major = BPF_CORE_READ(tty, driver, major);
	minor = BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index);
	return (minor & 0xff) | major << 8 | (minor & ~0xff) << 12;
}

/* Set what every event has of its process, and all else to nothing. */
static __always_inline void begin_event(struct event *event, struct task_struct *task, enum detect_call call)
{
	const struct cred *cred = TASK_READ(task, cred);

	__builtin_memset(&event->call, 0, offsetof(struct event, text) - offsetof(struct event, call));
	event->call = call;
	event->fd = NO_FD;
	event->start = READ(task, group_leader, start_boottime);
	event->exec_id = TASK_READ(task, self_exec_id);
	event->euid = READ(task, cred, euid.val);
	event->egid = READ(task, cred, egid.val);
	bpf_core_read(&event->cap_effective, sizeof(event->cap_effective), &cred->cap_effective);
	bpf_core_read(&event->cap_permitted, sizeof(event->cap_permitted), &cred->cap_permitted);
	event->loginuid =
		bpf_core_field_exists(task->loginuid) ? TASK_READ(task, loginuid.val) : ANY_UID; /* CONFIG_AUDIT */
	event->tty = tty_of(task);
	event->path.directory.as_given = event->to.directory.as_given = event->to.path.as_given = true; /* none */
	event->path.path.as_given = event->exe.as_given = event->cwd.as_given = true;
}

/* Begin the event of the current thread. NULL if it is not to be sent. everywhere: also outside containers. */
static __always_inline struct event *begin(__u32 program, enum detect_call call, bool everywhere)
{
	__u64 cgroup_id = bpf_get_current_cgroup_id();
	enum whereabouts where = find_container(current_cgroup(), &cgroup_id);
	struct event *event;

	if (where == OUTSIDE && !everywhere)
		return NULL;
	if (!process_chosen(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid()) ||
	    !container_chosen(where, cgroup_id))
		return NULL;
	event = bpf_map_lookup_elem(&scratch, &program);
	if (!event || !fill_current(&event->header, cgroup_id))
		return NULL;
	begin_event(event, current_task(), call);
	return event;
}

/* The number of a process, group or session in the namespace that is so deep; 0 if it is in none. */
static __always_inline int number_at(struct pid *pid, __u32 level)
{
	void *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	int number = 0;

	if (BPF_CORE_READ(pid, level) < level)
		return 0;
	bpf_probe_read_kernel(&number, sizeof(number),
			      numbers + level * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, nr));
	return number;
}

/* Read what a table of processes has to know. */
static __always_inline void read_relations(struct event *event, struct task_struct *task)
{
	struct task_struct *parent = TASK_READ(task, real_parent);
	struct signal_struct *signal = TASK_READ(task, signal);
	struct pid *process = BPF_CORE_READ(signal, pids[1]), *group = BPF_CORE_READ(signal, pids[2]);
	__u32 level = BPF_CORE_READ(process, level);

	event->ppid = BPF_CORE_READ(parent, tgid);
	event->parent_start = BPF_CORE_READ(parent, group_leader, start_boottime);
	event->parent_exec_id = BPF_CORE_READ(parent, self_exec_id);
	event->vpid = number_at(process, level);
	event->vpgid = number_at(group, level);
	event->pgid = number_at(group, 0);
	event->sid = number_at(BPF_CORE_READ(signal, pids[3]), 0);
}
