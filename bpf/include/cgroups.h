/* SPDX-License-Identifier: GPL-2.0 */
/* The tree of cgroups, upwards. */
#pragma once

#include "kernel.h"

/* How deep in the tree a container's own cgroup lies at most, the root being 0. A pod's is at 2 to 5, and at 9 in nodes
 * that are containers. */
#define CONTAINER_DEPTH 16

/* The id of a cgroup's ancestor at a level above its own. A function of its own, as clang would take both offsets
 * before a loop, and one of them is not there. */
static __noinline __u64 ancestor_id(struct cgroup *cgroup, __u32 level)
{
	struct cgroup *ancestor = NULL;
	__u64 id = 0;
	void *at;

	if (!cgroup)
		return 0;
	if (bpf_core_field_exists(cgroup->ancestors)) { /* kernel commit 7f203bc89eb6 (6.1) */
		at = (void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors);
		bpf_probe_read_kernel(&ancestor, sizeof(ancestor), at + level * sizeof(ancestor));
		return BPF_CORE_READ(ancestor, kn, id);
	}
	at = (void *)cgroup + bpf_core_field_offset(struct cgroup___before_6_1, ancestor_ids);
	bpf_probe_read_kernel(&id, sizeof(id), at + level * sizeof(id));
	return id;
}
