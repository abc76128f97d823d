/* SPDX-License-Identifier: GPL-2.0 */
/* How many entries of a gadget's own table each container has, so that one that floods leaves room for the others. */
#pragma once

#include "kernel.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096); /* containers at once; one that is evicted begins anew */
	__type(key, __u64);
	__type(value, __s64);
} held SEC(".maps");

/* Count one more entry of a container. False if it has as many as it may have: make none then. */
static __always_inline bool quota_take(__u64 cgroup_id, __s64 most)
{
	__s64 none = 0, *count = bpf_map_lookup_elem(&held, &cgroup_id);

	if (!count) {
		bpf_map_update_elem(&held, &cgroup_id, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&held, &cgroup_id);
	}
	if (!count || *count >= most)
		return false;
	__sync_fetch_and_add(count, 1);
	return true;
}

/* Count one entry less. */
static __always_inline void quota_give(__u64 cgroup_id)
{
	__s64 *count = bpf_map_lookup_elem(&held, &cgroup_id);

	if (count)
		__sync_fetch_and_add(count, -1);
}
