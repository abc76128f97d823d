// SPDX-License-Identifier: GPL-2.0
/* How long threads are off their CPU, by stacks. The part of a stack in its program can only be read while the thread
 * still runs, so it is when it leaves the CPU; the part in the kernel, which is the same as long as the thread waits,
 * when it comes back after a wait that counts. Programs run where nothing may be allocated: all maps that they add to
 * are preallocated. */
#include "stacks.h"

#define ENTRIES 2048 /* different stacks of an interval */
#define THREADS 8192 /* that wait, or have waited, at once: of 1 KiB each */

/* linux/sched.h */
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_DEAD            0x80
#define TASK_NOLOAD          0x400

struct value {
	__u64 time DOC("how long threads waited with the stack, in nanoseconds");
	struct stacks stacks;
};

GADGET_TABLE(struct stack_key, struct value, ENTRIES);

/* What a thread does that is off its CPU, by ps(1)'s letters. */
enum wait {
	WAIT_R = 1, /* it had to leave its CPU for another thread */
	WAIT_S = 2, /* what signals end; also what is stopped, and idle threads of the kernel */
	WAIT_D = 4,
};
typedef enum wait gadget_wait_flags;

PARAM(gadget_duration, min, 0, "only waits that took at least so long, such as 1ms");
PARAM(bool, user_stacks, true, "the part of stacks in programs");
PARAM(bool, kernel_stacks, true, "the part of stacks in the kernel");
PARAM(gadget_wait_flags, waits, WAIT_S | WAIT_D, "which waits count");

/* A thread that has left its CPU. since: when, 0 after it came back. */
struct off {
	__u64 since, cgroup_id;
	__u64 counted; /* the container that its room counts for: a thread may move to another one */
	__u64 depth, user[DEEPEST];
};

/* By the address of the task, which is another one's only after sched_process_free. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, THREADS);
	__type(key, __u64);
	__type(value, struct off);
} offs SEC(".maps");

/* How many threads of a container are in offs. One that is evicted begins anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} threads_of SEC(".maps");

static const struct off empty_off;
static __u64 threads; /* in offs */

static __always_inline enum wait kind_of_wait(struct task_struct *task, bool preempted)
{
	__u32 state = state_of(task);

	if (preempted || !state)
		return WAIT_R;
	return state & TASK_UNINTERRUPTIBLE && !(state & TASK_NOLOAD) ? WAIT_D : WAIT_S;
}

static __always_inline __u64 *threads_in(__u64 container)
{
	__u64 none = 0, *found = bpf_map_lookup_elem(&threads_of, &container);

	if (found)
		return found;
	bpf_map_update_elem(&threads_of, &container, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&threads_of, &container);
}

/* Room for a thread. Any container has it while the table is half empty. Beyond that each may have an eighth, so that
 * one with threads without end leaves room for the others. */
static __always_inline struct off *room_for(__u64 task, __u64 cgroup_id)
{
	__u64 *own = threads_in(cgroup_id);
	struct off *off;

	if (!own || (threads >= THREADS / 2 && *own >= THREADS / 8) ||
	    bpf_map_update_elem(&offs, &task, &empty_off, BPF_NOEXIST))
		return NULL;
	__sync_fetch_and_add(&threads, 1);
	__sync_fetch_and_add(own, 1);
	off = bpf_map_lookup_elem(&offs, &task);
	if (off)
		off->counted = cgroup_id;
	return off;
}

static __always_inline void leaves_cpu(void *context, struct task_struct *task, bool preempted)
{
	__u64 id = (__u64)task, cgroup_id;
	struct off *off;

	if (!task->pid || state_of(task) & TASK_DEAD || !(kind_of_wait(task, preempted) & param_waits))
		return;
	if (!task_chosen(task, &cgroup_id))
		return;
	off = bpf_map_lookup_elem(&offs, &id);
	if (!off)
		off = room_for(id, cgroup_id);
	if (!off) {
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, cgroup_id);
		return;
	}
	off->depth = 0;
	if (param_user_stacks)
		off->depth = stack_depth(bpf_get_stack(context, off->user, sizeof(off->user), BPF_F_USER_STACK));
	off->cgroup_id = cgroup_id;
	off->since = bpf_ktime_get_ns();
}

static __always_inline void comes_back(struct task_struct *task)
{
	__u64 id = (__u64)task, took;
	struct stack_key key = {};
	struct stacks *stacks;
	struct value *value;
	struct off *off;
	__u32 zero = 0;

	off = bpf_map_lookup_elem(&offs, &id);
	if (!off || !off->since)
		return;
	took = bpf_ktime_get_ns() - off->since;
	off->since = 0;
	stacks = bpf_map_lookup_elem(&here, &zero);
	if (!stacks || took < param_min)
		return;
	stacks->user_depth = off->depth;
	bpf_probe_read_kernel(stacks->user, sizeof(stacks->user), off->user);
	stacks->kernel_depth = 0;
	if (param_kernel_stacks)
		stacks->kernel_depth = stack_depth(bpf_get_task_stack(task, stacks->kernel, sizeof(stacks->kernel), 0));
	key.cgroup_id = off->cgroup_id;
	key.pid = task->tgid;
	BPF_CORE_READ_STR_INTO(&key.comm, task, comm);
	stack_key_fill(&key, task, stacks);
	value = gadget_row(&key);
	if (!value)
		return;
	__sync_fetch_and_add(&value->time, took);
	stack_keep(&value->stacks, stacks);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switched, bool preempted, struct task_struct *leaves, struct task_struct *comes)
{
	leaves_cpu(ctx, leaves, preempted);
	comes_back(comes);
	return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(gone, struct task_struct *task)
{
	__u64 id = (__u64)task, counted, *own;
	struct off *off;

	off = bpf_map_lookup_elem(&offs, &id);
	if (!off)
		return 0;
	counted = off->counted;
	if (bpf_map_delete_elem(&offs, &id))
		return 0;
	__sync_fetch_and_sub(&threads, 1);
	own = bpf_map_lookup_elem(&threads_of, &counted);
	if (own && *own)
		__sync_fetch_and_sub(own, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
