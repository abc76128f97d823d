/* SPDX-License-Identifier: GPL-2.0 */
/* A system call as seen at its exit (tp_btf/sys_exit), where its argument registers still hold and the
 * kernel has faulted in what it read through them. */
#pragma once

#include "kernel.h"

#define TS_COMPAT   0x0002    /* x86: thread_info.status, a 32-bit system call */
#define TIF_32BIT   22        /* arm64: thread_info.flags */
#define COMPAT_FLAG (1 << 16) /* added to the number of a 32-bit call */

#if defined(__TARGET_ARCH_x86)
#define SYSCALL_EXECVE          59
#define SYSCALL_EXECVEAT        322
#define SYSCALL_COMPAT_EXECVE   (COMPAT_FLAG | 11)
#define SYSCALL_COMPAT_EXECVEAT (COMPAT_FLAG | 358)
#define REGISTER_ARG0(regs)     ((regs)->di)
#define REGISTER_ARG1(regs)     ((regs)->si)
#define REGISTER_ARG2(regs)     ((regs)->dx)
#elif defined(__TARGET_ARCH_arm64)
#define SYSCALL_EXECVE          221
#define SYSCALL_EXECVEAT        281
#define SYSCALL_COMPAT_EXECVE   (COMPAT_FLAG | 11)
#define SYSCALL_COMPAT_EXECVEAT (COMPAT_FLAG | 387)
#define REGISTER_ARG0(regs)     ((regs)->orig_x0)
#define REGISTER_ARG1(regs)     ((regs)->regs[1])
#define REGISTER_ARG2(regs)     ((regs)->regs[2])
#endif

static __always_inline __u32 syscall_number(struct pt_regs *regs)
{
	struct task_struct *task = bpf_get_current_task_btf();
#if defined(__TARGET_ARCH_x86)
	__u32 number = regs->orig_ax;
	bool compat = task->thread_info.status & TS_COMPAT;
#else
	__u32 number = regs->syscallno;
	bool compat = task->thread_info.flags & (1UL << TIF_32BIT);
#endif
	return compat ? number | COMPAT_FLAG : number;
}
