/* SPDX-License-Identifier: GPL-2.0 */
/* A gadget that counts: its rows lie in a table, which user space reads at an interval.
 *
 * There are two tables. Programs count in one of them; the agent reads and empties the other. At the end of an interval
 * the agent exchanges the two. The kernel returns from that once no program uses the old one any more (a program that
 * may sleep is not waited for: it must not count). So each row is of one interval, whole, and nothing is counted twice
 * or between two intervals. What is idle has no row, so the table does not grow. */
#pragma once

#include "filter.h"

/* The table of a gadget. A key and its value are one row. The key has a member cgroup_id and no padding. What --totals
 * adds up of a value, numbers, durations and sizes, has 8 bytes each. entries is how many keys one interval may have.
 * More are lost, and counted. */
#define GADGET_TABLE(key_type, value_type, entries)                                                            \
	struct gadget_rows {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                               \
		__uint(max_entries, entries);                                                                  \
		__type(key, key_type);                                                                         \
		__type(value, value_type);                                                                     \
	} rows_first SEC(".maps"), rows_second SEC(".maps");                                                   \
	struct {                                                                                               \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                                      \
		__uint(max_entries, 1);                                                                        \
		__type(key, __u32);                                                                            \
		__array(values, struct gadget_rows);                                                           \
	} rows SEC(".maps") = {.values = {(void *)&rows_first}};                                               \
	static const value_type gadget_empty;                                                                  \
	static __always_inline value_type *gadget_row(const key_type *key)                                     \
	{                                                                                                      \
		return gadget_row_of(&rows, key, &gadget_empty, key->cgroup_id, entries);                      \
	}                                                                                                      \
	_Static_assert(__builtin_types_compatible_p(typeof(((key_type *)0)->cgroup_id), __u64), "a key has a " \
												"cgroup_id")

/* Room for text as the last members of a value: slices among the others say what lies there. text_length is how much of
 * it is used, in bytes. */
#define GADGET_ROW_TEXT(bytes) \
	__u16 text_length;     \
	char text[bytes]

struct gadget_interval {
	__u64 number, rows;
};

/* The interval that programs count in: the agent numbers it. rows is how many the table has so far. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gadget_interval);
} interval SEC(".maps");

/* Whether a container may have one more row. Anyone may while the table is half empty. Beyond that each may have an
 * eighth of it, so that one that makes rows without end leaves room for the others. */
static __always_inline bool gadget_row_fair(struct gadget_interval *now, __u64 cgroup_id, __u64 entries)
{
	struct quota_key key = {.container = cgroup_id};
	struct quota *quota;

	if (now->rows <= entries / 2)
		return true;
	quota = bpf_map_lookup_elem(&quotas, &key);
	return !quota || quota->start != now->number || quota->bytes < entries / 8;
}

/* Count a new row of a container. In quotas it is a ring with records of no bytes: start is the interval's number, and
 * bytes are rows. */
static __always_inline void gadget_row_counted(struct gadget_interval *now, __u64 cgroup_id)
{
	struct quota_key key = {.container = cgroup_id};
	struct quota fresh = {.start = now->number, .bytes = 1}, *quota;

	__sync_fetch_and_add(&now->rows, 1);
	quota = bpf_map_lookup_elem(&quotas, &key);
	if (quota && quota->start == fresh.start)
		__sync_fetch_and_add(&quota->bytes, 1);
	else
		bpf_map_update_elem(&quotas, &key, &fresh, BPF_ANY);
}

static __always_inline void *gadget_row_of(void *rows, const void *key, const void *empty, __u64 cgroup_id,
					   __u64 entries)
{
	struct gadget_interval *now;
	void *table, *value;
	__u32 zero = 0;

	table = bpf_map_lookup_elem(rows, &zero);
	now = bpf_map_lookup_elem(&interval, &zero);
	if (!table || !now)
		return NULL;
	value = bpf_map_lookup_elem(table, key);
	if (value)
		return value;
	if (gadget_row_fair(now, cgroup_id, entries) && !bpf_map_update_elem(table, key, empty, BPF_NOEXIST))
		gadget_row_counted(now, cgroup_id);
	value = bpf_map_lookup_elem(table, key); /* another CPU may have made it */
	if (!value)
		gadget_lost(LOSS_TABLE_FULL, cgroup_id);
	return value;
}
