// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 128
#include "calls.h"
#include "filter.h"
#include "text.h"

#define AT_REMOVEDIR 0x200
#define XATTR_BYTES  256 /* XATTR_NAME_MAX and a NUL */
#define NO_ID        ((__u32)-1)

enum file_operation {
	OPERATION_UNLINK,
	OPERATION_RENAME,
	OPERATION_LINK,
	OPERATION_SYMLINK,
	OPERATION_MKDIR,
	OPERATION_RMDIR,
	OPERATION_TRUNCATE,
	OPERATION_CHMOD,
	OPERATION_CHOWN,
	OPERATION_UTIMES,
	OPERATION_SETXATTR,
	OPERATION_REMOVEXATTR,
};
typedef enum file_operation gadget_operation_words;
typedef enum file_operation gadget_operation_set;

/* linux/fs.h */
enum rename_flag {
	RENAME_NOREPLACE = 1,
	RENAME_EXCHANGE = 2,
	RENAME_WHITEOUT = 4,
};
typedef enum rename_flag gadget_rename_flags;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("what was to be done");
	gadget_errno error DOC("why it failed, EPERM also if seccomp ended it by SIGSYS; none if it succeeded");
	gadget_rename_flags flags DOC("of rename: its flags");
	gadget_mode mode DOC("of chmod and mkdir: the permissions that were asked for");
	gadget_uid owner DOC("of chown: the new owner, as the process knows it; 4294967295 if it stays");
	gadget_gid group DOC("of chown: the new group, as the process knows it; 4294967295 if it stays");
	gadget_some_size size DOC("of truncate: the new size in bytes");
	gadget_absolute_path path DOC("the path from the root");
	gadget_full_path
		to DOC("of rename and link: the new path from the root; of symlink: where it leads, as it was passed");
	gadget_text attribute DOC("of setxattr and removexattr: name of the attribute");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only what failed");
PARAM(gadget_operation_set, ops, 0, "only these operations");

/* Which arguments of a call say what. The arguments of a call are ARGUMENTS; the two beyond a call's six are ours. */
#define ARGUMENTS 8
#define HERE      6 /* AT_FDCWD */
#define NONE      7 /* 0 */

/* A path, and the descriptor of the directory that it is relative to. Without a path it is the descriptor's own. */
struct place {
	__u8 directory, path;
};

enum more {
	MORE_NOTHING,
	MORE_FLAGS,
	MORE_MODE,
	MORE_IDS,
	MORE_SIZE,
	MORE_HALVES, /* of a size */
	MORE_ATTRIBUTE,
};

struct known {
	__u8 operation; /* one more than its OPERATION_… */
	struct place path, to;
	__u8 more, at;
};

#define CHANGES(known, call, does, ...) known(call, {OPERATION_##does + 1, __VA_ARGS__})
#define CHANGES_BOTH(call, ...)         CHANGES(KNOWN_BOTH, call, __VA_ARGS__)
/* arm64 has these only for 32-bit programs */
#if defined(__TARGET_ARCH_x86)
#define CHANGES_OLDER(call, ...) CHANGES(KNOWN_BOTH, call, __VA_ARGS__)
#define HALVES                   1
#elif defined(__TARGET_ARCH_arm64)
#define CHANGES_OLDER(call, ...) CHANGES(KNOWN_32, call, __VA_ARGS__)
#define HALVES                   2 /* ARM begins 64 bits at an even register */
#endif
#define CHANGES_32(call, ...) CHANGES(KNOWN_32, call, __VA_ARGS__)

CALLS(struct known) = {
	CHANGES_BOTH(UNLINKAT, UNLINK, {0, 1}, {}, MORE_FLAGS, 2),
	CHANGES_BOTH(RENAMEAT, RENAME, {0, 1}, {2, 3}, MORE_FLAGS, NONE),
	CHANGES_BOTH(RENAMEAT2, RENAME, {0, 1}, {2, 3}, MORE_FLAGS, 4),
	CHANGES_BOTH(LINKAT, LINK, {0, 1}, {2, 3}, 0, 0),
	CHANGES_BOTH(SYMLINKAT, SYMLINK, {1, 2}, {NONE, 0}, 0, 0),
	CHANGES_BOTH(MKDIRAT, MKDIR, {0, 1}, {}, MORE_MODE, 2),
	CHANGES_BOTH(TRUNCATE, TRUNCATE, {HERE, 0}, {}, MORE_SIZE, 1),
	CHANGES_BOTH(FTRUNCATE, TRUNCATE, {0, NONE}, {}, MORE_SIZE, 1),
	CHANGES_BOTH(FCHMOD, CHMOD, {0, NONE}, {}, MORE_MODE, 1),
	CHANGES_BOTH(FCHMODAT, CHMOD, {0, 1}, {}, MORE_MODE, 2),
	CHANGES_BOTH(FCHMODAT2, CHMOD, {0, 1}, {}, MORE_MODE, 2),
	CHANGES_BOTH(FCHOWN, CHOWN, {0, NONE}, {}, MORE_IDS, 1),
	CHANGES_BOTH(FCHOWNAT, CHOWN, {0, 1}, {}, MORE_IDS, 2),
	CHANGES_BOTH(UTIMENSAT, UTIMES, {0, 1}, {}, 0, 0),
	CHANGES_BOTH(SETXATTR, SETXATTR, {HERE, 0}, {}, MORE_ATTRIBUTE, 1),
	CHANGES_BOTH(LSETXATTR, SETXATTR, {HERE, 0}, {}, MORE_ATTRIBUTE, 1),
	CHANGES_BOTH(FSETXATTR, SETXATTR, {0, NONE}, {}, MORE_ATTRIBUTE, 1),
	CHANGES_BOTH(SETXATTRAT, SETXATTR, {0, 1}, {}, MORE_ATTRIBUTE, 3),
	CHANGES_BOTH(REMOVEXATTR, REMOVEXATTR, {HERE, 0}, {}, MORE_ATTRIBUTE, 1),
	CHANGES_BOTH(LREMOVEXATTR, REMOVEXATTR, {HERE, 0}, {}, MORE_ATTRIBUTE, 1),
	CHANGES_BOTH(FREMOVEXATTR, REMOVEXATTR, {0, NONE}, {}, MORE_ATTRIBUTE, 1),
	CHANGES_BOTH(REMOVEXATTRAT, REMOVEXATTR, {0, 1}, {}, MORE_ATTRIBUTE, 3),
	CHANGES_OLDER(UNLINK, UNLINK, {HERE, 0}, {}, 0, 0),
	CHANGES_OLDER(RENAME, RENAME, {HERE, 0}, {HERE, 1}, MORE_FLAGS, NONE),
	CHANGES_OLDER(LINK, LINK, {HERE, 0}, {HERE, 1}, 0, 0),
	CHANGES_OLDER(SYMLINK, SYMLINK, {HERE, 1}, {NONE, 0}, 0, 0),
	CHANGES_OLDER(MKDIR, MKDIR, {HERE, 0}, {}, MORE_MODE, 1),
	CHANGES_OLDER(RMDIR, RMDIR, {HERE, 0}, {}, 0, 0),
	CHANGES_OLDER(CHMOD, CHMOD, {HERE, 0}, {}, MORE_MODE, 1),
	CHANGES_OLDER(CHOWN, CHOWN, {HERE, 0}, {}, MORE_IDS, 1),
	CHANGES_OLDER(LCHOWN, CHOWN, {HERE, 0}, {}, MORE_IDS, 1),
	CHANGES_OLDER(UTIMES, UTIMES, {HERE, 0}, {}, 0, 0),
	CHANGES_OLDER(FUTIMESAT, UTIMES, {0, 1}, {}, 0, 0),
#if defined(__TARGET_ARCH_x86)
	CHANGES_BOTH(UTIME, UTIMES, {HERE, 0}, {}, 0, 0),
#endif
	CHANGES_32(CHOWN32, CHOWN, {HERE, 0}, {}, MORE_IDS, 1),
	CHANGES_32(LCHOWN32, CHOWN, {HERE, 0}, {}, MORE_IDS, 1),
	CHANGES_32(FCHOWN32, CHOWN, {0, NONE}, {}, MORE_IDS, 1),
	CHANGES_32(TRUNCATE64, TRUNCATE, {HERE, 0}, {}, MORE_HALVES, HALVES),
	CHANGES_32(FTRUNCATE64, TRUNCATE, {0, NONE}, {}, MORE_HALVES, HALVES),
	CHANGES_32(UTIMENSAT_TIME64, UTIMES, {0, 1}, {}, 0, 0),
};

struct arguments {
	__u64 of[ARGUMENTS];
};

/* The arguments of a call by their number, which the stack would not allow. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arguments);
} arguments SEC(".maps");

#define ARGUMENT(arguments, number) ((arguments)->of[(number) & (ARGUMENTS - 1)])

static __always_inline struct arguments *read_arguments(struct pt_regs *regs, __u32 number)
{
	struct syscall_args args = syscall_arguments(regs, number);
	struct arguments *given;
	__u32 zero = 0;

	given = bpf_map_lookup_elem(&arguments, &zero);
	if (given)
		*given = (struct arguments){{args.a0, args.a1, args.a2, args.a3, args.a4, args.a5, AT_FDCWD, 0}};
	return given;
}

static __always_inline void read_more(struct event *event, const struct arguments *given, struct known known)
{
	__u64 first = ARGUMENT(given, known.at), second = ARGUMENT(given, known.at + 1);

	event->flags = event->mode = event->size = 0;
	event->owner = event->group = NO_ID;
	event->attribute = (gadget_text){};
	switch (known.more) {
	case MORE_FLAGS:
		if (known.operation - 1 == OPERATION_RENAME)
			event->flags = first;
		break;
	case MORE_MODE:
		event->mode = first & 07777;
		break;
	case MORE_IDS:
		event->owner = first;
		event->group = second;
		break;
	case MORE_SIZE:
		event->size = first;
		break;
	case MORE_HALVES:
		event->size = (__u32)first | second << 32;
		break;
	}
}

/* A path that a call was given. */
static __always_inline gadget_full_path read_path(struct event *event, const struct arguments *given,
						  struct place place)
{
	__u64 from = ARGUMENT(given, place.path);

	if (place.directory == NONE)
		return (gadget_full_path){.directory.as_given = true,
					  .path = text_path_as_given(&event->header, event->text, from)};
	return text_full_path(&event->header, event->text, ARGUMENT(given, place.directory), from, event->error);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs), operation, length;
	struct known known = known_call(number);
	struct arguments *given;
	struct event *event;

	if (!known.operation || (param_failed && !result))
		return 0;
	given = read_arguments(regs, number);
	if (!given)
		return 0;
	operation = known.operation - 1;
	if (operation == OPERATION_UNLINK && known.more == MORE_FLAGS && ARGUMENT(given, known.at) & AT_REMOVEDIR)
		operation = OPERATION_RMDIR;
	if (param_ops && !(param_ops >> operation & 1))
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->operation = operation;
	/* all of them return 0 or an error; anything else is what a register held when seccomp trapped the call */
	event->error = result > 0 || result == AT_FDCWD ? EPERM : syscall_error(result);
	read_more(event, given, known);
	event->path = read_path(event, given, known.path);
	event->to = (gadget_full_path){.directory.as_given = true, .path.as_given = true}; /* none */
	if (known.to.path != known.to.directory)
		event->to = read_path(event, given, known.to);
	if (known.more == MORE_ATTRIBUTE) {
		event->attribute.offset = event->header.text_length;
		length = text_user_string(&event->header, event->text, ARGUMENT(given, known.at), XATTR_BYTES);
		event->attribute.length = length ? length - 1 : 0;
	}
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
