/* SPDX-License-Identifier: GPL-2.0 */
/* Stacks in the rows of a table. Stacks themselves are too long for a key before Linux 5.11, and an id of
 * bpf_get_stackid loses those that collide: the key has what says that two are the same, the value the calls. */
#pragma once

#include "table.h"

#define DEEPEST 127 /* calls of a stack: kernel.perf_event_max_stack is so much, unless somebody has raised it */

struct stacks {
	__u64 user_depth, kernel_depth;
	__u64 user[DEEPEST], kernel[DEEPEST]; /* the innermost call first */
};

struct stack_key {
	gadget_cgroup_id cgroup_id;
	__u64 start, arguments; /* with exec they say which program of a process: each has addresses of its own */
	__u64 user_hash, kernel_hash;
	gadget_pid pid;
	__u32 exec;
	gadget_comm comm DOC("name of the thread");
};

/* What a program on each CPU works with. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stacks);
} here SEC(".maps");

/* How many calls a stack of so many bytes has; an error is none. */
static __always_inline __u64 stack_depth(long bytes)
{
	return bytes > 0 ? bytes / sizeof(__u64) : 0;
}

static __always_inline __u64 stack_hash(const __u64 *calls, __u64 depth)
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

/* The key of a thread's stacks. Its container, process and name are the caller's to fill. */
static __always_inline void stack_key_fill(struct stack_key *key, struct task_struct *task, const struct stacks *stacks)
{
	key->start = BPF_CORE_READ(task, group_leader, start_boottime);
	key->arguments = BPF_CORE_READ(task, mm, arg_start);
	key->exec = BPF_CORE_READ(task, group_leader, self_exec_id);
	key->user_hash = stack_hash(stacks->user, stacks->user_depth);
	key->kernel_hash = stack_hash(stacks->kernel, stacks->kernel_depth);
}

/* Keep the calls of a new row. Another CPU may write the same now. */
static __always_inline void stack_keep(struct stacks *to, const struct stacks *stacks)
{
	if (!to->user_depth && !to->kernel_depth)
		bpf_probe_read_kernel(to, sizeof(*to), stacks);
}
