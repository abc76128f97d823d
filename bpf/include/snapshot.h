/* SPDX-License-Identifier: GPL-2.0 */
/* A gadget that tells how things are: the kernel iterates over them, and calls the program for each. */
#pragma once

#include "filter.h"

/* The row of a gadget's snapshot. Its first member is the header. */
#define GADGET_SNAPSHOT(row_type)                        \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, 1);                  \
		__type(key, __u32);                      \
		__type(value, row_type);                 \
	} snapshot SEC(".maps");                         \
	_Static_assert(offsetof(row_type, header) == 0, "the header comes first")

/* Fill the header of a row for a task that is iterated over. False if the user did not choose it: write nothing then.
 */
static __always_inline bool gadget_fill_of(struct gadget_header *header, struct task_struct *task)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	header->pid = BPF_CORE_READ(task, tgid);
	header->tid = BPF_CORE_READ(task, pid);
	header->uid = BPF_CORE_READ(task, cred, uid.val);
	header->gid = BPF_CORE_READ(task, cred, gid.val);
	if (!process_chosen(header->pid, header->uid))
		return false;
	header->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	if (!cgroup_chosen(cgroup, &header->cgroup_id))
		return false;
	bpf_core_read(header->comm, sizeof(header->comm), &task->comm);
	return comm_chosen(header->comm);
}

/* Write a row. */
#define gadget_write(context, row) bpf_seq_write((context)->meta->seq, row, sizeof(*(row)))
