/* SPDX-License-Identifier: GPL-2.0 */
/* A system call, seen at its exit (tp_btf/sys_exit). There the argument registers still hold, and the memory that the
 * kernel read through them is present. */
#pragma once

#include "drift.h"

#define TS_COMPAT   0x0002    /* x86: thread_info.status, a 32-bit system call */
#define TIF_32BIT   22        /* arm64: thread_info.flags */
#define COMPAT_FLAG (1 << 16) /* added to the number of a 32-bit call */

/* Numbers are ABI: arch/x86/entry/syscalls/, include/uapi/asm-generic/unistd.h, arch/arm64/tools/syscall_32.tbl */
#define COMPAT(number) (COMPAT_FLAG | (number))
#define NO_SYSCALL     0xffffffff /* the registers hold no call, or a call that has restored them */
/* Stands for any number of more than 16 bits. No kernel has such a call, but a program may ask for one, and its number
 * might have COMPAT_FLAG in it. */
#define UNKNOWN_SYSCALL 0xffff
#if defined(__TARGET_ARCH_x86)
#define X32_BIT                          0x40000000
#define X32_FIRST                        512 /* the first number that only x32 has */
#define X32_PTRACE                       521
#define X32_RT_SIGQUEUEINFO              524
#define X32_RT_TGSIGQUEUEINFO            536
#define SYSCALL_WRITE                    1
#define SYSCALL_OPEN                     2
#define SYSCALL_RT_SIGRETURN             15
#define SYSCALL_WRITEV                   20
#define SYSCALL_CONNECT                  42
#define SYSCALL_ACCEPT                   43
#define SYSCALL_BIND                     49
#define SYSCALL_LISTEN                   50
#define SYSCALL_CLONE                    56
#define SYSCALL_FORK                     57
#define SYSCALL_VFORK                    58
#define SYSCALL_EXECVE                   59
#define SYSCALL_EXIT                     60
#define SYSCALL_KILL                     62
#define SYSCALL_CREAT                    85
#define SYSCALL_RT_SIGQUEUEINFO          129
#define SYSCALL_MOUNT                    165
#define SYSCALL_UMOUNT2                  166
#define SYSCALL_TKILL                    200
#define SYSCALL_EXIT_GROUP               231
#define SYSCALL_TGKILL                   234
#define SYSCALL_OPENAT                   257
#define SYSCALL_ACCEPT4                  288
#define SYSCALL_RT_TGSIGQUEUEINFO        297
#define SYSCALL_OPEN_BY_HANDLE_AT        304
#define SYSCALL_EXECVEAT                 322
#define SYSCALL_COMPAT_TGKILL            COMPAT(270)
#define SYSCALL_COMPAT_OPENAT            COMPAT(295)
#define SYSCALL_COMPAT_RT_TGSIGQUEUEINFO COMPAT(335)
#define SYSCALL_COMPAT_OPEN_BY_HANDLE_AT COMPAT(342)
#define SYSCALL_COMPAT_EXECVEAT          COMPAT(358)
#define SYSCALL_COMPAT_BIND              COMPAT(361)
#define SYSCALL_COMPAT_SOCKETCALL        COMPAT(102)
#define SYSCALL_COMPAT_CONNECT           COMPAT(362) /* the calls inside socketcall(2) are not looked at */
#define SYSCALL_COMPAT_LISTEN            COMPAT(363)
#define SYSCALL_COMPAT_ACCEPT4           COMPAT(364)
#define SYSCALL_COMPAT_EXITALL           COMPAT(252)
#define SYSCALL_SETUID                   105
#define SYSCALL_SETGID                   106
#define SYSCALL_SETREUID                 113
#define SYSCALL_SETREGID                 114
#define SYSCALL_SETRESUID                117
#define SYSCALL_SETRESGID                119
#define SYSCALL_SETGROUPS                116
#define SYSCALL_SETNS                    308
#define SYSCALL_UNSHARE                  272
#define SYSCALL_PTRACE                   101
#define SYSCALL_BPF                      321
#define SYSCALL_INIT_MODULE              175
#define SYSCALL_FINIT_MODULE             313
#define SYSCALL_DELETE_MODULE            176
#define SYSCALL_MEMFD_CREATE             319
#define SYSCALL_USERFAULTFD              323
#define SYSCALL_KEYCTL                   250
#define SYSCALL_PIVOT_ROOT               155
#define SYSCALL_CHROOT                   161
#define SYSCALL_SECCOMP                  317
#define SYSCALL_PERF_EVENT_OPEN          298
#define SYSCALL_COMPAT_SETUID            COMPAT(213)
#define SYSCALL_COMPAT_SETGID            COMPAT(214)
#define SYSCALL_COMPAT_SETREUID          COMPAT(203)
#define SYSCALL_COMPAT_SETREGID          COMPAT(204)
#define SYSCALL_COMPAT_SETRESUID         COMPAT(208)
#define SYSCALL_COMPAT_SETRESGID         COMPAT(210)
#define SYSCALL_COMPAT_SETGROUPS         COMPAT(206)
#define SYSCALL_COMPAT_SETNS             COMPAT(346)
#define SYSCALL_COMPAT_UNSHARE           COMPAT(310)
#define SYSCALL_COMPAT_PTRACE            COMPAT(26)
#define SYSCALL_COMPAT_BPF               COMPAT(357)
#define SYSCALL_COMPAT_INIT_MODULE       COMPAT(128)
#define SYSCALL_COMPAT_FINIT_MODULE      COMPAT(350)
#define SYSCALL_COMPAT_DELETE_MODULE     COMPAT(129)
#define SYSCALL_COMPAT_MEMFD_CREATE      COMPAT(356)
#define SYSCALL_COMPAT_USERFAULTFD       COMPAT(374)
#define SYSCALL_COMPAT_KEYCTL            COMPAT(288)
#define SYSCALL_COMPAT_PIVOT_ROOT        COMPAT(217)
#define SYSCALL_COMPAT_CHROOT            COMPAT(61)
#define SYSCALL_COMPAT_SECCOMP           COMPAT(354)
#define SYSCALL_COMPAT_PERF_EVENT_OPEN   COMPAT(336)
#define SYSCALL_UNLINK                   87
#define SYSCALL_UNLINKAT                 263
#define SYSCALL_COMPAT_UNLINKAT          COMPAT(301)
#define SYSCALL_RENAME                   82
#define SYSCALL_RENAMEAT                 264
#define SYSCALL_COMPAT_RENAMEAT          COMPAT(302)
#define SYSCALL_RENAMEAT2                316
#define SYSCALL_COMPAT_RENAMEAT2         COMPAT(353)
#define SYSCALL_LINK                     86
#define SYSCALL_LINKAT                   265
#define SYSCALL_COMPAT_LINKAT            COMPAT(303)
#define SYSCALL_SYMLINK                  88
#define SYSCALL_SYMLINKAT                266
#define SYSCALL_COMPAT_SYMLINKAT         COMPAT(304)
#define SYSCALL_MKDIR                    83
#define SYSCALL_MKDIRAT                  258
#define SYSCALL_COMPAT_MKDIRAT           COMPAT(296)
#define SYSCALL_RMDIR                    84
#define SYSCALL_TRUNCATE                 76
#define SYSCALL_FTRUNCATE                77
#define SYSCALL_CHMOD                    90
#define SYSCALL_FCHMOD                   91
#define SYSCALL_FCHMODAT                 268
#define SYSCALL_COMPAT_FCHMODAT          COMPAT(306)
#define SYSCALL_CHOWN                    92
#define SYSCALL_FCHOWN                   93
#define SYSCALL_LCHOWN                   94
#define SYSCALL_FCHOWNAT                 260
#define SYSCALL_COMPAT_FCHOWNAT          COMPAT(298)
#define SYSCALL_UTIME                    132
#define SYSCALL_COMPAT_UTIME             COMPAT(30)
#define SYSCALL_UTIMES                   235
#define SYSCALL_COMPAT_UTIMES            COMPAT(271)
#define SYSCALL_FUTIMESAT                261
#define SYSCALL_COMPAT_FUTIMESAT         COMPAT(299)
#define SYSCALL_UTIMENSAT                280
#define SYSCALL_COMPAT_UTIMENSAT         COMPAT(320)
#define SYSCALL_SETXATTR                 188
#define SYSCALL_LSETXATTR                189
#define SYSCALL_FSETXATTR                190
#define SYSCALL_REMOVEXATTR              197
#define SYSCALL_LREMOVEXATTR             198
#define SYSCALL_FREMOVEXATTR             199
#define SYSCALL_READ                     0
#define SYSCALL_PREAD64                  17
#define SYSCALL_READV                    19
#define SYSCALL_PREADV                   295
#define SYSCALL_PREADV2                  327
#define SYSCALL_SENDFILE                 40
#define SYSCALL_SPLICE                   275
#define SYSCALL_COPY_FILE_RANGE          326
#define SYSCALL_PWRITE64                 18
#define SYSCALL_PWRITEV                  296
#define SYSCALL_PWRITEV2                 328
#define SYSCALL_FSYNC                    74
#define SYSCALL_FDATASYNC                75
#define SYSCALL_SYNC_FILE_RANGE          277
#define SYSCALL_SENDMSG                  46
#define SYSCALL_RECVMSG                  47
#define SYSCALL_SENDMMSG                 307
#define SYSCALL_RECVMMSG                 299
#define SYSCALL_COMPAT_PREADV            COMPAT(333)
#define SYSCALL_COMPAT_PREADV2           COMPAT(378)
#define SYSCALL_COMPAT_SPLICE            COMPAT(313)
#define SYSCALL_COMPAT_COPY_FILE_RANGE   COMPAT(377)
#define SYSCALL_COMPAT_PWRITEV           COMPAT(334)
#define SYSCALL_COMPAT_PWRITEV2          COMPAT(379)
#define SYSCALL_COMPAT_SYNC_FILE_RANGE   COMPAT(314)
#define SYSCALL_COMPAT_SENDMSG           COMPAT(370)
#define SYSCALL_COMPAT_RECVMSG           COMPAT(372)
#define SYSCALL_COMPAT_SENDMMSG          COMPAT(345)
#define SYSCALL_COMPAT_RECVMMSG          COMPAT(337)
#define SYSCALL_SOCKET                   41
#define SYSCALL_SENDTO                   44
#define SYSCALL_RECVFROM                 45
#define SYSCALL_DUP                      32
#define SYSCALL_DUP2                     33
#define SYSCALL_DUP3                     292
#define SYSCALL_CHDIR                    80
#define SYSCALL_FCHDIR                   81
#define SYSCALL_SETSID                   112
#define SYSCALL_SETPGID                  109
#define SYSCALL_CAPSET                   126
#define SYSCALL_COMPAT_SOCKET            COMPAT(359)
#define SYSCALL_COMPAT_SENDTO            COMPAT(369)
#define SYSCALL_COMPAT_RECVFROM          COMPAT(371)
#define SYSCALL_COMPAT_DUP3              COMPAT(330)
#define SYSCALL_SENDFILE                 40
#define SYSCALL_SPLICE                   275
#define SYSCALL_COMPAT_SPLICE            COMPAT(313)
#define REGISTER_ARG0(regs)              ((regs)->di)
#define REGISTER_ARG1(regs)              ((regs)->si)
#define REGISTER_ARG2(regs)              ((regs)->dx)
#define REGISTER_ARG3(regs)              ((regs)->r10)
#define REGISTER_ARG4(regs)              ((regs)->r8)
#define REGISTER_ARG5(regs)              ((regs)->r9)
#elif defined(__TARGET_ARCH_arm64)
#define SYSCALL_UMOUNT2                  39
#define SYSCALL_MOUNT                    40
#define SYSCALL_OPENAT                   56
#define SYSCALL_WRITE                    64
#define SYSCALL_WRITEV                   66
#define SYSCALL_EXIT                     93
#define SYSCALL_EXIT_GROUP               94
#define SYSCALL_KILL                     129
#define SYSCALL_TKILL                    130
#define SYSCALL_TGKILL                   131
#define SYSCALL_RT_SIGQUEUEINFO          138
#define SYSCALL_RT_SIGRETURN             139
#define SYSCALL_BIND                     200
#define SYSCALL_LISTEN                   201
#define SYSCALL_ACCEPT                   202
#define SYSCALL_CONNECT                  203
#define SYSCALL_CLONE                    220
#define SYSCALL_EXECVE                   221
#define SYSCALL_RT_TGSIGQUEUEINFO        240
#define SYSCALL_ACCEPT4                  242
#define SYSCALL_OPEN_BY_HANDLE_AT        265
#define SYSCALL_EXECVEAT                 281
#define SYSCALL_COMPAT_EXITALL           COMPAT(248)
#define SYSCALL_COMPAT_TGKILL            COMPAT(268)
#define SYSCALL_COMPAT_BIND              COMPAT(282)
#define SYSCALL_COMPAT_CONNECT           COMPAT(283)
#define SYSCALL_COMPAT_LISTEN            COMPAT(284)
#define SYSCALL_COMPAT_ACCEPT            COMPAT(285)
#define SYSCALL_COMPAT_OPENAT            COMPAT(322)
#define SYSCALL_COMPAT_RT_TGSIGQUEUEINFO COMPAT(363)
#define SYSCALL_COMPAT_ACCEPT4           COMPAT(366)
#define SYSCALL_COMPAT_OPEN_BY_HANDLE_AT COMPAT(371)
#define SYSCALL_COMPAT_EXECVEAT          COMPAT(387)
#define SYSCALL_SETUID                   146
#define SYSCALL_SETGID                   144
#define SYSCALL_SETREUID                 145
#define SYSCALL_SETREGID                 143
#define SYSCALL_SETRESUID                147
#define SYSCALL_SETRESGID                149
#define SYSCALL_SETGROUPS                159
#define SYSCALL_SETNS                    268
#define SYSCALL_UNSHARE                  97
#define SYSCALL_PTRACE                   117
#define SYSCALL_BPF                      280
#define SYSCALL_INIT_MODULE              105
#define SYSCALL_FINIT_MODULE             273
#define SYSCALL_DELETE_MODULE            106
#define SYSCALL_MEMFD_CREATE             279
#define SYSCALL_USERFAULTFD              282
#define SYSCALL_KEYCTL                   219
#define SYSCALL_PIVOT_ROOT               41
#define SYSCALL_CHROOT                   51
#define SYSCALL_SECCOMP                  277
#define SYSCALL_PERF_EVENT_OPEN          241
#define SYSCALL_COMPAT_SETUID            COMPAT(213)
#define SYSCALL_COMPAT_SETGID            COMPAT(214)
#define SYSCALL_COMPAT_SETREUID          COMPAT(203)
#define SYSCALL_COMPAT_SETREGID          COMPAT(204)
#define SYSCALL_COMPAT_SETRESUID         COMPAT(208)
#define SYSCALL_COMPAT_SETRESGID         COMPAT(210)
#define SYSCALL_COMPAT_SETGROUPS         COMPAT(206)
#define SYSCALL_COMPAT_SETNS             COMPAT(375)
#define SYSCALL_COMPAT_UNSHARE           COMPAT(337)
#define SYSCALL_COMPAT_PTRACE            COMPAT(26)
#define SYSCALL_COMPAT_BPF               COMPAT(386)
#define SYSCALL_COMPAT_INIT_MODULE       COMPAT(128)
#define SYSCALL_COMPAT_FINIT_MODULE      COMPAT(379)
#define SYSCALL_COMPAT_DELETE_MODULE     COMPAT(129)
#define SYSCALL_COMPAT_MEMFD_CREATE      COMPAT(385)
#define SYSCALL_COMPAT_USERFAULTFD       COMPAT(388)
#define SYSCALL_COMPAT_KEYCTL            COMPAT(311)
#define SYSCALL_COMPAT_PIVOT_ROOT        COMPAT(218)
#define SYSCALL_COMPAT_CHROOT            COMPAT(61)
#define SYSCALL_COMPAT_SECCOMP           COMPAT(383)
#define SYSCALL_COMPAT_PERF_EVENT_OPEN   COMPAT(364)
#define SYSCALL_UNLINKAT                 35
#define SYSCALL_COMPAT_UNLINKAT          COMPAT(328)
#define SYSCALL_RENAMEAT                 38
#define SYSCALL_COMPAT_RENAMEAT          COMPAT(329)
#define SYSCALL_RENAMEAT2                276
#define SYSCALL_COMPAT_RENAMEAT2         COMPAT(382)
#define SYSCALL_LINKAT                   37
#define SYSCALL_COMPAT_LINKAT            COMPAT(330)
#define SYSCALL_SYMLINKAT                36
#define SYSCALL_COMPAT_SYMLINKAT         COMPAT(331)
#define SYSCALL_MKDIRAT                  34
#define SYSCALL_COMPAT_MKDIRAT           COMPAT(323)
#define SYSCALL_TRUNCATE                 45
#define SYSCALL_FTRUNCATE                46
#define SYSCALL_FCHMOD                   52
#define SYSCALL_FCHMODAT                 53
#define SYSCALL_COMPAT_FCHMODAT          COMPAT(333)
#define SYSCALL_FCHOWN                   55
#define SYSCALL_FCHOWNAT                 54
#define SYSCALL_COMPAT_FCHOWNAT          COMPAT(325)
#define SYSCALL_COMPAT_UTIMES            COMPAT(269)
#define SYSCALL_COMPAT_FUTIMESAT         COMPAT(326)
#define SYSCALL_UTIMENSAT                88
#define SYSCALL_COMPAT_UTIMENSAT         COMPAT(348)
#define SYSCALL_SETXATTR                 5
#define SYSCALL_LSETXATTR                6
#define SYSCALL_FSETXATTR                7
#define SYSCALL_REMOVEXATTR              14
#define SYSCALL_LREMOVEXATTR             15
#define SYSCALL_FREMOVEXATTR             16
#define SYSCALL_READ                     63
#define SYSCALL_PREAD64                  67
#define SYSCALL_READV                    65
#define SYSCALL_PREADV                   69
#define SYSCALL_PREADV2                  286
#define SYSCALL_SENDFILE                 71
#define SYSCALL_SPLICE                   76
#define SYSCALL_COPY_FILE_RANGE          285
#define SYSCALL_PWRITE64                 68
#define SYSCALL_PWRITEV                  70
#define SYSCALL_PWRITEV2                 287
#define SYSCALL_FSYNC                    82
#define SYSCALL_FDATASYNC                83
#define SYSCALL_SYNC_FILE_RANGE          84
#define SYSCALL_SENDMSG                  211
#define SYSCALL_RECVMSG                  212
#define SYSCALL_SENDMMSG                 269
#define SYSCALL_RECVMMSG                 243
#define SYSCALL_COMPAT_PREADV            COMPAT(361)
#define SYSCALL_COMPAT_PREADV2           COMPAT(392)
#define SYSCALL_COMPAT_SPLICE            COMPAT(340)
#define SYSCALL_COMPAT_COPY_FILE_RANGE   COMPAT(391)
#define SYSCALL_COMPAT_PWRITEV           COMPAT(362)
#define SYSCALL_COMPAT_PWRITEV2          COMPAT(393)
#define SYSCALL_COMPAT_SYNC_FILE_RANGE2  COMPAT(341)
#define SYSCALL_COMPAT_SENDMSG           COMPAT(296)
#define SYSCALL_COMPAT_RECVMSG           COMPAT(297)
#define SYSCALL_COMPAT_SENDMMSG          COMPAT(374)
#define SYSCALL_COMPAT_RECVMMSG          COMPAT(365)
#define SYSCALL_SOCKET                   198
#define SYSCALL_SENDTO                   206
#define SYSCALL_RECVFROM                 207
#define SYSCALL_DUP                      23
#define SYSCALL_DUP3                     24
#define SYSCALL_CHDIR                    49
#define SYSCALL_FCHDIR                   50
#define SYSCALL_SETSID                   157
#define SYSCALL_SETPGID                  154
#define SYSCALL_CAPSET                   91
#define SYSCALL_COMPAT_SOCKET            COMPAT(281)
#define SYSCALL_COMPAT_SENDTO            COMPAT(290)
#define SYSCALL_COMPAT_RECVFROM          COMPAT(292)
#define SYSCALL_COMPAT_DUP3              COMPAT(358)
#define SYSCALL_SENDFILE                 71
#define SYSCALL_SPLICE                   76
#define SYSCALL_COMPAT_SPLICE            COMPAT(340)
#define REGISTER_ARG0(regs)              ((regs)->orig_x0)
#define REGISTER_ARG1(regs)              ((regs)->regs[1])
#define REGISTER_ARG2(regs)              ((regs)->regs[2])
#define REGISTER_ARG3(regs)              ((regs)->regs[3])
#define REGISTER_ARG4(regs)              ((regs)->regs[4])
#define REGISTER_ARG5(regs)              ((regs)->regs[5])
#endif
#define SYSCALL_PIDFD_SEND_SIGNAL             424
#define SYSCALL_OPEN_TREE                     428
#define SYSCALL_MOVE_MOUNT                    429
#define SYSCALL_FSOPEN                        430
#define SYSCALL_FSMOUNT                       432
#define SYSCALL_COMPAT_MOUNT                  COMPAT(21)
#define SYSCALL_COMPAT_UMOUNT2                COMPAT(52)
#define SYSCALL_COMPAT_OPEN_TREE              COMPAT(428)
#define SYSCALL_COMPAT_MOVE_MOUNT             COMPAT(429)
#define SYSCALL_COMPAT_FSOPEN                 COMPAT(430)
#define SYSCALL_COMPAT_FSMOUNT                COMPAT(432)
#define SYSCALL_LANDLOCK_RESTRICT_SELF        446
#define SYSCALL_COMPAT_LANDLOCK_RESTRICT_SELF COMPAT(446)
#define SYSCALL_IO_URING_SETUP                425
#define SYSCALL_COMPAT_IO_URING_SETUP         COMPAT(425)
#define SYSCALL_COMPAT_UNLINK                 COMPAT(10)
#define SYSCALL_COMPAT_RENAME                 COMPAT(38)
#define SYSCALL_COMPAT_LINK                   COMPAT(9)
#define SYSCALL_COMPAT_SYMLINK                COMPAT(83)
#define SYSCALL_COMPAT_MKDIR                  COMPAT(39)
#define SYSCALL_COMPAT_RMDIR                  COMPAT(40)
#define SYSCALL_COMPAT_TRUNCATE               COMPAT(92)
#define SYSCALL_COMPAT_FTRUNCATE              COMPAT(93)
#define SYSCALL_COMPAT_TRUNCATE64             COMPAT(193)
#define SYSCALL_COMPAT_FTRUNCATE64            COMPAT(194)
#define SYSCALL_COMPAT_CHMOD                  COMPAT(15)
#define SYSCALL_COMPAT_FCHMOD                 COMPAT(94)
#define SYSCALL_FCHMODAT2                     452
#define SYSCALL_COMPAT_FCHMODAT2              COMPAT(452)
#define SYSCALL_COMPAT_CHOWN                  COMPAT(182)
#define SYSCALL_COMPAT_FCHOWN                 COMPAT(95)
#define SYSCALL_COMPAT_LCHOWN                 COMPAT(16)
#define SYSCALL_COMPAT_CHOWN32                COMPAT(212)
#define SYSCALL_COMPAT_FCHOWN32               COMPAT(207)
#define SYSCALL_COMPAT_LCHOWN32               COMPAT(198)
#define SYSCALL_COMPAT_UTIMENSAT_TIME64       COMPAT(412)
#define SYSCALL_COMPAT_SETXATTR               COMPAT(226)
#define SYSCALL_COMPAT_LSETXATTR              COMPAT(227)
#define SYSCALL_COMPAT_FSETXATTR              COMPAT(228)
#define SYSCALL_SETXATTRAT                    463
#define SYSCALL_COMPAT_SETXATTRAT             COMPAT(463)
#define SYSCALL_COMPAT_REMOVEXATTR            COMPAT(235)
#define SYSCALL_COMPAT_LREMOVEXATTR           COMPAT(236)
#define SYSCALL_COMPAT_FREMOVEXATTR           COMPAT(237)
#define SYSCALL_REMOVEXATTRAT                 466
#define SYSCALL_COMPAT_REMOVEXATTRAT          COMPAT(466)
#define SYSCALL_COMPAT_READ                   COMPAT(3)
#define SYSCALL_COMPAT_PREAD64                COMPAT(180)
#define SYSCALL_COMPAT_READV                  COMPAT(145)
#define SYSCALL_COMPAT_SENDFILE               COMPAT(187)
#define SYSCALL_COMPAT_SENDFILE64             COMPAT(239)
#define SYSCALL_COMPAT_PWRITE64               COMPAT(181)
#define SYSCALL_COMPAT_FSYNC                  COMPAT(118)
#define SYSCALL_COMPAT_FDATASYNC              COMPAT(148)
#define SYSCALL_COMPAT_WRITE                  COMPAT(4)
#define SYSCALL_COMPAT_WRITEV                 COMPAT(146)
#define SYSCALL_COMPAT_RECVMMSG_TIME64        COMPAT(417)
#define SYSCALL_CLONE3                        435
#define SYSCALL_OPENAT2                       437
#define SYSCALL_COMPAT_EXIT                   COMPAT(1)
#define SYSCALL_COMPAT_OPEN                   COMPAT(5)
#define SYSCALL_COMPAT_CREAT                  COMPAT(8)
#define SYSCALL_COMPAT_EXECVE                 COMPAT(11)
#define SYSCALL_COMPAT_OPENAT2                COMPAT(437)
#define SYSCALL_COMPAT_FORK                   COMPAT(2)
#define SYSCALL_COMPAT_VFORK                  COMPAT(190)
#define SYSCALL_COMPAT_CLONE                  COMPAT(120)
#define SYSCALL_COMPAT_CLONE3                 COMPAT(435)
#define SYSCALL_COMPAT_KILL                   COMPAT(37)
#define SYSCALL_COMPAT_RT_SIGQUEUEINFO        COMPAT(178)
#define SYSCALL_COMPAT_TKILL                  COMPAT(238)
#define SYSCALL_COMPAT_PIDFD_SEND_SIGNAL      COMPAT(424)
#define SYSCALL_COMPAT_DUP                    COMPAT(41)
#define SYSCALL_COMPAT_DUP2                   COMPAT(63)
#define SYSCALL_COMPAT_CHDIR                  COMPAT(12)
#define SYSCALL_COMPAT_FCHDIR                 COMPAT(133)
#define SYSCALL_COMPAT_SETSID                 COMPAT(66)
#define SYSCALL_COMPAT_SETPGID                COMPAT(57)
#define SYSCALL_COMPAT_CAPSET                 COMPAT(185)
#define SYSCALL_COMPAT_SENDFILE               COMPAT(187)
#define SYSCALL_COMPAT_SENDFILE64             COMPAT(239)

/* The six arguments of a call. */
struct syscall_args {
	__u64 a0, a1, a2, a3, a4, a5;
};

/* The arguments of the call that has just ended. number is what syscall_number() returned: 32-bit calls on x86 pass
 * their arguments in other registers (bx, cx, dx, si, di, bp). */
static __always_inline struct syscall_args syscall_arguments(struct pt_regs *regs, __u32 number)
{
	struct syscall_args args;

#if defined(__TARGET_ARCH_x86)
	if (number & COMPAT_FLAG) {
		args.a0 = (__u32)regs->bx;
		args.a1 = (__u32)regs->cx;
		args.a2 = (__u32)regs->dx;
		args.a3 = (__u32)regs->si;
		args.a4 = (__u32)regs->di;
		args.a5 = (__u32)regs->bp;
		return args;
	}
#endif
	args.a0 = REGISTER_ARG0(regs);
	args.a1 = REGISTER_ARG1(regs);
	args.a2 = REGISTER_ARG2(regs);
	args.a3 = REGISTER_ARG3(regs);
	args.a4 = REGISTER_ARG4(regs);
	args.a5 = REGISTER_ARG5(regs);
	return args;
}

/* A member of an array, or of a struct such as msghdr, in the memory of a program. All members before it have its size:
 * word, 8 or 4, which is that of a pointer of the program where they are pointers. 0 if it cannot be read. */
static __always_inline __u64 read_word(__u64 from, __u32 index, __u32 word)
{
	__u64 value = 0;

	if (word == 8)
		bpf_probe_read_user(&value, 8, (void *)(from + index * 8));
	else
		bpf_probe_read_user(&value, 4, (void *)(from + index * 4));
	return value;
}

/* Whether a call of bpf(2) is about the elements of a map: programs that use BPF make thousands of these a second. */
static __always_inline bool is_about_elements(__u64 command)
{
	return (command >= BPF_MAP_LOOKUP_ELEM && command <= BPF_MAP_GET_NEXT_KEY) ||
	       command == BPF_MAP_LOOKUP_AND_DELETE_ELEM ||
	       (command >= BPF_MAP_LOOKUP_BATCH && command <= BPF_MAP_DELETE_BATCH);
}

/* The number as the program gave it. */
static __always_inline __u32 syscall_number_as_given(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return regs->orig_ax;
#else
	return regs->syscallno;
#endif
}

/* The number of the call that a task is in, UNKNOWN_SYSCALL for one of x32. See syscall_number(). */
static __always_inline __u32 syscall_number_of(struct pt_regs *regs, struct task_struct *task)
{
	__u32 number = syscall_number_as_given(regs);
#if defined(__TARGET_ARCH_x86)
	bool compat = TASK_READ(task, thread_info.status) & TS_COMPAT;
#else
	bool compat = TASK_READ(task, thread_info.flags) & (1UL << TIF_32BIT);
#endif
	if (number != NO_SYSCALL && number > UNKNOWN_SYSCALL)
		number = UNKNOWN_SYSCALL;
	return compat ? number | COMPAT_FLAG : number;
}

/* The number that a call has for 64-bit programs. x86 kernels may have a third kind of calls, x32 (CONFIG_X86_X32_ABI),
 * and any program may make them: with the same numbers and X32_BIT, but for some that are their own, and that older
 * kernels take without X32_BIT, too: arch/x86/entry/syscalls/syscall_64.tbl. */
static __always_inline __u32 without_x32(struct pt_regs *regs, __u32 number)
{
#if defined(__TARGET_ARCH_x86)
	__u32 rest = syscall_number_as_given(regs) - X32_BIT;

	if (number < X32_FIRST || number > UNKNOWN_SYSCALL)
		return number;
	if (number == UNKNOWN_SYSCALL && rest < UNKNOWN_SYSCALL)
		number = rest;
	switch (number) {
	case X32_PTRACE:
		return SYSCALL_PTRACE;
	case X32_RT_SIGQUEUEINFO:
		return SYSCALL_RT_SIGQUEUEINFO;
	case X32_RT_TGSIGQUEUEINFO:
		return SYSCALL_RT_TGSIGQUEUEINFO;
	}
#endif
	return number;
}

/* The number of the call that has just ended, one of SYSCALL_…, with COMPAT_FLAG for a 32-bit program. */
static __always_inline __u32 syscall_number(struct pt_regs *regs)
{
	return without_x32(regs, syscall_number_of(regs, current_task()));
}

#define PF_IO_WORKER 0x00000010 /* linux/sched.h: works for io_uring */
#define PF_KTHREAD   0x00200000

/* Whether a task makes no system calls: the registers of a thread of the kernel are all 0. */
static __always_inline bool makes_no_calls(struct task_struct *task)
{
	return TASK_READ(task, flags) & (PF_KTHREAD | PF_IO_WORKER);
}

/* A number that syscall_number() returned, for an event. */
static __always_inline __u32 gadget_syscall_numbered(__u32 number)
{
	if (number == NO_SYSCALL)
		return number;
#if defined(__TARGET_ARCH_arm64)
	number |= 1 << 17;
#endif
	return number;
}

/* The call that a task is in, for an event. The number of 0xffff stands for none. */
static __always_inline __u32 gadget_syscall_of(struct task_struct *task)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);

	if (makes_no_calls(task))
		return NO_SYSCALL;
	return gadget_syscall_numbered(without_x32(regs, syscall_number_of(regs, task)));
}

/* asm-generic/errno-base.h, linux/errno.h */
#define EINTR                 4
#define ERESTARTSYS           512
#define ERESTART_RESTARTBLOCK 516

#define SIGSYS_BIT 30 /* the bit of SIGSYS in a set of signals */

/* 0 if the register of the result holds what it held before the call: the number of the call on x86, its first argument
 * on arm64. */
static __always_inline __u64 differs_from_before(struct pt_regs *regs, __u32 number, long result)
{
#if defined(__TARGET_ARCH_x86)
	return result ^ regs->orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	__u64 difference = result ^ regs->orig_x0;

	return number & COMPAT_FLAG ? (__u32)difference : difference;
#endif
}

/* 1 if a SIGSYS waits for the current thread, which does not block it; else 0. */
static __always_inline __u64 sigsys_waits(void)
{
	struct task_struct *task = current_task();

	return (TASK_READ(task, pending.signal.sig[0]) & ~TASK_READ(task, blocked.sig[0])) >> SIGSYS_BIT & 1;
}

/* The result of the call that has just ended, -EPERM if seccomp kept it from happening and answered by SIGSYS
 * (SECCOMP_RET_TRAP, SECCOMP_RET_KILL_PROCESS): syscall_rollback() then puts back the register of the result. A call
 * may return that number by itself, so the signal has to wait, too; the kernel unblocks it. */
static __always_inline long syscall_result(struct pt_regs *regs, __u32 number, long result)
{
	__u64 difference = differs_from_before(regs, number, result), negated = -difference;

	barrier_var(negated); /* no branch: it would double what the verifier follows from here on */
	return result | -(sigsys_waits() & ~((difference | negated) >> 63)); /* all ones are -EPERM */
}

/* The error of a call from its result, 0 if the call succeeded. A call that a signal interrupted has EINTR; the kernel
 * decides later whether it begins that call again, so the call may return once more. */
static __always_inline int syscall_error(long result)
{
	if (result >= 0)
		return 0;
	return result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK ? EINTR : -result;
}
