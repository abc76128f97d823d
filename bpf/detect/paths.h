/* SPDX-License-Identifier: GPL-2.0 */
/* Paths of processes, and those that calls are given. */
#pragma once

#include "known_calls.h"

/* A path in a register: what functions that the verifier looks at only once return. */
union packed_path {
	__u64 word;
	gadget_path path;
};

/* Append a path of the kernel's to the event of a program. */
__noinline __u64 add_path(__u32 program, __u64 path)
{
	union packed_path packed = {.path.as_given = true}; /* none */
	struct event *event = bpf_map_lookup_elem(&scratch, &program);

	if (event && path)
		packed.path = text_path(&event->header, event->text, (struct path *)path);
	return packed.word;
}

static __always_inline gadget_path path_of_program(__u32 program, struct task_struct *task)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file); /* a number: no function takes a pointer for one */
	union packed_path packed = {.word = add_path(program, file ? (__u64)&file->f_path : 0)};

	return packed.path;
}

static __always_inline gadget_path path_of_directory(__u32 program, struct task_struct *task)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	union packed_path packed = {.word = add_path(program, fs ? (__u64)&fs->pwd : 0)};

	return packed.path;
}

#define PATH_OLD     0
#define PATH_TO      1
#define PATH_IN_ROOT 2

/* Read a path that a call was given, and what it is relative to. */
__noinline int read_path(int fd, __u64 from, __u32 which)
{
	__u32 program = PROGRAM_CALL;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	gadget_full_path full;

	if (!event)
		return 0;
	full = text_path_in(&event->header, event->text, fd, from, syscall_error(event->result), which & PATH_IN_ROOT);
	if (which & PATH_TO)
		event->to = full;
	else
		event->path = full;
	return 0;
}

static __always_inline void read_paths(struct event *event, struct known known, bool in_root)
{
	if (known.path.directory != known.path.path)
		read_path(argument(event, known.path.directory), argument(event, known.path.path),
			  in_root ? PATH_IN_ROOT : PATH_OLD);
	if (known.to.directory == NONE)
		event->to.path = text_path_as_given(&event->header, event->text, argument(event, known.to.path));
	else if (known.to.directory != known.to.path)
		read_path(argument(event, known.to.directory), argument(event, known.to.path), PATH_TO);
}
