// SPDX-License-Identifier: GPL-2.0
/* Which system calls each container makes. Of each call a byte says that it was made; nearly all calls find it set.
 *
 * What a runtime does in a container before it starts the container's program is left out: see arriving.h. */
#include <asm/errno.h>

#include "containers.h"
#include "syscalls.h"

/* An enum, so that the build finds them in BTF. */
enum constant {
	NUMBERS = 512, /* that are told apart; x86-64 has some 470 calls, arm64 and 32-bit programs have fewer */
	OTHER = 511,   /* stands for all others: no kernel has this one */
};

struct names {
	enum constant constant;
};
RECORD(names);

struct seen {
	__u64 since;             /* its first call that was seen: CLOCK_BOOTTIME, nanoseconds */
	__u8 calls[2 * NUMBERS]; /* by number; in the second half those of 32-bit programs */
};
RECORD(seen);

/* By the id of the container's own cgroup, or of a cgroup that was not known yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct seen);
} seen SEC(".maps");

enum lost {
	LOST_CALLS,    /* calls of containers that found no room in the table */
	LOST_ARRIVALS, /* processes of runtimes whose calls were taken for the container's */
	LOSSES,
};

/* How much was lost, by enum lost. Nobody resets it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} seen_lost SEC(".maps");

static __always_inline void count_lost(__u32 which)
{
	__u64 *lost = bpf_map_lookup_elem(&seen_lost, &which);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

#define arrival_lost(container) count_lost(LOST_ARRIVALS)
#include "arriving.h"

/* An empty entry: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} none SEC(".maps");

static __always_inline struct seen *make_seen(__u64 id)
{
	__u32 zero = 0;
	struct seen *new = bpf_map_lookup_elem(&none, &zero);

	if (!new)
		return NULL;
	new->since = bpf_ktime_get_boot_ns();
	if (bpf_map_update_elem(&seen, &id, new, BPF_NOEXIST) == -E2BIG)
		count_lost(LOST_CALLS);
	return bpf_map_lookup_elem(&seen, &id);
}

static __always_inline __u8 *byte_of(struct seen *seen, __u32 number)
{
	__u32 at = number & ~COMPAT_FLAG;

	if (at >= NUMBERS)
		at = OTHER;
	if (number & COMPAT_FLAG)
		at += NUMBERS;
	barrier_var(at); /* so that the mask stays, for the verifier */
	return &seen->calls[at & (2 * NUMBERS - 1)];
}

/* Calls of cgroups of which nothing more is to be noted: those that were, and those of the host. A look-up in an array
 * of one element takes no function call. Who is overwritten by another comes to the slow path again, and no more. */
#define DONE      16384
#define ID_BITS   47 /* bits that are kept of a cgroup's id; the kernel counts ids up */
#define CALL_BITS 17 /* COMPAT_FLAG and a number */
struct done {
	__u64 calls[DONE];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct done);
} done SEC(".maps");

/* Note a call of a cgroup of which it is not known that it was noted. True if there is nothing more to do for others.
 */
static __noinline int note(struct cgroup *cgroup, __u64 id, __u32 number)
{
	struct seen *known;

	if (!cgroup)
		return false;
	if (find_container(cgroup, &id) == OUTSIDE)
		return true;
	if (is_arriving())
		return false;
	known = bpf_map_lookup_elem(&seen, &id);
	if (!known)
		known = make_seen(id);
	if (known)
		*byte_of(known, number) = 1;
	return known != NULL;
}

static __always_inline __u64 id_of(struct cgroup *cgroup)
{
	return task_has_type() ? cgroup->kn->id : BPF_CORE_READ(cgroup, kn, id);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(call_entered, struct pt_regs *regs)
{
	struct cgroup *cgroup = current_cgroup();
	__u32 number = syscall_number(regs), zero = 0;
	__u64 id = id_of(cgroup), call = id << CALL_BITS | number, *place;
	struct done *all = bpf_map_lookup_elem(&done, &zero);

	if (number == NO_SYSCALL || !all)
		return 0;
	place = &all->calls[(id * NUMBERS + number) & (DONE - 1)];
	if (*place != call && note(cgroup, id, number) && id >> ID_BITS == 0)
		*place = call;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
