/* SPDX-License-Identifier: GPL-2.0 */
/* Which container a cgroup belongs to, and whether this run wants it. Three answers: yes, no, and not known
 * yet. What is not known passes and is decided in user space, so that the first event of a new container is
 * never missed.
 *
 * A container may make as many cgroups inside its own as it likes. So none of them is kept: a cgroup's container is
 * found by walking up the tree. */
#pragma once

#include "cgroups.h"

/* Of cgroups outside containers, and of each container's own: its id, or one of the constants below. Absent inside
 * containers, and if not known yet. One for all objects of an agent; the tracker fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536); /* cgroups of a large node; when it is full the rest is "not known yet" */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} containers SEC(".maps");

#define CGROUP_OF_HOST   0
#define CGROUP_OF_OTHERS 1 /* a container that is not ours to show, with all that is inside it; the root's id is 1 */

/* The container that a cgroup is inside of, which is not its own cgroup: its id, CGROUP_OF_OTHERS, or CGROUP_OF_HOST if
 * there is none that is known. */
static __noinline __u64 container_above(struct cgroup *cgroup)
{
	__u64 id, *container;
	int level;

	if (!cgroup)
		return CGROUP_OF_HOST;
	level = BPF_CORE_READ(cgroup, level);
	if (level > CONTAINER_DEPTH)
		level = CONTAINER_DEPTH + 1;
	for (int steps = 0; steps < CONTAINER_DEPTH && --level > 0; steps++) {
		id = ancestor_id(cgroup, level);
		container = bpf_map_lookup_elem(&containers, &id);
		if (container && *container != CGROUP_OF_HOST)
			return *container;
	}
	return CGROUP_OF_HOST;
}

enum whereabouts {
	NOT_KNOWN, /* a cgroup's container may not have been looked at yet */
	OUTSIDE,   /* the host's, or not ours to show */
	INSIDE,
};

/* Where the cgroup of an id is. Of one inside a container the id becomes that of the container's own. */
static __always_inline enum whereabouts find_container(struct cgroup *cgroup, __u64 *id)
{
	__u64 *known = bpf_map_lookup_elem(&containers, id);
	__u64 container = known ? *known : container_above(cgroup);

	if (container > CGROUP_OF_OTHERS) {
		*id = container;
		return INSIDE;
	}
	return known || container == CGROUP_OF_OTHERS ? OUTSIDE : NOT_KNOWN;
}
