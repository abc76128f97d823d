/* SPDX-License-Identifier: GPL-2.0 */
#pragma once

#include "kernel.h"

/* The decisions of this run, by container: 1 chosen, 0 not. A container that is absent is not decided yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} chosen SEC(".maps");
