// SPDX-License-Identifier: GPL-2.0
/* Which system calls each container makes. Of each call a byte says that it was made; nearly all calls find it set.
 *
 * What a runtime does in a container before it starts the container's program is not the container's: it mounts, and
 * changes roots and namespaces. A process that is moved into a container from outside, or made in it by one outside,
 * arrives. Its calls are left out, and those of processes that it makes, until each begins a program in another mount
 * namespace than its parent's. */
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

/* Processes on their way into a container, by pid. They are few, and soon gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} arriving SEC(".maps");

static __always_inline void count_lost(__u32 which)
{
	__u64 *lost = bpf_map_lookup_elem(&seen_lost, &which);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

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
#define ID_BITS   47 /* of an id that are kept; the kernel counts them up */
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
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct seen *known;

	if (!cgroup)
		return false;
	if (find_container(cgroup, &id) == OUTSIDE)
		return true;
	if (bpf_map_lookup_elem(&arriving, &pid))
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

/* The container that a cgroup is in, or the cgroup's own id while it is not known; 0 outside of all. */
static __always_inline __u64 whose(struct cgroup *cgroup)
{
	__u64 id = BPF_CORE_READ(cgroup, kn, id);

	return find_container(cgroup, &id) == OUTSIDE ? 0 : id;
}

static __always_inline void arrives(__u32 pid)
{
	__u32 yes = 1;

	if (bpf_map_update_elem(&arriving, &pid, &yes, BPF_ANY) == -E2BIG)
		count_lost(LOST_ARRIVALS);
}

/* Who moves itself is not taken for a runtime: a container may move its processes among cgroups inside its own. */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(process_moved, struct cgroup *to, const char *path, struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);
	__u64 container;

	if (BPF_CORE_READ(to, root, hierarchy_id) != 0 || pid == bpf_get_current_pid_tgid() >> 32)
		return 0;
	container = whose(to);
	if (!container)
		bpf_map_delete_elem(&arriving, &pid);
	else if (container != whose(current_cgroup()))
		arrives(pid);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_made, struct task_struct *parent, struct task_struct *child)
{
	__u32 own = BPF_CORE_READ(parent, tgid), pid = BPF_CORE_READ(child, tgid);
	struct cgroup *from = BPF_CORE_READ(parent, cgroups, dfl_cgrp), *to = BPF_CORE_READ(child, cgroups, dfl_cgrp);
	__u64 container;

	if (own == pid)
		return 0;
	if (from != to) { /* CLONE_INTO_CGROUP */
		container = whose(to);
		if (container && container != whose(from))
			arrives(pid);
	} else if (bpf_map_lookup_elem(&arriving, &own)) {
		arrives(pid);
	}
	return 0;
}

/* Runtimes execute themselves on the way, in the mount namespace of their parent. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(program_began, struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);

	if (bpf_map_lookup_elem(&arriving, &pid) &&
	    BPF_CORE_READ(task, nsproxy, mnt_ns) != BPF_CORE_READ(task, real_parent, nsproxy, mnt_ns))
		bpf_map_delete_elem(&arriving, &pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_ended, struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);

	if (pid == BPF_CORE_READ(task, pid))
		bpf_map_delete_elem(&arriving, &pid);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
