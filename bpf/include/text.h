/* SPDX-License-Identifier: GPL-2.0 */
/* Text for an event's tail: strings and paths. Each helper appends at header->text_length, and raises that. */
#pragma once

#include <asm/errno.h>

#include "drift.h"
#include "gadget.h"

/* How many components of a path are walked. A deeper path lacks its first components, and its slice says so (cut). */
#define PATH_DEPTH 40

/* Append a string from user memory, with its NUL. At most limit bytes: a longer string is cut. Returns how many bytes
 * it took, or 0 if it could not be read. */
static __always_inline __u32 text_user_string(struct gadget_header *header, char *text, __u64 from, __u32 limit)
{
	__u32 at = header->text_length;
	long length;

	if (at >= TEXT_MAX || !limit)
		return 0;
	length = read_user_string(text + at, at_most(limit, TEXT_SLACK), (void *)from);
	if (length <= 0)
		return 0;
	if (length > TEXT_MAX - at)
		length = TEXT_MAX - at;
	header->text_length = at + length;
	return length;
}

/* The arguments of a program that has just begun, as the first text of an event: setup_arg_pages and copy_strings have
 * laid them out in one piece. mm is that of the current task. At most limit bytes: truncated if there were more, or if
 * they could not be read. */
static __always_inline gadget_args text_arguments(struct gadget_header *header, char *text, struct mm_struct *mm,
						  __u32 limit, bool *truncated)
{
	__u64 start = mm->arg_start, length = mm->arg_end - start;

	*truncated = length > limit;
	if (length > limit)
		length = limit;
	if (bpf_probe_read_user(text, length, (void *)start)) {
		*truncated = true;
		length = 0;
	}
	header->text_length = length;
	return (gadget_args){.length = length};
}

/* Append a path from user memory, as the process passed it. */
static __always_inline gadget_path text_path_as_given(struct gadget_header *header, char *text, __u64 from)
{
	gadget_path slice = {.offset = header->text_length, .as_given = true};
	__u32 length = text_user_string(header, text, from, TEXT_SLACK);

	slice.length = length ? length - 1 : 0;
	return slice;
}

/* The working directory of a task, for text_path. task is what current_task() returned. */
static __always_inline struct path *working_directory(struct task_struct *task)
{
	struct fs_struct *fs = TASK_READ(task, fs);

	return __builtin_preserve_access_index(&fs->pwd);
}

/* The root directory of a task, for text_path: absolute paths begin there, and chroot(2) moves it. task is what
 * current_task() returned. */
static __always_inline struct path *root_directory(struct task_struct *task)
{
	struct fs_struct *fs = TASK_READ(task, fs);

	return __builtin_preserve_access_index(&fs->root);
}

/* An open file of a task by its descriptor. NULL if there is none. task is what current_task() returned. */
static __always_inline struct file *file_of(struct task_struct *task, int fd)
{
	struct file *file = NULL, **files = BPF_CORE_READ(task, files, fdt, fd);

	if ((__u32)fd < BPF_CORE_READ(task, files, fdt, max_fds))
		bpf_core_read(&file, sizeof(file), &files[fd]);
	return file;
}

/* The path of an open file of a task by its descriptor, for text_path. NULL if there is none. */
static __always_inline struct path *path_of(struct task_struct *task, int fd)
{
	struct file *file = file_of(task, fd);

	return file ? __builtin_preserve_access_index(&file->f_path) : NULL;
}

/* Append the path of a file that the kernel has open, as its mount namespace sees it. */
static __always_inline gadget_path text_path(struct gadget_header *header, char *text, struct path *path)
{
	struct dentry *dentry = BPF_CORE_READ(path, dentry);
	struct vfsmount *vfsmount = BPF_CORE_READ(path, mnt);
	struct mount *mount = (void *)vfsmount - bpf_core_field_offset(struct mount, mnt);
	__u32 at = header->text_length;
	gadget_path slice = {.offset = at, .cut = true};

	for (int i = 0; i < PATH_DEPTH; i++) {
		struct dentry *root = BPF_CORE_READ(mount, mnt.mnt_root);
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		long length;

		if (dentry == root) {
			struct mount *above = BPF_CORE_READ(mount, mnt_parent);

			if (mount == above) {
				slice.cut = false;
				break;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = above;
			continue;
		}
		if (at >= TEXT_MAX)
			break;
		length = bpf_probe_read_kernel_str(text + at, NAME_MAX + 1, BPF_CORE_READ(dentry, d_name.name));
		if (length <= 0 || at + length >= TEXT_MAX)
			break;
		at += length;
		text[(at - 1) & (TEXT_MAX - 1)] = '/'; /* instead of the NUL; no name has a slash */
		if (dentry == parent) {                /* in no directory: a memfd */
			slice.cut = false;
			break;
		}
		dentry = parent;
	}
	slice.length = at - header->text_length;
	header->text_length = at;
	return slice;
}

#define FILE_SYSTEM_BYTES 32 /* bytes of the name of a file system's type */

/* Append the type of a file system. */
static __always_inline gadget_word text_file_system(struct gadget_header *header, char *text, struct super_block *sb)
{
	__u32 at = header->text_length;
	gadget_word slice = {.offset = at};
	long length;

	if (at >= TEXT_MAX)
		return slice;
	length = bpf_probe_read_kernel_str(text + at, FILE_SYSTEM_BYTES, BPF_CORE_READ(sb, s_type, name));
	if (length > 1) {
		slice.length = length - 1;
		header->text_length = at + length;
	}
	return slice;
}

#define AT_FDCWD -100

/* text_full_path() of a call that may make the directory the root of absolute paths, too: in_root (RESOLVE_IN_ROOT). */
static __always_inline gadget_full_path text_path_in(struct gadget_header *header, char *text, int fd, __u64 from,
						     int error, bool in_root)
{
	struct task_struct *task = current_task();
	__u32 at = header->text_length & (TEXT_MAX - 1);
	gadget_full_path full = {.directory.as_given = true};
	struct path *directory;

	full.path = text_path_as_given(header, text, from);
	if (!full.path.length && (error == ENOENT || error == EFAULT))
		return full; /* an empty path that stands for nothing, or one that is in no memory */
	if (full.path.length && text[at] == '/' && !in_root)
		directory = root_directory(task);
	else if (fd == AT_FDCWD)
		directory = working_directory(task);
	else
		directory = path_of(task, fd);
	if (directory && full.path.length)
		full.directory = text_path(header, text, directory);
	else if (directory)
		full.path = text_path(header, text, directory);
	return full;
}

/* Append a path from user memory, and the directory that it is relative to: the descriptor fd, or AT_FDCWD. Without a
 * path it is the descriptor's own, unless the call failed because of that: error says why it failed, 0 if it did not.
 */
static __always_inline gadget_full_path text_full_path(struct gadget_header *header, char *text, int fd, __u64 from,
						       int error)
{
	return text_path_in(header, text, fd, from, error, false);
}
