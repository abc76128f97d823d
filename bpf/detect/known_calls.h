/* SPDX-License-Identifier: GPL-2.0 */
/* The system calls that rules judge: which of their arguments say what, by the number of the call. */
#pragma once

#include "calls.h"
#include "event.h"

/* Which arguments of a call say what. Those of a call are six; the two beyond are ours. */
#define HERE   6 /* AT_FDCWD */
#define NONE   7 /* 0, and no descriptor */
#define RESULT 8 /* in place of a descriptor argument: the call returns the descriptor */

/* A path, and the descriptor of the directory that it is relative to. Without a path it is the descriptor's own. */
struct place {
	__u8 directory, path;
};

enum more {
	MORE_NOTHING,
	MORE_FLAGS, /* and a mode behind them */
	MORE_HOW,   /* struct open_how */
	MORE_MODE,
	MORE_FAMILY,
	MORE_TEXT,
	/* of sockets: read_named() knows where */
	MORE_ADDRESS,
	MORE_SENT_TO,
	MORE_RECEIVED_FROM,
	MORE_MESSAGE, /* sendmmsg(2) has several, which begin with the first */
	/* of clone(2): where the flags are */
	MORE_CLONE,
	MORE_CLONE3,
};

struct known {
	__u8 call; /* one more than its CALL_… */
	__u8 fd;
	struct place path, to; /* none if both are 0 */
	__u8 more, at;
};

#define ALL(known)                                                                                                     \
	known(EXECVE, EXECVE, NONE, {HERE, 0}, {}, 0, 0), known(EXECVEAT, EXECVEAT, NONE, {0, 1}, {}, 0, 0),           \
		known(OPENAT, OPENAT, RESULT, {0, 1}, {}, MORE_FLAGS, 2),                                              \
		known(OPENAT2, OPENAT2, RESULT, {0, 1}, {}, MORE_HOW, 2),                                              \
		known(CONNECT, CONNECT, 0, {}, {}, MORE_ADDRESS, 0), known(ACCEPT4, ACCEPT4, RESULT, {}, {}, 0, 0),    \
		known(LISTEN, LISTEN, 0, {}, {}, 0, 0), known(BIND, BIND, 0, {}, {}, MORE_ADDRESS, 0),                 \
		known(SOCKET, SOCKET, RESULT, {}, {}, MORE_FAMILY, 0),                                                 \
		known(SENDTO, SENDTO, 0, {}, {}, MORE_SENT_TO, 0),                                                     \
		known(SENDMSG, SENDMSG, 0, {}, {}, MORE_MESSAGE, 0),                                                   \
		known(SENDMMSG, SENDMSG, 0, {}, {}, MORE_MESSAGE, 0),                                                  \
		known(RECVFROM, RECVFROM, 0, {}, {}, MORE_RECEIVED_FROM, 0),                                           \
		known(RECVMSG, RECVMSG, 0, {}, {}, MORE_MESSAGE, 0), known(DUP, DUP, RESULT, {}, {}, 0, 0),            \
		known(DUP3, DUP3, RESULT, {}, {}, 0, 0), known(LINKAT, LINKAT, NONE, {0, 1}, {2, 3}, 0, 0),            \
		known(SYMLINKAT, SYMLINKAT, NONE, {1, 2}, {NONE, 0}, 0, 0),                                            \
		known(UNLINKAT, UNLINKAT, NONE, {0, 1}, {}, 0, 0),                                                     \
		known(RENAMEAT, RENAMEAT, NONE, {0, 1}, {2, 3}, 0, 0),                                                 \
		known(RENAMEAT2, RENAMEAT2, NONE, {0, 1}, {2, 3}, 0, 0),                                               \
		known(MKDIRAT, MKDIRAT, NONE, {0, 1}, {}, MORE_MODE, 2),                                               \
		known(FCHMOD, FCHMOD, 0, {}, {}, MORE_MODE, 1),                                                        \
		known(FCHMODAT, FCHMODAT, NONE, {0, 1}, {}, MORE_MODE, 2),                                             \
		known(FCHMODAT2, FCHMODAT, NONE, {0, 1}, {}, MORE_MODE, 2), known(PTRACE, PTRACE, NONE, {}, {}, 0, 0), \
		known(INIT_MODULE, INIT_MODULE, NONE, {}, {}, MORE_TEXT, 2),                                           \
		known(FINIT_MODULE, FINIT_MODULE, 0, {}, {}, MORE_TEXT, 1), known(SETNS, SETNS, 0, {}, {}, 0, 0),      \
		known(CLONE, UNSHARE, NONE, {}, {}, MORE_CLONE, 0),                                                    \
		known(CLONE3, UNSHARE, NONE, {}, {}, MORE_CLONE3, 0), known(UNSHARE, UNSHARE, NONE, {}, {}, 0, 0),     \
		known(SETUID, SETUID, NONE, {}, {}, 0, 0), known(BPF, BPF, NONE, {}, {}, 0, 0),                        \
		known(USERFAULTFD, USERFAULTFD, NONE, {}, {}, 0, 0),                                                   \
		known(MOUNT, MOUNT, NONE, {HERE, 1}, {NONE, 0}, 0, 0),                                                 \
		known(UMOUNT2, UMOUNT2, NONE, {HERE, 0}, {}, 0, 0),                                                    \
		known(MEMFD_CREATE, MEMFD_CREATE, RESULT, {}, {}, MORE_TEXT, 0),                                       \
		known(CHDIR, CHANGE, NONE, {}, {}, 0, 0), known(FCHDIR, CHANGE, NONE, {}, {}, 0, 0),                   \
		known(SETSID, CHANGE, NONE, {}, {}, 0, 0), known(SETPGID, CHANGE, NONE, {}, {}, 0, 0),                 \
		known(CAPSET, CHANGE, NONE, {}, {}, 0, 0)
/* arm64 has these only for 32-bit programs */
#define OLDER(known)                                                                                               \
	known(OPEN, OPEN, RESULT, {HERE, 0}, {}, MORE_FLAGS, 1),                                                   \
		known(CREAT, CREAT, RESULT, {HERE, 0}, {}, MORE_MODE, 1), known(DUP2, DUP2, RESULT, {}, {}, 0, 0), \
		known(LINK, LINK, NONE, {HERE, 0}, {HERE, 1}, 0, 0),                                               \
		known(SYMLINK, SYMLINK, NONE, {HERE, 1}, {NONE, 0}, 0, 0),                                         \
		known(UNLINK, UNLINK, NONE, {HERE, 0}, {}, 0, 0),                                                  \
		known(RENAME, RENAME, NONE, {HERE, 0}, {HERE, 1}, 0, 0),                                           \
		known(RMDIR, RMDIR, NONE, {HERE, 0}, {}, 0, 0),                                                    \
		known(MKDIR, MKDIR, NONE, {HERE, 0}, {}, MORE_MODE, 1),                                            \
		known(CHMOD, CHMOD, NONE, {HERE, 0}, {}, MORE_MODE, 1)

#define TOLD(number, call, ...)    [SYSCALL_##number] = {CALL_##call + 1, __VA_ARGS__}
#define TOLD_32(number, call, ...) [SYSCALL_COMPAT_##number & (NUMBERS - 1)] = {CALL_##call + 1, __VA_ARGS__}

/* By number. A table costs the calls that are none of ours one load each, and the verifier little. */
static const struct known known_calls[NUMBERS] = {
	ALL(TOLD),
	TOLD(ACCEPT, ACCEPT, RESULT, {}, {}, 0, 0),
#if defined(__TARGET_ARCH_x86)
	OLDER(TOLD),
#endif
};
static const struct known known_compat_calls[NUMBERS] = {
	ALL(TOLD_32),
	OLDER(TOLD_32),
#if defined(__TARGET_ARCH_arm64)
	TOLD_32(ACCEPT, ACCEPT, RESULT, {}, {}, 0, 0),
#endif
};

#if defined(__TARGET_ARCH_x86)
/* linux/net.h: calls by the number that socketcall(2) has for them */
#define SOCKETCALLS 32
static const __u16 socketcalls[SOCKETCALLS] = {
	[1] = SYSCALL_SOCKET,   [2] = SYSCALL_BIND,     [3] = SYSCALL_CONNECT,   [4] = SYSCALL_LISTEN,
	[5] = SYSCALL_ACCEPT,   [11] = SYSCALL_SENDTO,  [12] = SYSCALL_RECVFROM, [16] = SYSCALL_SENDMSG,
	[17] = SYSCALL_RECVMSG, [18] = SYSCALL_ACCEPT4, [20] = SYSCALL_SENDMMSG,
};

/* arch/x86/entry/syscalls/syscall_64.tbl: of the numbers that only x32 has, the calls that these are */
#define X32_CALLS 64
static const __u16 x32_calls[X32_CALLS] = {
	[517 - X32_FIRST] = SYSCALL_RECVFROM, [518 - X32_FIRST] = SYSCALL_SENDMSG,
	[519 - X32_FIRST] = SYSCALL_RECVMSG,  [520 - X32_FIRST] = SYSCALL_EXECVE,
	[538 - X32_FIRST] = SYSCALL_SENDMMSG, [545 - X32_FIRST] = SYSCALL_EXECVEAT,
};
#endif

/* The size of a pointer of the program, where a call has one in memory. */
static __always_inline __u32 word_of(__u32 number)
{
#if defined(__TARGET_ARCH_x86)
	if (number >= X32_FIRST)
		return 4; /* x32, or 32 bits */
#endif
	return number & COMPAT_FLAG ? 4 : 8;
}

/* What is known of a call. All zero if it is none of ours. */
static __always_inline struct known find_known(struct pt_regs *regs, __u32 number)
{
	__u32 at = number & ~COMPAT_FLAG;

#if defined(__TARGET_ARCH_x86)
	if (number == SYSCALL_COMPAT_SOCKETCALL) {
		at = syscall_arguments(regs, number).a0;
		if (at >= SOCKETCALLS)
			return (struct known){};
		return known_calls[at_most(socketcalls[at_most(at, SOCKETCALLS - 1)], NUMBERS - 1)];
	}
	if (number >= X32_FIRST && number < X32_FIRST + X32_CALLS)
		return known_calls[at_most(x32_calls[at_most(number - X32_FIRST, X32_CALLS - 1)], NUMBERS - 1)];
#endif
	if (at >= NUMBERS)
		return (struct known){};
	at = at_most(at, NUMBERS - 1); /* which the verifier can follow */
	return number & COMPAT_FLAG ? known_compat_calls[at] : known_calls[at];
}

/* Whether a call is to be sent. result is the call's. */
static __always_inline bool is_wanted(__u32 call, long result)
{
	if (call == CALL_CHANGE)
		return result >= 0;
	if (!((param_calls ? param_calls : USUAL) >> call & 1))
		return false;
	return result < 0 || (call != CALL_EXECVE && call != CALL_EXECVEAT); /* another program tells of these */
}

/* The argument of a call with this number. */
static __always_inline __u64 argument(const struct event *event, __u32 number)
{
	if (number < 6)
		return event->args[at_most(number, 5)];
	return number == HERE ? AT_FDCWD : 0;
}
