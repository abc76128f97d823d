/* SPDX-License-Identifier: GPL-2.0 */
/* A gadget whose rows the agent reads from files of /proc or of cgroups, once or at an interval: reader.py
 * in the gadget's folder does. The object has no program. It says what a row looks like. */
#pragma once

#include "chosen.h"
#include "containers.h"
#include "gadget.h"

/* The row of a gadget's readings. It begins with READINGS_HEADER. */
#define GADGET_READINGS(row_type)                        \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, 1);                  \
		__type(key, __u32);                      \
		__type(value, row_type);                 \
	} readings SEC(".maps");                         \
	_Static_assert(offsetof(row_type, timestamp) == 0, "the time comes first")

#define READINGS_HEADER                                     \
	gadget_timestamp timestamp DOC("when it was read"); \
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup")
