/* SPDX-License-Identifier: GPL-2.0 */
/* Signals: their numbers, and who sent one. */
#pragma once

#include "syscalls.h"

/* asm/signal.h: the same on all machines that we trace. Those from 32 on are shown as SIGRT_n. */
enum signal_number {
	SIGHUP = 1,
	SIGINT = 2,
	SIGQUIT = 3,
	SIGILL = 4,
	SIGTRAP = 5,
	SIGABRT = 6,
	SIGBUS = 7,
	SIGFPE = 8,
	SIGKILL = 9,
	SIGUSR1 = 10,
	SIGSEGV = 11,
	SIGUSR2 = 12,
	SIGPIPE = 13,
	SIGALRM = 14,
	SIGTERM = 15,
	SIGSTKFLT = 16,
	SIGCHLD = 17,
	SIGCONT = 18,
	SIGSTOP = 19,
	SIGTSTP = 20,
	SIGTTIN = 21,
	SIGTTOU = 22,
	SIGURG = 23,
	SIGXCPU = 24,
	SIGXFSZ = 25,
	SIGVTALRM = 26,
	SIGPROF = 27,
	SIGWINCH = 28,
	SIGIO = 29,
	SIGPWR = 30,
	SIGSYS = 31,
};
typedef enum signal_number gadget_signal; /* 0 for none */

/* asm-generic/siginfo.h */
#define SI_USER    0
#define SI_KERNEL  0x80
#define SI_TIMER   -2
#define SI_ASYNCIO -4
#define SI_SIGIO   -5
#define SI_ASYNCNL -60

/* The si_code of a signal as the tracepoint signal_generate has it. Two small numbers stand for no siginfo:
 * SEND_SIG_NOINFO (0), a signal of the current process, and SEND_SIG_PRIV (1), one of the kernel. */
static __always_inline int signal_code(struct kernel_siginfo *info)
{
	if ((unsigned long)info <= 1)
		return info ? SI_KERNEL : SI_USER;
	return BPF_CORE_READ(info, si_code);
}

/* Whether the current thread is in a call that sends signals. */
static __always_inline bool is_in_sending_call(void)
{
	if (!has_task_registers())
		return false;
	switch (syscall_number((void *)bpf_task_pt_regs(bpf_get_current_task_btf()))) {
	case SYSCALL_KILL:
	case SYSCALL_COMPAT_KILL:
	case SYSCALL_TKILL:
	case SYSCALL_COMPAT_TKILL:
	case SYSCALL_TGKILL:
	case SYSCALL_COMPAT_TGKILL:
	case SYSCALL_RT_SIGQUEUEINFO:
	case SYSCALL_COMPAT_RT_SIGQUEUEINFO:
	case SYSCALL_RT_TGSIGQUEUEINFO:
	case SYSCALL_COMPAT_RT_TGSIGQUEUEINFO:
	case SYSCALL_PIDFD_SEND_SIGNAL:
	case SYSCALL_COMPAT_PIDFD_SEND_SIGNAL:
		return true;
	default:
		return false;
	}
}

/* Whether the current process sent a signal with this si_code, and not the kernel, which may do so in the midst of a
 * process that has nothing to do with it, or to the process that runs (SIGPIPE, SIGXFSZ: these have no siginfo, as
 * since Linux 7 those of kill(2)). rt_sigqueueinfo(2) takes also the codes of timers and of input and output from a
 * process. */
static __always_inline bool is_sent_by_process(struct kernel_siginfo *info, int code, struct task_struct *target)
{
	bool may_be_kernel = info ? code == SI_TIMER || code == SI_ASYNCIO || code == SI_SIGIO || code == SI_ASYNCNL
				  : target == current_task();

	return code <= SI_USER && (!may_be_kernel || is_in_sending_call());
}

/* Why a signal was sent: its si_code in words. */
enum signal_reason {
	REASON_KERNEL,
	REASON_CALL,
	REASON_TIMER,
	REASON_MESSAGE,
	REASON_FINISHED_IO,
	REASON_NOT_MAPPED,
	REASON_NOT_ALLOWED,
	REASON_PROTECTION_KEY,
	REASON_MISALIGNED,
	REASON_NO_SUCH_MEMORY,
	REASON_BROKEN_MEMORY,
	REASON_BAD_INSTRUCTION,
	REASON_DIVISION_BY_ZERO,
	REASON_ARITHMETIC,
	REASON_BREAKPOINT,
	REASON_SECCOMP,
	REASON_CHILD_EXITED,
	REASON_CHILD_KILLED,
	REASON_CHILD_DUMPED_CORE,
	REASON_CHILD_TRAPPED,
	REASON_CHILD_STOPPED,
	REASON_CHILD_CONTINUED,
	REASON_READY_FOR_IO,
};
typedef enum signal_reason gadget_reason_words;

/* Why a signal was sent, by its si_code: asm-generic/siginfo.h. */
static __always_inline enum signal_reason signal_reason(int number, int code)
{
	switch (code) {
	case SI_KERNEL:
		return number == SIGALRM || number == SIGVTALRM || number == SIGPROF ? REASON_TIMER : REASON_KERNEL;
	case SI_TIMER:
		return REASON_TIMER;
	case -3: /* SI_MESGQ */
		return REASON_MESSAGE;
	case -4: /* SI_ASYNCIO */
		return REASON_FINISHED_IO;
	case -5: /* SI_SIGIO */
		return REASON_READY_FOR_IO;
	}
	if (code <= SI_USER)
		return REASON_CALL;
	switch (number) {
	case SIGSEGV:
		return code == 1   ? REASON_NOT_MAPPED
		       : code == 2 ? REASON_NOT_ALLOWED
		       : code == 4 ? REASON_PROTECTION_KEY
				   : REASON_KERNEL;
	case SIGBUS:
		return code == 1 ? REASON_MISALIGNED : code <= 3 ? REASON_NO_SUCH_MEMORY : REASON_BROKEN_MEMORY;
	case SIGILL:
		return REASON_BAD_INSTRUCTION;
	case SIGFPE:
		return code == 1 ? REASON_DIVISION_BY_ZERO : REASON_ARITHMETIC;
	case SIGTRAP:
		return REASON_BREAKPOINT;
	case SIGSYS:
		return REASON_SECCOMP;
	case SIGCHLD:
		return code <= 6 ? REASON_CHILD_EXITED + code - 1 : REASON_KERNEL;
	case SIGIO:
		return REASON_READY_FOR_IO;
	default:
		return REASON_KERNEL;
	}
}
