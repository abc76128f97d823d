/* SPDX-License-Identifier: GPL-2.0 */
/* What lies behind the descriptor that a call is about, or that it made. */
#pragma once

#include "socket_calls.h"

/* linux/stat.h, linux/magic.h */
#define S_IFMT              0170000
#define S_IFSOCK            0140000
#define S_IFDIR             0040000
#define S_IFIFO             0010000
#define ANON_INODE_FS_MAGIC 0x09041934
#define NSFS_MAGIC          0x6e736673

/* Read the file behind the descriptor of a call, and its path unless the call named one. 1 if it is a socket. */
__noinline int read_file(int fd, bool named)
{
	__u32 program = PROGRAM_CALL;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	struct file *file = file_of(current_task(), fd);
	struct inode *inode;
	unsigned long magic;

	if (!event || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	switch (BPF_CORE_READ(inode, i_mode) & S_IFMT) {
	case S_IFSOCK:
		return 1;
	case S_IFIFO:
		event->fd_type = 'p';
		return 0;
	case S_IFDIR:
		event->fd_type = 'd';
		break;
	default:
		magic = BPF_CORE_READ(inode, i_sb, s_magic);
		event->fd_type = magic == ANON_INODE_FS_MAGIC ? 'e' : 'f';
		named |= magic == ANON_INODE_FS_MAGIC || magic == NSFS_MAGIC; /* these have no path */
	}
	if (!named)
		event->path.path =
			text_path(&event->header, event->text, __builtin_preserve_access_index(&file->f_path));
	return 0;
}

/* What a descriptor would have been that an open in vain does not have. */
static __always_inline __u8 letter_in_vain(__u64 call)
{
	switch (call) {
	case CALL_OPEN:
		return 'o';
	case CALL_OPENAT:
	case CALL_OPENAT2:
	case CALL_CREAT:
		return 'f';
	default:
		return 0;
	}
}

static __always_inline void read_descriptor(struct event *event, struct known known, __u32 number)
{
	bool named = known.path.directory != known.path.path;

	if (known.fd == RESULT)
		event->fd = event->result < 0 ? NO_FD : event->result;
	else if (known.fd != NONE)
		event->fd = argument(event, known.fd);
	if (event->fd < 0)
		event->fd_type = letter_in_vain(event->call);
	else if (read_file(event->fd, named))
		read_socket(event->fd, known.more, word_of(number));
}
