/* SPDX-License-Identifier: GPL-2.0 */
/* How long threads have waited for a CPU, which the kernel adds up for each since it began. */
#pragma once

#include "filter.h"

#define THREADS 32768 /* threads that are remembered at once */

/* How long each thread had waited in all when a program last looked. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, THREADS); /* preallocated: programs run where nothing may be allocated */
	__type(key, __u32);
	__type(value, __u64);
} waits SEC(".maps");

/* *since becomes how long a thread has waited since the last look; since it had waited for so long as `before`, if
 * nobody has looked yet. False if there is no room to remember this look. */
static __always_inline bool waited_since(struct task_struct *task, __u64 before, __u64 *since)
{
	__u64 now = task->sched_info.run_delay, *last;
	__u32 tid = task->pid;

	last = bpf_map_lookup_elem(&waits, &tid);
	*since = now - (last && *last <= now ? *last : before); /* else it is of an earlier thread with this id */
	if (!last)
		return !bpf_map_update_elem(&waits, &tid, &now, BPF_NOEXIST);
	*last = now;
	return true;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(gone, struct task_struct *task)
{
	__u32 tid = task->pid;

	bpf_map_delete_elem(&waits, &tid);
	return 0;
}
