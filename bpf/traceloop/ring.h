/* SPDX-License-Identifier: GPL-2.0 */
/* The ring of a container, with its last system calls: what a record is, and how it is written.
 *
 * A ring is an array of slots of 128 bytes. Many CPUs fill it, and readers map it. A writer takes the next position,
 * claims its slot by making the slot's sequence number odd, and publishes it by making the number even. If a writer was
 * held up for a whole lap, the next writer of that slot finds it claimed: it drops its own record and counts it. So two
 * writers never write one record. A reader copies the ring twice, and keeps the slots whose sequence number is even and
 * the same in both copies. */
#pragma once

#include "containers.h"
#include "syscalls.h"

#define STATE_BYTES 128
#define SLOT_BYTES  128
#define DATA_BYTES  104 /* room for text in a further slot */
#define ARGUMENTS   6
#define PLACED_MASK ((1 << PLACED_BITS) - 1)

/* Constants that readers need, too. They are an enum so that the build finds them in BTF. */
enum constant {
	ABOUT_BYTES = 8192, /* at the ring's beginning, for the agent's notes: agent/traceloop/rings.py */
	/* the low bits of a sequence number; the rest is the position, counted from 1 */
	SEQUENCE_BUSY = 1,
	SEQUENCE_MORE = 2,
	SHAPE_32BIT = 8, /* the call is a 32-bit one */
	NO_DATA = 255,   /* as a length: there is no text, or it could not be read; 0 is an empty text */
	NUMBER_UNKNOWN = UNKNOWN_SYSCALL, /* the number has more than 16 bits, and is in size */
	PLACED_BITS = 24,                 /* for the time in call.placed */
	FIRST_MISSED = 0x7fffffff, /* in state.first: the process began before the ring; user space may find it */
	SPARES = 16,      /* how many containers may come at the same moment and be recorded from their start */
	BEYOND_SHIFT = 3, /* in more.argument: enum beyond is above this bit */
};

enum kind {
	KIND_CALL,
	KIND_NO_RETURN, /* exit, exit_group */
	KIND_EXEC,      /* an exec that succeeded: path, arguments; result: when a process from outside began, else 0 */
	KIND_SIGNAL,    /* args: number, si_code, address of the fault or sender, what follows it in siginfo_t */
	KIND_THREAD_EXIT, /* result: the wait status */
	KIND_PROCESS_EXIT,
	KIND_SENT, /* a signal, by its sender; args: number, si_code, receiver, whether both are in the container */
};

/* In more.argument, above BEYOND_SHIFT: which part of an argument the text is. 0 is the memory that the argument points
 * to. */
enum beyond {
	BEYOND_NOTHING,
	BEYOND_NAME,
	BEYOND_CONTROL,
	BEYOND_BUFFER, /* a buffer of an iovec array; its index is added to this */
};

/* Which process's end is in state.ended and state.status. A later value replaces an earlier one. */
enum end {
	END_UNKNOWN,
	END_CHILD, /* of processes begun from outside (the container's program, or an exec) the last to end */
	END_INIT,  /* the container's own program: the container has ended */
};

struct call {
	__u64 sequence;
	__u64 time; /* CLOCK_BOOTTIME, nanoseconds */
	/* When the scheduler last looked at the thread, by the CPU's own clock, in units of 1,024 ns. Above
	 * PLACED_BITS: how often the thread has waited, low bits. */
	__u32 placed;
	__u32 ran; /* how long it had run by then, in the same units */
	__u32 pid, tid;
	__s64 result;
	__u32 count; /* number of this record in the ring, low bits */
	__u16 number;
	__u8 shape;  /* kind, SHAPE_32BIT; upper half: the number of args. The data begins behind the last one */
	__u8 length; /* of the data */
	char comm[15];
	__u8 argument; /* which argument the data belongs to; upper five bits: low bits of the CPU's number */
	__u64 args[ARGUMENTS];
	__u64 rest;
	/* only for HOW_BYTES_POINTED, HOW_VECTOR and HOW_MESSAGE; other calls may have text here */
	__u32 size;             /* the full length of the buffer whose beginning the data is */
	__u16 buffers, skipped; /* how many buffers there were, and how many empty ones before this one */
};
RECORD(call);
_Static_assert(sizeof(struct call) == SLOT_BYTES, "a slot");

/* A further slot: text that did not fit behind the args. */
struct more {
	__u64 sequence;
	__u64 owner; /* the sequence of the call */
	__u8 argument;
	__u8 part; /* which piece of the text; in an argument list which string, and in the upper half how many there
		      are */
	__u16 length;
	__u32 left; /* how many bytes follow these; for a string 1 or more if any do */
	char data[DATA_BYTES];
};
RECORD(more);
_Static_assert(sizeof(struct more) == SLOT_BYTES, "a slot");

/* What the programs keep of a container beside its calls. */
struct state {
	__u64 head;    /* positions that were taken */
	__u64 calls;   /* records that were begun, with the dropped ones */
	__u64 dropped; /* records that found their slot claimed */
	__u64 ended;   /* when the process named by known ended */
	__u32 known;   /* whose end this is: enum end */
	__u32 status;  /* its wait status, as wait(2) gives it */
	__u32 oom;     /* a process was killed for want of memory */
	__u32 first;   /* pid of the container's own program; 0 if it is not known */
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
	char slack[SLOT_BYTES]; /* for the verifier, which does not see where a slot ends */
};
const volatile __u32 slot_mask = SLOTS - 1;

struct ring_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct ring));
};

/* The ring of each container, by the id of the container's own cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__array(values, struct ring_map);
} rings SEC(".maps");

/* Spare rings, for containers that have just come: they are recorded before user space has heard of them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SPARES);
	__type(key, __u32);
	__array(values, struct ring_map);
} spares SEC(".maps");

#define BUCKETS 65536
struct recorded {
	/* By the low bits of a cgroup's id: how many containers that have a ring have these bits. For most tasks of a
	 * machine it is 0, and nothing else is asked. A look-up of an array's only element takes no function call, a
	 * look-up in a hash takes several. */
	__u16 count[BUCKETS];
	/* For each spare ring, the cgroup that has it, until user space has given the cgroup this ring or another one.
	 * 0 if the ring is free. Only the program makes it not 0, only user space makes it 0. */
	__u64 fresh[SPARES];
	__u64 any_fresh; /* bit n is set if an id in fresh is n modulo 64, and perhaps if none is; 0 if fresh is empty
			  */
};
RECORD(recorded);
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recorded);
} recorded SEC(".maps");

/* The index of the spare ring that a cgroup has; less than 0 if it has none. Not static, so that the verifier looks at
 * it once, and not for each level of the tree and each caller. */
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

/* The ring of the container whose own cgroup has this id; NULL if there is none. */
static __always_inline struct ring *ring_of(const struct recorded *few, __u64 id)
{
	__u32 zero = 0;
	void *inner;

	if (!few->count[id & (BUCKETS - 1)])
		return NULL;
	inner = bpf_map_lookup_elem(&rings, &id);
	return inner ? bpf_map_lookup_elem(inner, &zero) : NULL;
}

/* find_ring() for a cgroup that lies deeper than most. */
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

#define NEAR 6 /* how many levels of the tree are walked by plain loads; most cgroups of a machine lie no deeper */

/* The spare ring of the container that a cgroup is in. All levels are looked at: before an agent comes, a container may
 * have made cgroups inside its own and moved into them. */
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

/* The ring of the container that a task is in. A container may make as many cgroups inside its own as it likes, so this
 * walks up the tree. It uses plain loads, as it runs for every task of the machine. It is unrolled, as Linux 6.1
 * refuses a loop whose head clang lets an instruction fall through into. */
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

/* Claim the slot of the next position. NULL, and counted as dropped, if another writer is in it. */
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

/* Let readers see a slot that was claimed. */
static __always_inline void publish(void *slot, __u64 sequence)
{
#if defined(__TARGET_ARCH_arm64)
	__sync_lock_test_and_set((__u64 *)slot, sequence); /* after everything that was written to the slot */
#else
	barrier(); /* x86 keeps the order of stores */
	*(volatile __u64 *)slot = sequence;
#endif
}

/* Claim a slot for a record of a task, and fill in what all records have. */
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
