/* SPDX-License-Identifier: GPL-2.0 */
/* The last system calls of a container, in a ring of its own: what its records are, and how one is written.
 *
 * A ring is an array of slots of 128 bytes that many CPUs fill and readers map. A writer takes the next position,
 * claims its slot by making the slot's sequence number odd, and publishes it by making it even. A writer that finds the
 * slot claimed, because another was held up for a whole lap, drops its record and counts it; so no record is ever
 * written by two. A reader copies the ring twice and keeps the slots whose sequence number is even and the same in
 * both. */
#pragma once

#include "containers.h"
#include "syscalls.h"

#define STATE_BYTES 128
#define SLOT_BYTES  128
#define DATA_BYTES  104 /* of text in a further slot */
#define ARGUMENTS   6
#define PLACED_MASK ((1 << PLACED_BITS) - 1)

/* What readers have to know too: an enum, so that the build finds it in BTF. */
enum constant {
	ABOUT_BYTES = 8192, /* of the ring, for the agent's own notes: agent/traceloop/rings.py */
	/* the low bits of a sequence number; the rest is the position, counted from 1 */
	SEQUENCE_BUSY = 1,
	SEQUENCE_MORE = 2,
	SHAPE_32BIT = 8,                  /* the number is one of the 32-bit calls */
	NO_DATA = 255,                    /* a length: there is no text, or it could not be read; 0 is an empty one */
	NUMBER_UNKNOWN = UNKNOWN_SYSCALL, /* a number of more than 16 bits: it is in size */
	PLACED_BITS = 24,                 /* of call.placed */
	FIRST_MISSED = 0x7fffffff, /* of state.first: it began before its ring, and user space finds it out, perhaps */
	SPARES = 16,               /* containers that may come at the same moment and be recorded at once */
	BEYOND_SHIFT = 3,          /* in more.argument: above it enum beyond */
};

enum kind {
	KIND_CALL,
	KIND_NO_RETURN,   /* exit, exit_group */
	KIND_EXEC,        /* it succeeded: path, arguments of the program; result: begin of a process from outside */
	KIND_SIGNAL,      /* args: number, si_code, address of the fault or sender, what follows it in siginfo_t */
	KIND_THREAD_EXIT, /* result: the wait status */
	KIND_PROCESS_EXIT,
	KIND_SENT, /* a signal, told by whom; args: number, si_code, receiver, whether both are of the container */
};

/* In more.argument above BEYOND_SHIFT: what of an argument it is, if not what the argument points to. */
enum beyond {
	BEYOND_NOTHING,
	BEYOND_NAME,
	BEYOND_CONTROL,
	BEYOND_BUFFER, /* of an iovec array; its index is added */
};

enum end {
	END_UNKNOWN,
	END_CHILD, /* a process that was started from outside: the first program, or one of an exec; the last that ended
		    */
	END_INIT,  /* the container's own program: all is over */
};

struct call {
	__u64 sequence;
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	/* when the scheduler last looked at the thread, by the CPU's own clock, in units of 1,024 ns; above PLACED_BITS
	 * how often the thread has waited, low bits */
	__u32 placed;
	__u32 ran; /* how long it had run by then, in the same units */
	__u32 pid, tid;
	__s64 result;
	__u32 count; /* of records in this ring, low bits */
	__u16 number;
	__u8 shape;  /* kind, SHAPE_32BIT, and in the upper half the number of args; data begins behind the last */
	__u8 length; /* of the data */
	char comm[15];
	__u8 argument; /* that the data belongs to, and in the upper five bits those of the CPU's number */
	__u64 args[ARGUMENTS];
	__u64 rest;
	/* of HOW_BYTES_POINTED, HOW_VECTOR and HOW_MESSAGE alone; of other calls text may be here */
	__u32 size;             /* how long the buffer really was that the data begins */
	__u16 buffers, skipped; /* how many there were, and empty ones before it */
};
RECORD(call);
_Static_assert(sizeof(struct call) == SLOT_BYTES, "a slot");

/* What did not fit behind the args. */
struct more {
	__u64 sequence;
	__u64 owner; /* the sequence of the call */
	__u8 argument;
	__u8 part; /* of its text; of an argument list which string, and in the upper half how many there are */
	__u16 length;
	__u32 left; /* bytes that follow these; of a string 1 or more if any do */
	char data[DATA_BYTES];
};
RECORD(more);
_Static_assert(sizeof(struct more) == SLOT_BYTES, "a slot");

/* What the kernel keeps of a container beside its calls. */
struct state {
	__u64 head;    /* positions given out */
	__u64 calls;   /* records begun, the dropped ones too */
	__u64 dropped; /* found their slot claimed */
	__u64 ended;   /* when the last process of whose end is told here ended */
	__u32 known;   /* whose end is told here: enum end */
	__u32 status;  /* of it, as wait(2) gives it */
	__u32 oom;     /* a process was killed for want of memory */
	__u32 first;   /* the process of the container's own program; 0 if it is not known */
	__u64 rest[10];
};
RECORD(state);
_Static_assert(sizeof(struct state) == STATE_BYTES, "a ring's state");

/* The default size; user space may set another for slot_mask and the inner map at once. */
#define SLOTS 4096
struct ring {
	char about[ABOUT_BYTES];
	struct state state;
	char slots[SLOTS * SLOT_BYTES];
	char slack[SLOT_BYTES]; /* for the verifier, which sees no slot's end */
};
const volatile __u32 slot_mask = SLOTS - 1;

struct ring_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct ring));
};

/* By the id of the container's own cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__array(values, struct ring_map);
} rings SEC(".maps");

/* Rings for containers that have just come, so that each is recorded before user space has heard of it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SPARES);
	__type(key, __u32);
	__array(values, struct ring_map);
} spares SEC(".maps");

#define BUCKETS 65536
struct recorded {
	/* How many containers with a ring have ids that end in these bits. Most of a machine has none, and is done with
	 * that: the look-up of an array's only element takes no call, one in a hash takes several. */
	__u16 count[BUCKETS];
	/* Which cgroup has which spare ring until user space has given it that or another one; 0 if it is free. The
	 * program alone makes it not 0, user space alone makes it 0. */
	__u64 fresh[SPARES];
	__u64 any_fresh; /* the bits of their ids modulo 64, and perhaps more: 0 if there is none */
};
RECORD(recorded);
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recorded);
} recorded SEC(".maps");

/* Which spare ring a cgroup has; less than 0 if it has none. It is not static, so that the verifier looks at it once,
 * and not for each level of the tree at each place that it is called from. */
__noinline int spare_of(__u64 id)
{
	__u32 zero = 0;
	struct recorded *few = bpf_map_lookup_elem(&recorded, &zero);

	if (!few || !(few->any_fresh >> (id & 63) & 1))
		return -1;
	for (__u32 at = 0; at < SPARES; at++)
		if (few->fresh[at] == id)
			return at;
	return -1;
}

static __always_inline struct ring *ring_of(const struct recorded *few, __u64 id)
{
	__u32 zero = 0;
	void *inner;

	if (!few->count[id & (BUCKETS - 1)])
		return NULL;
	inner = bpf_map_lookup_elem(&rings, &id);
	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

/* As find_ring, for a cgroup that lies deeper than most. */
static __noinline struct ring *find_ring_above(struct cgroup *cgroup)
{
	__u32 zero = 0;
	struct recorded *few = bpf_map_lookup_elem(&recorded, &zero);
	struct ring *ring;

	if (!few || !cgroup)
		return NULL;
	for (int level = 1; level <= CONTAINER_DEPTH; level++) {
		if (level > cgroup->level)
			break;
		ring = ring_of(few, ancestor_id(cgroup, level));
		if (ring)
			return ring;
	}
	return NULL;
}

#define NEAR 6 /* levels of the tree that are walked by plain loads: as deep as most of what runs on a machine */

/* The spare ring of the container that a cgroup is in. It stays one until an agent comes, and a container may have made
 * cgroups and moved into them by then. */
static __noinline struct ring *fresh_ring(struct cgroup *cgroup)
{
	struct cgroup_subsys_state *above;
	__u32 zero = 0;
	void *inner;
	int at = -1;

	if (!cgroup)
		return NULL;
	if (cgroup->level > NEAR) {
		for (int level = 1; level <= CONTAINER_DEPTH && at < 0; level++) {
			if (level > cgroup->level)
				break;
			at = spare_of(ancestor_id(cgroup, level));
		}
	} else {
#pragma unroll
		for (int steps = 0; steps <= NEAR; steps++) {
			at = spare_of(cgroup->kn->id);
			above = cgroup->self.parent;
			if (at >= 0 || !above)
				break;
			cgroup = above->cgroup;
		}
	}
	if (at < 0)
		return NULL;
	inner = bpf_map_lookup_elem(&spares, &at);
	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

/* The ring of the container that a task is in. A container may make as many cgroups inside its own as it likes, so the
 * tree is walked up: by plain loads, as all of the machine's tasks are asked for theirs, and without a loop, as
 * Linux 6.1 refuses one into whose head clang lets an instruction fall through. */
static __always_inline struct ring *find_ring(struct task_struct *task)
{
	struct cgroup *cgroup = task->cgroups->dfl_cgrp, *own = cgroup;
	__u32 zero = 0;
	struct recorded *few = bpf_map_lookup_elem(&recorded, &zero);
	struct cgroup_subsys_state *above;
	struct ring *ring;

	if (!few)
		return NULL;
	if (cgroup->level > NEAR) {
		ring = ring_of(few, cgroup->kn->id);
		if (!ring)
			ring = find_ring_above(cgroup);
		return ring || !few->any_fresh ? ring : fresh_ring(own);
	}
#pragma unroll
	for (int steps = 0; steps <= NEAR; steps++) {
		ring = ring_of(few, cgroup->kn->id);
		if (ring)
			return ring;
		above = cgroup->self.parent;
		if (!above)
			break;
		cgroup = above->cgroup;
	}
	return few->any_fresh ? fresh_ring(own) : NULL;
}

static __always_inline void *claim(struct ring *ring, __u64 flags, __u64 *sequence)
{
	__u64 position = __sync_fetch_and_add(&ring->state.head, 1);
	__u64 *slot = (void *)ring->slots + (position & slot_mask) * SLOT_BYTES;
	__u64 before = *(volatile __u64 *)slot;

	*sequence = (position + 1) << 2 | flags;
	if (before & SEQUENCE_BUSY || before > *sequence ||
	    __sync_val_compare_and_swap(slot, before, *sequence | SEQUENCE_BUSY) != before) {
		__sync_fetch_and_add(&ring->state.dropped, flags ? 0 : 1);
		return NULL;
	}
	return slot;
}

static __always_inline void publish(void *slot, __u64 sequence)
{
#if defined(__TARGET_ARCH_arm64)
	__sync_lock_test_and_set((__u64 *)slot, sequence); /* all that was written comes before it */
#else
	barrier(); /* x86 keeps the order of stores */
	*(volatile __u64 *)slot = sequence;
#endif
}

static __always_inline struct call *begin(struct ring *ring, struct task_struct *task, __u8 kind, __u64 *sequence)
{
	__u64 count = __sync_fetch_and_add(&ring->state.calls, 1);
	struct call *call = claim(ring, 0, sequence);

	if (!call)
		return NULL;
	call->time = bpf_ktime_get_boot_ns();
	call->placed = (task->se.exec_start >> 10 & PLACED_MASK) | (__u32)task->nvcsw << PLACED_BITS;
	call->ran = task->se.sum_exec_runtime >> 10;
	call->pid = task->tgid;
	call->tid = task->pid;
	call->count = count;
	call->shape = kind;
	call->length = NO_DATA;
	__builtin_memcpy(call->comm, task->comm, sizeof(task->comm)); /* its last byte is 0 */
	call->argument = bpf_get_smp_processor_id() << 3;
	return call;
}
