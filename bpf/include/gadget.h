/* SPDX-License-Identifier: GPL-2.0 */
/* What every gadget is made of: the header and the tail of its event, and the event's way to user space.
 *
 * The struct event is the schema: the build reads it from the object's BTF. Text of any length goes into the event's
 * tail, and a gadget_slice member says where it lies there. Events with little text take the ring of short records, so
 * that one long argument list does not make every record long. */
#pragma once

#include <linux/limits.h>

#include "fields.h"

struct gadget_header {
	gadget_timestamp timestamp DOC("when it happened");
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_pid pid DOC("process id, as the host sees it");
	gadget_pid tid DOC("thread id, as the host sees it");
	gadget_uid uid DOC("user id, as the host sees it");
	gadget_gid gid DOC("group id, as the host sees it");
	gadget_comm comm DOC("name of the thread");
	__u16 text_length; /* bytes used of the tail */
};

#ifndef TEXT_SHORT
#define TEXT_SHORT 256 /* the tail of a short record: nine of ten execs fit; a gadget may have its own */
#endif
#define TEXT_MAX 8192 /* a power of two: a length is 13 bits */

/* Room for the longest string behind the last offset, which the verifier asks for. It is never sent. */
#define TEXT_SLACK PATH_MAX

/* Why an event was lost. LOSSES of agent/run/source.py has the names. */
enum gadget_loss {
	LOSS_RING_FULL,
	LOSS_TOO_MANY_AT_ONCE, /* a table of attempts or connections was full */
	LOSS_TABLE_FULL,       /* the rows of an interval were all taken: see table.h */
	LOSS_TOTALS,
};

struct gadget_losses {
	__u64 of[LOSS_TOTALS];
};

/* The rings of a gadget, and a scratch event for each of its programs. A program never interrupts itself on one CPU
 * (the kernel counts that as recursion instead), but it may interrupt another one: so the scratch events are apart. */
#define GADGET_EVENTS(programs)                          \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_RINGBUF);      \
		__uint(max_entries, 8 << 20);            \
	} events SEC(".maps");                           \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_RINGBUF);      \
		__uint(max_entries, 4 << 20);            \
	} events_long SEC(".maps");                      \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); \
		__uint(max_entries, programs);           \
		__type(key, __u32);                      \
		__type(value, struct event);             \
	} scratch SEC(".maps");                          \
	_Static_assert(sizeof(((struct event *)0)->text) == TEXT_MAX + TEXT_SLACK, "text is the tail")

/* The ring of a gadget whose programs all make their events by gadget_reserve(). */
#define GADGET_RESERVED()                           \
	struct {                                    \
		__uint(type, BPF_MAP_TYPE_RINGBUF); \
		__uint(max_entries, 8 << 20);       \
	} events SEC(".maps");                      \
	RECORD(event);                              \
	_Static_assert(sizeof(((struct event *)0)->text) == TEXT_MAX + TEXT_SLACK, "text is the tail")

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSS_TOTALS);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

/* Losses by the cgroup of the container. When this map is full the totals above still count; the difference is shown as
 * "other". */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct gadget_losses);
} losses_by_cgroup SEC(".maps");

/* Count an event as lost. A gadget calls it when a table of its own is full; gadget_submit does for the rings. */
static __always_inline void gadget_lost(enum gadget_loss reason, __u64 cgroup_id)
{
	struct gadget_losses none = {}, *counts;
	__u32 index = reason;
	__u64 *total;

	total = bpf_map_lookup_elem(&losses, &index);
	if (total)
		__sync_fetch_and_add(total, 1);
	counts = bpf_map_lookup_elem(&losses_by_cgroup, &cgroup_id);
	if (!counts) {
		bpf_map_update_elem(&losses_by_cgroup, &cgroup_id, &none, BPF_NOEXIST);
		counts = bpf_map_lookup_elem(&losses_by_cgroup, &cgroup_id);
	}
	if (counts)
		__sync_fetch_and_add(&counts->of[reason], 1);
}

/* Whose quota: a container, and the ring, which the size of its records tells. */
struct quota_key {
	__u64 container, record;
};

/* How much of its quota a container has used: the bytes it put into a ring that was more than half full, since the
 * producer's position was start. */
struct quota {
	__u64 start, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024); /* at once; a container that is evicted begins its quota anew */
	__type(key, struct quota_key);
	__type(value, struct quota);
} quotas SEC(".maps");

/* Whether a container may add a record of so many bytes to a ring. Anyone may while it is half empty. Beyond that each
 * may have an eighth of it until it has moved on by half, so that one that floods leaves room for the others. */
static __always_inline bool gadget_fair(void *ring, __u64 cgroup_id, __u64 bytes, __u64 waiting, __u64 size)
{
	struct quota fresh = {}, *quota;
	struct quota_key key;
	__u64 produced;

	if (waiting <= size / 2)
		return true;
	key = (struct quota_key){cgroup_id, bytes};
	produced = bpf_ringbuf_query(ring, BPF_RB_PROD_POS);
	quota = bpf_map_lookup_elem(&quotas, &key);
	if (!quota) {
		fresh = (struct quota){.start = produced, .bytes = bytes};
		bpf_map_update_elem(&quotas, &key, &fresh, BPF_ANY);
		return true;
	}
	if (produced - quota->start > size / 2) {
		quota->start = produced;
		quota->bytes = 0;
	}
	if (quota->bytes + bytes > size / 8)
		return false;
	__sync_fetch_and_add(&quota->bytes, bytes);
	return true;
}

/* Whether the reader is woken for an event: for the first one in an empty ring, so that the reader may sleep, and for
 * any while more than a quarter of the ring waits. For the others the reader's own timer is soon enough, and cheaper.
 */
static __always_inline __u64 gadget_wakeup(__u64 waiting, __u64 size)
{
	return !waiting || waiting > size / 4 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* The size of a ring in bytes. */
static __always_inline __u64 ring_size(const void *ring)
{
	return ((const struct bpf_map *)ring)->max_entries;
}

/* Send the first bytes of an event. */
static __always_inline void gadget_output(void *ring, void *event, __u64 bytes, __u64 cgroup_id)
{
	__u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	__u64 size = ring_size(ring);

	if (!gadget_fair(ring, cgroup_id, bytes, waiting, size) ||
	    bpf_ringbuf_output(ring, event, bytes, gadget_wakeup(waiting, size)))
		gadget_lost(LOSS_RING_FULL, cgroup_id);
}

static const char gadget_zeros[TEXT_MAX];
#define STORED \
	1024 /* bytes that clang zeroes by stores; more of them would be more instructions than a call is worth */

/* Zero the tail of an event that is not sent after all, so that no later event carries the rest of it. */
#define gadget_wipe(event)                                                \
	do {                                                              \
		__u32 used = (event)->header.text_length;                 \
		if (used > TEXT_MAX)                                      \
			used = TEXT_MAX;                                  \
		bpf_probe_read_kernel((event)->text, used, gadget_zeros); \
	} while (0)

/* Send the event to user space, or count it as lost, and wipe its tail. */
#define gadget_submit(event)                                                      \
	do {                                                                      \
		const __u64 fixed = offsetof(typeof(*(event)), text);             \
		__u64 id = (event)->header.cgroup_id;                             \
		if ((event)->header.text_length <= TEXT_SHORT)                    \
			gadget_output(&events, event, fixed + TEXT_SHORT, id);    \
		else                                                              \
			gadget_output(&events_long, event, fixed + TEXT_MAX, id); \
		gadget_wipe(event);                                               \
	} while (0)

/* Whether a container may reserve so many bytes of a ring. */
static __always_inline bool gadget_may_reserve(void *ring, __u64 cgroup_id, __u64 bytes)
{
	return gadget_fair(ring, cgroup_id, bytes, bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA), ring_size(ring));
}

/* An event in the ring itself, with this header and all else zero; its tail has TEXT_SHORT bytes. It is for programs
 * that may be interrupted by themselves, as those for packets: the second one would overwrite the first one's scratch
 * event. NULL if there is no room, which is counted as lost. Call gadget_send() soon: later events wait for it. */
#define gadget_reserve(from)                                                                                      \
	({                                                                                                        \
		const __u64 bytes = offsetof(struct event, text) + TEXT_SHORT;                                    \
		struct event *reserved = NULL;                                                                    \
		_Static_assert(sizeof(struct event) - TEXT_MAX - TEXT_SLACK + TEXT_SHORT <= sizeof(gadget_zeros), \
			       "zeros reach");                                                                    \
		if (gadget_may_reserve(&events, (from)->cgroup_id, bytes))                                        \
			reserved = bpf_ringbuf_reserve(&events, bytes, 0);                                        \
		if (reserved) {                                                                                   \
			if (bytes <= STORED)                                                                      \
				__builtin_memset(reserved, 0, bytes);                                             \
			else                                                                                      \
				bpf_probe_read_kernel(reserved, bytes, gadget_zeros);                             \
			reserved->header = *(from);                                                               \
		} else {                                                                                          \
			gadget_lost(LOSS_RING_FULL, (from)->cgroup_id);                                           \
		}                                                                                                 \
		reserved;                                                                                         \
	})

/* Send an event that gadget_reserve() gave. */
#define gadget_send(event)                                                                                      \
	do {                                                                                                    \
		const __u64 own = (offsetof(struct event, text) + TEXT_SHORT + BPF_RINGBUF_HDR_SZ + 7) & ~7ULL; \
		__u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) - own;                            \
		bpf_ringbuf_submit(event, gadget_wakeup(waiting, ring_size(&events)));                          \
	} while (0)
