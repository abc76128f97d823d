/* SPDX-License-Identifier: GPL-2.0 */
/* How long system calls take. */
#pragma once

#include "filter.h"

/* When a thread began its call. Each thread has its own, so nobody can take another's room. agent/bpf/features.py knows
 * what a kernel lacks that refuses a map of such a name. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} calls_of_tasks SEC(".maps");

/* The current thread begins a call. */
static __always_inline void call_begins(void)
{
	__u64 *began;

	if (!process_chosen(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid()))
		return;
	began = bpf_task_storage_get(&calls_of_tasks, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (began)
		*began = bpf_ktime_get_boot_ns();
}

/* How long the call took that returns now. 0 if it began before the stream. */
static __always_inline __u64 time_taken(__u64 now)
{
	__u64 *began = bpf_task_storage_get(&calls_of_tasks, bpf_get_current_task_btf(), NULL, 0), since;

	if (!began || !*began)
		return 0;
	since = *began;
	*began = 0;
	return now - since;
}
