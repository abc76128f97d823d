/* SPDX-License-Identifier: GPL-2.0 */
/* A snapshot of a whole node, by a walk. The kernel's own iterators show a reader what is in its namespaces: an agent
 * in a pod has a pid and a network namespace of its own. So the program iterates over the elements of a map, which mean
 * nothing but a turn each, and finds itself what there is.
 *
 * Each turn writes one row at most. The walk's place says where the next one goes on. */
#pragma once

#include "snapshot.h"
#include "text.h"

#define WALK_END ((__u64)-1)

/* The agent iterates again until the place is WALK_END. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} turns SEC(".maps");

/* Where the next turn goes on. The agent begins with 0. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} place SEC(".maps");

/* How many walks have begun. */
static __u64 walks;

#define WALK_QUOTA 8192 /* rows that one container may have */

/* Count one more row of a container in this walk. False if it has as many as it may have, so that one that opens a
 * great many files leaves room for the others. That counts as lost. In quotas a walk is a ring with records of no
 * bytes: start is the walk's number, and bytes are rows. */
static __always_inline bool walk_may_add(__u64 cgroup_id)
{
	struct quota_key key = {.container = cgroup_id};
	struct quota *quota = bpf_map_lookup_elem(&quotas, &key), fresh = {.start = walks, .bytes = 1};

	if (!quota || quota->start != walks) {
		bpf_map_update_elem(&quotas, &key, &fresh, BPF_ANY);
		return true;
	}
	if (quota->bytes < WALK_QUOTA) {
		quota->bytes++;
		return true;
	}
	gadget_lost(LOSS_TABLE_FULL, cgroup_id);
	return false;
}

/* How many bytes of a row are written at once: all but long text. It stands in further slots, which begin with their
 * number where the first one has its time. */
#define WALK_SLOT(row_type) ((offsetof(row_type, text) + TEXT_SHORT + 7) & ~7UL)

/* The row of a gadget's walk, with a tail of text. */
#define GADGET_WALK(row_type)                                   \
	GADGET_SNAPSHOT(row_type);                              \
	struct walk_slot {                                      \
		__u64 number;                                   \
		char part[WALK_SLOT(row_type) - sizeof(__u64)]; \
	};                                                      \
	struct {                                                \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);        \
		__uint(max_entries, 1);                         \
		__type(key, __u32);                             \
		__type(value, struct walk_slot);                \
	} slot SEC(".maps")

/* Begin a turn: the walk's place, and an empty row. NULL if there is nothing to do in this turn: return *result then.
 * The kernel comes again with the same turn if there is no room for the longest row. */
#define walk_begin(turn, row, result)                                                                         \
	({                                                                                                    \
		__u32 zero = 0;                                                                               \
		__u64 *at = bpf_map_lookup_elem(&place, &zero);                                               \
		row = bpf_map_lookup_elem(&snapshot, &zero);                                                  \
		*(result) = 0;                                                                                \
		if (at && !*at)                                                                               \
			walks++;                                                                              \
		if (!(turn)->value || !row || !at || *at == WALK_END) {                                       \
			at = NULL;                                                                            \
		} else if (BPF_CORE_READ((turn)->meta, seq, size) - BPF_CORE_READ((turn)->meta, seq, count) < \
			   sizeof(*row)) {                                                                    \
			at = NULL;                                                                            \
			*(result) = 1;                                                                        \
		}                                                                                             \
		at;                                                                                           \
	})

/* Write a row, and wipe its tail. */
#define walk_write(turn, row)                                                                    \
	do {                                                                                     \
		const __u64 first = sizeof(struct walk_slot) - offsetof(typeof(*(row)), text);   \
		const __u64 more = sizeof(struct walk_slot) - sizeof(__u64);                     \
		__u32 zero = 0;                                                                  \
		struct walk_slot *next = bpf_map_lookup_elem(&slot, &zero);                      \
		(row)->header.timestamp = 0;                                                     \
		bpf_seq_write((turn)->meta->seq, row, sizeof(struct walk_slot));                 \
		for (__u32 i = 0; next && i < (TEXT_MAX - first + more - 1) / more; i++) {       \
			if ((row)->header.text_length <= first + i * more)                       \
				break;                                                           \
			next->number = i + 1;                                                    \
			bpf_probe_read_kernel(next->part, more, (row)->text + first + i * more); \
			bpf_seq_write((turn)->meta->seq, next, sizeof(*next));                   \
		}                                                                                \
		gadget_wipe(row);                                                                \
	} while (0)

#define PID_CHUNK  64 /* XA_CHUNK_SIZE */
#define PID_LEVELS 5  /* levels of a tree of 2^30 numbers */

/* The next process or thread of the node from *number on, as find_ge_pid() of the kernel; *number is where to go on.
 * NULL if a part of the numbers has none: ask again, until *number is 0. */
static __noinline struct pid *next_pid(__u32 *number)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 entry = 0;
	__u32 at, shift;
	void **slots;

	if (!number)
		return NULL;
	at = *number;
	*number = 0;
	/* the first pid namespace's tree: every process has a number in it */
	entry = (__u64)BPF_CORE_READ(task, thread_pid, numbers[0].ns, idr.idr_rt.xa_head);
	if ((entry & 3) != 2)
		return NULL;
	if (at >> BPF_CORE_READ((struct xa_node *)(entry - 2), shift) >= PID_CHUNK)
		return NULL;
	for (int level = 0; level < PID_LEVELS; level++) {
		struct xa_node *node = (void *)(entry - 2);

		shift = BPF_CORE_READ(node, shift) & 31;
		slots = (void *)node + bpf_core_field_offset(struct xa_node, slots);
		if (!shift)
			break;
		bpf_probe_read_kernel(&entry, sizeof(entry), slots + (at >> shift) % PID_CHUNK);
		if ((entry & 3) != 2 || entry < 4096) {
			*number = ((at >> shift) + 1) << shift;
			return NULL;
		}
	}
	for (int i = 0; i < PID_CHUNK; i++) {
		bpf_probe_read_kernel(&entry, sizeof(entry), slots + at % PID_CHUNK);
		at++;
		if (entry && !(entry & 3)) {
			*number = at;
			return (void *)entry;
		}
		if (!(at % PID_CHUNK))
			break;
	}
	*number = at;
	return NULL;
}

enum pid_kind {
	PID_OF_THREAD,
	PID_OF_PROCESS,
};

/* The thread that has a number, or the process. NULL if it has gone. */
static __always_inline struct task_struct *task_of(struct pid *pid, enum pid_kind kind)
{
	struct hlist_node *first = kind == PID_OF_PROCESS ? BPF_CORE_READ(pid, tasks[PID_OF_PROCESS].first)
							  : BPF_CORE_READ(pid, tasks[PID_OF_THREAD].first);

	return first ? (void *)first - bpf_core_field_offset(struct task_struct, pid_links) -
			       kind * sizeof(struct hlist_node)
		     : NULL;
}

#define CSS_ONLINE 0x2

/* Whether a task is what is left of a container that is gone: a zombie in a cgroup that has been removed. */
static __always_inline bool is_left_over(struct task_struct *task)
{
	return BPF_CORE_READ(task, exit_state) && !(BPF_CORE_READ(task, cgroups, dfl_cgrp, self.flags) & CSS_ONLINE);
}

/* The next open file of the node from a place on, and whose it is. */
struct walk_file {
	struct task_struct *task;
	struct file *file;
	__u32 fd;
};

#define WALK_FILES 64 /* descriptors that one turn looks at */

/* A place in the files of the process that has a number, or in those of the next one. */
#define WALK_PLACE(number, fd) ((__u64)(number) << 32 | (fd))

/* Find the next open file: of the processes for which gadget_fill_for() fills the header. False if this turn finds
 * none. *place is where to go on. */
static __always_inline bool next_file(__u64 *place, struct gadget_header *header, struct walk_file *found)
{
	__u32 wanted = *place >> 32, number = wanted, fd = *place, most;
	struct pid *pid = next_pid(&number);
	struct task_struct *task;
	struct file *file = NULL;
	struct fdtable *table;
	struct file **files;

	*place = number ? WALK_PLACE(number, 0) : WALK_END;
	if (!pid)
		return false;
	if (number != wanted + 1)
		fd = 0; /* the process has ended meanwhile */
	task = task_of(pid, PID_OF_PROCESS);
	if (!task || !gadget_fill_for(header, task))
		return false;
	table = BPF_CORE_READ(task, files, fdt);
	most = BPF_CORE_READ(table, max_fds);
	files = BPF_CORE_READ(table, fd);
	for (int i = 0; i < WALK_FILES && fd < most && !file; i++)
		bpf_core_read(&file, sizeof(file), &files[fd++]);
	if (fd < most)
		*place = WALK_PLACE(number - 1, fd);
	*found = (struct walk_file){.task = task, .file = file, .fd = fd - 1};
	return file;
}

/* Leave out the other files of the process that a place is in. */
static __always_inline void skip_files(__u64 *place)
{
	if (*place != WALK_END && (__u32)*place)
		*place = WALK_PLACE((*place >> 32) + 1, 0);
}
