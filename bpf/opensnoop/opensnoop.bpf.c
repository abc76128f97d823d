// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 128 /* enough for nearly all paths: at 100,000 opens a second the size of a record counts */
#include <asm/errno.h>

#include "filter.h"
#include "calls.h"
#include "opens.h"
#include "text.h"

struct event {
	struct gadget_header header;
	__s32 fd DOC("the new file descriptor; -1 if the open failed");
	gadget_errno error DOC("why the open failed, EPERM also if seccomp ended it by SIGSYS; none if it succeeded");
	gadget_open_flags flags DOC("how it was opened");
	gadget_mode mode DOC("permissions asked for a new file");
	gadget_path path DOC("the path as it was passed; of open_by_handle_at that of the file");
	gadget_full_path full_path DOC("the path from the root, if --full-path asks for it");
	gadget_path file DOC("the file that was opened, as the kernel names it, if --file asks for it");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only opens that failed");
PARAM(bool, full_path, false, "also find the directory that a path is relative to, and the root that a chroot has");
PARAM(bool, file, false, "also show the file that was opened, whatever its path in memory says by then");
PARAM(gadget_string, prefix, "", "only paths that begin with this, as they were passed");

/* What a call is given: a directory and a path, a path, struct open_how, a path and a mode, a handle. */
enum { GIVEN_AT = 1, GIVEN_PATH, GIVEN_HOW, GIVEN_MODE, GIVEN_HANDLE };

CALLS(__u8) = {
	KNOWN_BOTH(OPENAT, GIVEN_AT), KNOWN_BOTH(OPENAT2, GIVEN_HOW), KNOWN_BOTH(OPEN_BY_HANDLE_AT, GIVEN_HANDLE),
	KNOWN_32(OPEN, GIVEN_PATH),   KNOWN_32(CREAT, GIVEN_MODE),
#if defined(__TARGET_ARCH_x86)
	KNOWN(OPEN, GIVEN_PATH),      KNOWN(CREAT, GIVEN_MODE),
#endif
};

struct open {
	int directory;
	__u64 path;
	__u32 flags, mode;
	bool in_root;
	bool by_handle; /* not by a path */
};

/* Read what an open asked for. False if the call was not an open. */
static __always_inline bool read_open(struct pt_regs *regs, __u32 number, struct open *open)
{
	struct syscall_args args;
	__u64 how[3] = {}; /* struct open_how: flags, mode, resolve */

	switch (known_call(number)) {
	case GIVEN_AT:
		args = syscall_arguments(regs, number);
		*open = (struct open){args.a0, args.a1, args.a2, args.a3, false, false};
		break;
	case GIVEN_PATH:
		args = syscall_arguments(regs, number);
		*open = (struct open){AT_FDCWD, args.a0, args.a1, args.a2, false, false};
		break;
	case GIVEN_HOW:
		args = syscall_arguments(regs, number);
		bpf_probe_read_user(how, sizeof(how), (void *)args.a2);
		*open = (struct open){args.a0, args.a1, how[0], how[1], how[2] & RESOLVE_IN_ROOT, false};
		break;
	case GIVEN_MODE:
		args = syscall_arguments(regs, number);
		*open = (struct open){AT_FDCWD, args.a0, O_CREAT | O_WRONLY | O_TRUNC, args.a1, false, false};
		break;
	case GIVEN_HANDLE:
		args = syscall_arguments(regs, number);
		*open = (struct open){.flags = args.a2, .by_handle = true};
		break;
	default:
		return false;
	}
	open->flags = common_flags(open->flags);
	if (open->by_handle || !(open->flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))))
		open->mode = 0; /* the register holds whatever it held before */
	return true;
}

static __always_inline bool has_prefix(const char *text)
{
	for (int i = 0; i < sizeof(param_prefix) && param_prefix[i]; i++)
		if (text[i] != param_prefix[i])
			return false;
	return true;
}

/* The directory that an open's path is relative to. NULL if the process named a descriptor that is not open. */
static __always_inline struct path *directory_of(const struct open *open, bool absolute)
{
	struct task_struct *task = current_task();
	int fd = open->directory; /* in a variable: bpf_core_read would take the member for a kernel's */

	if (absolute && !open->in_root)
		return root_directory(task);
	if (fd == AT_FDCWD)
		return working_directory(task);
	return path_of(task, fd);
}

static __always_inline void read_full_path(struct event *event, const struct open *open)
{
	struct path *directory = directory_of(open, event->text[0] == '/');

	event->full_path.path = event->path;
	if (directory && !open->by_handle)
		event->full_path.directory = text_path(&event->header, event->text, directory);
}

static __always_inline void read_file(struct event *event, const struct open *open, int fd)
{
	struct path *file = path_of(current_task(), fd);
	gadget_path path;

	if (!file)
		return;
	path = text_path(&event->header, event->text, file);
	if (open->by_handle)
		event->path = path;
	if (param_file)
		event->file = path;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(opened, struct pt_regs *regs, long result)
{
	struct event *event;
	struct open open;
	__u32 zero = 0, number = syscall_number(regs);

	if (!read_open(regs, number, &open))
		return 0;
	result = syscall_result(regs, number, result);
	if (param_failed && result >= 0)
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->fd = result < 0 ? -1 : result;
	event->error = syscall_error(result);
	event->flags = open.flags;
	event->mode = open.mode;
	event->file = event->path = (gadget_path){.as_given = true}; /* none */
	if (!open.by_handle)
		event->path = text_path_as_given(&event->header, event->text, open.path);
	if (param_prefix[0] && !has_prefix(event->text)) {
		gadget_wipe(event);
		return 0;
	}
	if ((param_file || open.by_handle) && result >= 0)
		read_file(event, &open, result);
	event->full_path = (gadget_full_path){.directory.as_given = true, .path.as_given = true};
	if (param_full_path)
		read_full_path(event, &open);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
