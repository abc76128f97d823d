// SPDX-License-Identifier: GPL-2.0
#include "samples.h"
#include "stacks.h"

#define ENTRIES 2048 /* different stacks of an interval: of 80 CPUs all that there can be, at 99 Hz */

struct value {
	__u64 samples DOC("how often the stack was seen");
	struct stacks stacks;
};

GADGET_TABLE(struct stack_key, struct value, ENTRIES);
GADGET_SAMPLES(99);

PARAM(bool, user_stacks, true, "the part of stacks in programs");
PARAM(bool, kernel_stacks, true, "the part of stacks in the kernel");

/* An event of a clock does not interrupt another one. */
SEC("perf_event")
int sampled(struct bpf_perf_event_data *context)
{
	struct gadget_header header;
	struct stack_key key = {};
	struct stacks *stacks;
	struct value *value;
	__u32 zero = 0;

	stacks = bpf_map_lookup_elem(&here, &zero);
	if (!stacks || !gadget_fill(&header))
		return 0;
	stacks->kernel_depth = stack_depth(bpf_get_stack(context, stacks->kernel, sizeof(stacks->kernel), 0));
	if (!param_user_stacks && !stacks->kernel_depth)
		return 0;
	stacks->user_depth = 0;
	if (param_user_stacks)
		stacks->user_depth =
			stack_depth(bpf_get_stack(context, stacks->user, sizeof(stacks->user), BPF_F_USER_STACK));
	if (!param_kernel_stacks)
		stacks->kernel_depth = 0;
	key.cgroup_id = header.cgroup_id;
	key.pid = header.pid;
	__builtin_memcpy(key.comm, header.comm, sizeof(key.comm));
	stack_key_fill(&key, current_task(), stacks);
	value = gadget_row(&key);
	if (!value)
		return 0;
	__sync_fetch_and_add(&value->samples, 1);
	stack_keep(&value->stacks, stacks);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
