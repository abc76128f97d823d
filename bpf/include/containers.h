/* SPDX-License-Identifier: GPL-2.0 */
/* Which container a cgroup belongs to, and whether this run wants it. Three answers: yes, no, and not known
 * yet. What is not known passes and is decided in user space, so that the first event of a new container is
 * never missed. */
#pragma once

#include "kernel.h"

/* Cgroup id to the id of its container's own cgroup, CGROUP_OF_HOST outside containers, absent if not known
 * yet. One for all objects of an agent; the tracker fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536); /* cgroups of a large node; when it is full the rest is "not known yet" */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} containers SEC(".maps");

#define CGROUP_OF_HOST 0
