/* SPDX-License-Identifier: GPL-2.0 */
/* Reads and writes of files: the calls that do it, and what a file is. */
#pragma once

#include "syscalls.h"
#include "text.h"

/* linux/stat.h */
#define S_IFMT   0170000
#define S_IFIFO  0010000
#define S_IFCHR  0020000
#define S_IFDIR  0040000
#define S_IFBLK  0060000
#define S_IFREG  0100000
#define S_IFSOCK 0140000

/* The calls that read and write by one descriptor, for a table of calls by number. */
#define READING_CALLS(known, as) \
	known(READ, as), known(PREAD64, as), known(READV, as), known(PREADV, as), known(PREADV2, as)
#define WRITING_CALLS(known, as) \
	known(WRITE, as), known(PWRITE64, as), known(WRITEV, as), known(PWRITEV, as), known(PWRITEV2, as)

/* Of a table of calls by number; greater numbers are in none. */
#define KNOWN_NUMBERS 512

/* What a gadget's tables, of 64-bit and of 32-bit programs, have for a call; 0 if they do not have it. */
static __always_inline __u32 known_call(__u32 number, const __u8 *calls, const __u8 *compat_calls)
{
	__u32 at = number & ~COMPAT_FLAG;

	if (at >= KNOWN_NUMBERS)
		return 0;
	at = at_most(at, KNOWN_NUMBERS - 1); /* which the verifier can follow */
	return number & COMPAT_FLAG ? compat_calls[at] : calls[at];
}

enum file_type {
	TYPE_GONE,
	TYPE_FILE,
	TYPE_DIRECTORY,
	TYPE_SOCKET,
	TYPE_PIPE,
	TYPE_CHARACTER_DEVICE,
	TYPE_BLOCK_DEVICE,
	TYPE_OTHER,
};
typedef enum file_type gadget_type_words;

/* The type of a file, TYPE_GONE of none. */
static __always_inline enum file_type type_of(struct file *file)
{
	if (!file)
		return TYPE_GONE;
	switch (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) {
	case S_IFREG:
		return TYPE_FILE;
	case S_IFDIR:
		return TYPE_DIRECTORY;
	case S_IFSOCK:
		return TYPE_SOCKET;
	case S_IFIFO:
		return TYPE_PIPE;
	case S_IFCHR:
		return TYPE_CHARACTER_DEVICE;
	case S_IFBLK:
		return TYPE_BLOCK_DEVICE;
	default:
		return TYPE_OTHER;
	}
}

/* Whether a file lies in a file system: sockets, pipes and terminals are waited for in their own ways. */
static __always_inline bool is_stored(struct file *file)
{
	switch (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) {
	case S_IFDIR:
	case S_IFBLK:
	case S_IFREG:
		return true;
	default:
		return false;
	}
}
