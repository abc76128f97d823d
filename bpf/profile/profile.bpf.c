// SPDX-License-Identifier: GPL-2.0
#include "samples.h"
#include "table.h"

#define DEEPEST 127  /* calls of a stack: kernel.perf_event_max_stack is so much, unless somebody has raised it */
#define ENTRIES 2048 /* different stacks of an interval: of 80 CPUs all that there can be, at 99 Hz */

struct stacks {
	__u64 user_depth, kernel_depth;
	__u64 user[DEEPEST], kernel[DEEPEST]; /* the innermost call first */
};

/* Stacks themselves are too long for a key before Linux 5.11, and an id of bpf_get_stackid loses those that collide. */
struct key {
	gadget_cgroup_id cgroup_id;
	__u64 start, arguments; /* with exec they say which program of a process: each has addresses of its own */
	__u64 user_hash, kernel_hash;
	gadget_pid pid;
	__u32 exec;
	gadget_comm comm DOC("name of the thread");
};

struct value {
	__u64 samples DOC("how often the stack was seen");
	struct stacks stacks;
};

GADGET_TABLE(struct key, struct value, ENTRIES);
GADGET_SAMPLES(99);

PARAM(bool, user_stacks, true, "the part of stacks in programs");
PARAM(bool, kernel_stacks, true, "the part of stacks in the kernel");

/* What a program on each CPU works with. An event of a clock does not interrupt another one. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stacks);
} here SEC(".maps");

/* How many calls a stack of so many bytes has; an error is none. */
static __always_inline __u64 depth(long bytes)
{
	return bytes > 0 ? bytes / sizeof(__u64) : 0;
}

static __always_inline __u64 hash(const __u64 *calls, __u64 depth)
{
	__u64 found = depth;

	for (int i = 0; i < DEEPEST; i++) {
		if (i >= depth)
			break;
		found = (found ^ calls[i]) * 0x9e3779b97f4a7c15ULL;
		found ^= found >> 32;
	}
	return found;
}

SEC("perf_event")
int sampled(struct bpf_perf_event_data *context)
{
	struct task_struct *task = current_task();
	struct gadget_header header;
	struct stacks *stacks;
	struct value *value;
	struct key key = {};
	__u32 zero = 0;

	stacks = bpf_map_lookup_elem(&here, &zero);
	if (!stacks || !gadget_fill(&header))
		return 0;
	stacks->kernel_depth = depth(bpf_get_stack(context, stacks->kernel, sizeof(stacks->kernel), 0));
	if (!param_user_stacks && !stacks->kernel_depth)
		return 0;
	stacks->user_depth = 0;
	if (param_user_stacks)
		stacks->user_depth =
			depth(bpf_get_stack(context, stacks->user, sizeof(stacks->user), BPF_F_USER_STACK));
	if (!param_kernel_stacks)
		stacks->kernel_depth = 0;
	key.cgroup_id = header.cgroup_id;
	key.start = BPF_CORE_READ(task, group_leader, start_boottime);
	key.arguments = BPF_CORE_READ(task, mm, arg_start);
	key.user_hash = hash(stacks->user, stacks->user_depth);
	key.kernel_hash = hash(stacks->kernel, stacks->kernel_depth);
	key.pid = header.pid;
	key.exec = BPF_CORE_READ(task, group_leader, self_exec_id);
	__builtin_memcpy(key.comm, header.comm, sizeof(key.comm));
	value = gadget_row(&key);
	if (!value)
		return 0;
	__sync_fetch_and_add(&value->samples, 1);
	if (!value->stacks.user_depth && !value->stacks.kernel_depth) /* another CPU may write the same now */
		bpf_probe_read_kernel(&value->stacks, sizeof(value->stacks), stacks);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
