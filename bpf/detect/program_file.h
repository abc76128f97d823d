/* SPDX-License-Identifier: GPL-2.0 */
/* What is known of the file of a program that begins. */
#pragma once

#include "event.h"

/* linux/stat.h, linux/fs.h, linux/magic.h, linux/capability.h */
#define S_IWUSR          0200
#define S_IWGRP          0020
#define S_IWOTH          0002
#define SB_RDONLY        1
#define S_IMMUTABLE      8
#define OVERLAYFS_MAGIC  0x794c7630
#define CAP_DAC_OVERRIDE 1
#define NANOSECONDS      1000000000ULL
#define NANOSECONDS_MASK 0x3fffffff /* since 6.13 a flag is beside them */

#define TIME(seconds, nanoseconds) ((seconds)*NANOSECONDS + ((nanoseconds)&NANOSECONDS_MASK))

/* When an inode changed, in nanoseconds since 1970: kernel commits 13bc24457850 (6.6) and 3aa63a569c64 (6.11) renamed
 * it.
 */
static __always_inline __u64 ctime_of(struct inode *inode)
{
	struct inode___before_6_11 *named = (void *)inode;
	struct inode___before_6_6 *older = (void *)inode;

	if (bpf_core_field_exists(inode->i_ctime_sec))
		return TIME(BPF_CORE_READ(inode, i_ctime_sec), BPF_CORE_READ(inode, i_ctime_nsec));
	if (bpf_core_field_exists(named->__i_ctime))
		return TIME(BPF_CORE_READ(named, __i_ctime.tv_sec), BPF_CORE_READ(named, __i_ctime.tv_nsec));
	return TIME(BPF_CORE_READ(older, i_ctime.tv_sec), BPF_CORE_READ(older, i_ctime.tv_nsec));
}

/* When a file was written, as ctime_of(). */
static __always_inline __u64 mtime_of(struct inode *inode)
{
	struct inode___before_6_11 *named = (void *)inode;
	struct inode___before_6_6 *older = (void *)inode;

	if (bpf_core_field_exists(inode->i_mtime_sec))
		return TIME(BPF_CORE_READ(inode, i_mtime_sec), BPF_CORE_READ(inode, i_mtime_nsec));
	if (bpf_core_field_exists(named->__i_mtime))
		return TIME(BPF_CORE_READ(named, __i_mtime.tv_sec), BPF_CORE_READ(named, __i_mtime.tv_nsec));
	return TIME(BPF_CORE_READ(older, i_mtime.tv_sec), BPF_CORE_READ(older, i_mtime.tv_nsec));
}

/* Whether a file lies in the layer of an overlay that can be written. Behind the inode of the overlay's own struct is
 * its directory entry in that layer: struct ovl_inode of fs/overlayfs/ovl_entry.h, which is a module's. */
static __always_inline bool is_in_upper_layer(struct inode *inode)
{
	void *upper = NULL;

	if (BPF_CORE_READ(inode, i_sb, s_magic) != OVERLAYFS_MAGIC)
		return false;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	return upper;
}

/* Whether a file is one of memfd_create(2): it is in no directory, and its name says so. */
static __always_inline bool is_memfd(struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	__u64 name = 0;

	if (BPF_CORE_READ(dentry, d_parent) != dentry)
		return false;
	bpf_probe_read_kernel(&name, sizeof("memfd:") - 1, BPF_CORE_READ(dentry, d_name.name));
	return name == 0x3a64666d656d; /* "memfd:" */
}

/* Whether a process may write a file, by its mode; supplementary groups are not looked at. */
static __always_inline bool is_writable(const struct event *event, struct inode *inode, const struct cred *cred)
{
	__u16 mode = BPF_CORE_READ(inode, i_mode);

	if (BPF_CORE_READ(inode, i_sb, s_flags) & SB_RDONLY || BPF_CORE_READ(inode, i_flags) & S_IMMUTABLE)
		return false;
	if (event->cap_effective >> CAP_DAC_OVERRIDE & 1 || mode & S_IWOTH)
		return true;
	return (mode & S_IWUSR && BPF_CORE_READ(inode, i_uid.val) == BPF_CORE_READ(cred, fsuid.val)) ||
	       (mode & S_IWGRP && BPF_CORE_READ(inode, i_gid.val) == BPF_CORE_READ(cred, fsgid.val));
}

/* Read what is known of the program's file. */
static __always_inline void read_program(struct event *event, struct task_struct *task, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	event->exe_ino = BPF_CORE_READ(inode, i_ino);
	event->exe_ctime = ctime_of(inode);
	event->exe_mtime = mtime_of(inode);
	event->exe_upper_layer = is_in_upper_layer(inode);
	event->exe_memfd = is_memfd(file);
	event->exe_writable = is_writable(event, inode, TASK_READ(task, cred));
}
