/* SPDX-License-Identifier: GPL-2.0 */
/* Reads and writes of files: the calls that do it, and what a file is. */
#pragma once

#include "calls.h"
#include "text.h"

/* linux/stat.h */
#define S_IFMT   0170000
#define S_IFIFO  0010000
#define S_IFCHR  0020000
#define S_IFDIR  0040000
#define S_IFBLK  0060000
#define S_IFREG  0100000
#define S_IFSOCK 0140000

/* The calls that read and write by one descriptor, for CALLS. */
#define READING_CALLS(as)                                                                             \
	KNOWN_BOTH(READ, as), KNOWN_BOTH(PREAD64, as), KNOWN_BOTH(READV, as), KNOWN_BOTH(PREADV, as), \
		KNOWN_BOTH(PREADV2, as)
#define WRITING_CALLS(as)                                                                                 \
	KNOWN_BOTH(WRITE, as), KNOWN_BOTH(PWRITE64, as), KNOWN_BOTH(WRITEV, as), KNOWN_BOTH(PWRITEV, as), \
		KNOWN_BOTH(PWRITEV2, as)

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
