/* SPDX-License-Identifier: GPL-2.0 */
/* What older kernels do otherwise. Each entry asks the running kernel's BTF, never its version. */
#pragma once

#include "kernel.h"

/* Kernel commit 3ca1032ab7ab (5.11) added bpf_get_current_task_btf. Before it the verifier knows no type of the current
 * task, and it can only be read by bpf_probe_read_kernel. */
static __always_inline bool task_has_type(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

static __always_inline struct task_struct *current_task(void)
{
	return task_has_type() ? bpf_get_current_task_btf() : (void *)bpf_get_current_task();
}

/* A member of what current_task gave: by a plain load where that can be. */
#define TASK_READ(task, member) (task_has_type() ? (task)->member : BPF_CORE_READ(task, member))

/* The current task's cgroup in cgroup2. */
static __always_inline struct cgroup *current_cgroup(void)
{
	struct task_struct *task = current_task();

	return task_has_type() ? task->cgroups->dfl_cgrp : BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

/* Kernel commit dd6e10fbd9fb (5.15) added bpf_task_pt_regs. */
static __always_inline bool has_task_registers(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs);
}

/* bpf_probe_read_user_str, with the NUL counted also where a string is empty: before "maccess: fix
 * strncpy_from_user_nofault() empty string handling", between 6.12 and 6.18, that returned 0. size is not 0. */
static __always_inline long read_user_string(char *to, __u32 size, const void *from)
{
	long length = bpf_probe_read_user_str(to, size, from);

	return length ? length : 1;
}
