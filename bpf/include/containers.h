/* SPDX-License-Identifier: GPL-2.0 */
/* Which container a cgroup belongs to. There are three answers: a container, no container, and not known yet. An event
 * with the third answer passes, and user space decides. So the first event of a new container is never missed.
 *
 * A container may make as many cgroups inside its own as it likes. So the map holds none of these: a program finds the
 * container of a cgroup by walking up the tree. */
#pragma once

#include "cgroups.h"

/* From the id of a cgroup to its container. A container's own cgroup has its own id as value. A cgroup outside
 * containers has one of the constants below. Two kinds of cgroups are absent: those inside a container's own, and new
 * ones that the tracker has not read yet. All objects of an agent have this one map in common; the tracker fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536); /* cgroups of a large node; when it is full the rest is "not known yet" */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} containers SEC(".maps");

#define CGROUP_OF_HOST   0
#define CGROUP_OF_OTHERS 1 /* a container that is not ours to show, with all inside it; 1 is the root's id */

/* The container that is known of the nearest cgroup above this one: the id of the container's cgroup, or
 * CGROUP_OF_OTHERS. CGROUP_OF_HOST if no cgroup above is a known container's. */
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
	NOT_KNOWN, /* the tracker may not have read this cgroup yet */
	OUTSIDE,   /* a cgroup of the host, or of a container that is not ours to show */
	INSIDE,
};

/* Where a cgroup is; *id is its id. If it is inside a container, *id becomes the id of the container's own cgroup. */
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

/* find_container() for the cgroup of a packet's socket: of the process that made it. *id is 0 if it has none. */
static __always_inline enum whereabouts find_container_of_packet(struct __sk_buff *skb, __u64 *id)
{
	__u64 above, *container;

	*id = bpf_skb_cgroup_id(skb);
	container = bpf_map_lookup_elem(&containers, id);
	if (container) {
		if (*container <= CGROUP_OF_OTHERS)
			return OUTSIDE;
		*id = *container;
		return INSIDE;
	}
	for (int level = 1; level <= CONTAINER_DEPTH; level++) {
		above = bpf_skb_ancestor_cgroup_id(skb, level);
		if (!above)
			break;
		container = bpf_map_lookup_elem(&containers, &above);
		if (container && *container != CGROUP_OF_HOST) {
			*id = *container;
			return *container == CGROUP_OF_OTHERS ? OUTSIDE : INSIDE;
		}
	}
	return NOT_KNOWN;
}
