/* SPDX-License-Identifier: GPL-2.0 */
/* Text for an event's tail: strings, argument lists, paths. Each helper appends at header->text_length. */
#pragma once

#include "drift.h"
#include "gadget.h"

/* At most max, in a form that the verifier can follow: clang may not fold the comparison into another. */
static __always_inline __u64 at_most(__u64 value, __u64 max)
{
	asm volatile("" : "+r"(value));
	if (value > max)
		value = max;
	asm volatile("" : "+r"(value));
	return value;
}

/* Components walked; a deeper path loses its first ones and says so. */
#define PATH_DEPTH 40

/* Append a user string of up to limit bytes with its NUL; a longer one is cut. Returns the bytes it took,
 * 0 if it could not be read. */
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

/* Append a path as the process passed it. */
static __always_inline gadget_path text_path_as_given(struct gadget_header *header, char *text, __u64 from)
{
	gadget_path slice = {.offset = header->text_length, .as_given = true};
	__u32 length = text_user_string(header, text, from, TEXT_SLACK);

	slice.length = length ? length - 1 : 0;
	return slice;
}

/* The working directory of what current_task gave, for text_path. */
static __always_inline struct path *working_directory(struct task_struct *task)
{
	struct fs_struct *fs = TASK_READ(task, fs);

	return __builtin_preserve_access_index(&fs->pwd);
}

/* As above: what absolute paths are relative to, which chroot(2) moves. */
static __always_inline struct path *root_directory(struct task_struct *task)
{
	struct fs_struct *fs = TASK_READ(task, fs);

	return __builtin_preserve_access_index(&fs->root);
}

/* Append the path of a dentry as its mount namespace sees it. */
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
