/* SPDX-License-Identifier: GPL-2.0 */
/* Walks up the tree of cgroups. */
#pragma once

#include "kernel.h"

/* The deepest level at which a container's own cgroup is looked for; the root is level 0. The cgroup of a pod's
 * container is at level 2 to 5, and at 9 on a node that is itself a container. */
#define CONTAINER_DEPTH 16

/* The id of the ancestor of a cgroup at a level. It is a function of its own because clang would otherwise compute both
 * offsets before a loop, and each kernel has only one of the two members. */
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
