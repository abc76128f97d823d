/* SPDX-License-Identifier: GPL-2.0 */
/* The flags of opens of files. */
#pragma once

#include "kernel.h"

#define RESOLVE_IN_ROOT 0x10 /* linux/openat2.h: the directory is the root of the path */

/* open(2), with x86's values; arm64's are brought to these */
enum open_flag {
	O_RDONLY = 00,
	O_WRONLY = 01,
	O_RDWR = 02,
	O_CREAT = 0100,
	O_EXCL = 0200,
	O_NOCTTY = 0400,
	O_TRUNC = 01000,
	O_APPEND = 02000,
	O_NONBLOCK = 04000,
	O_DSYNC = 010000,
	O_ASYNC = 020000,
	O_DIRECT = 040000,
	O_LARGEFILE = 0100000,
	O_DIRECTORY = 0200000,
	O_NOFOLLOW = 0400000,
	O_NOATIME = 01000000,
	O_CLOEXEC = 02000000,
	O_SYNC = 04010000,
	O_PATH = 010000000,
	O_TMPFILE = 020200000,
};
typedef enum open_flag gadget_open_flags;

/* The flags of an open by x86's values. */
static __always_inline __u32 common_flags(__u64 flags)
{
#if defined(__TARGET_ARCH_arm64) /* arch/arm64/include/uapi/asm/fcntl.h swaps these four */
	__u32 kept = flags & ~(040000 | 0100000 | 0200000 | 0400000);

	return kept | (flags & 040000 ? O_DIRECTORY : 0) | (flags & 0100000 ? O_NOFOLLOW : 0) |
	       (flags & 0200000 ? O_DIRECT : 0) | (flags & 0400000 ? O_LARGEFILE : 0);
#else
	return flags;
#endif
}
