// SPDX-License-Identifier: GPL-2.0
#include "snapshot.h"

struct row {
	struct gadget_header header;
	gadget_pid parent DOC("id of the parent process");
};

GADGET_SNAPSHOT(struct row);

SEC("iter/task")
int processes(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	__u32 zero = 0;
	struct row *row = bpf_map_lookup_elem(&snapshot, &zero);

	if (!row || !task || task->pid != task->tgid || !gadget_fill_of(&row->header, task))
		return 0;
	row->parent = BPF_CORE_READ(task, real_parent, tgid);
	gadget_write(context, row);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
