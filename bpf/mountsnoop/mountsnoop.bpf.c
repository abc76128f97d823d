// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 128
#include "calls.h"
#include "filter.h"
#include "text.h"

#define SOURCE_MAX 4096 /* bytes of a source that are kept, as of a path */
#define TYPE_MAX   64

enum mount_operation {
	OPERATION_MOUNT,
	OPERATION_UMOUNT,
	OPERATION_MOVE_MOUNT,
	OPERATION_FSOPEN,
	OPERATION_FSMOUNT,
	OPERATION_OPEN_TREE,
};
typedef enum mount_operation gadget_operation_words;

/* mount(2); flags of the other calls that mean the same are brought to these, those of umount2(2) to bits of our own */
enum mount_flag {
	MS_RDONLY = 1,
	MS_NOSUID = 2,
	MS_NODEV = 4,
	MS_NOEXEC = 8,
	MS_SYNCHRONOUS = 16,
	MS_REMOUNT = 32,
	MS_MANDLOCK = 64,
	MS_DIRSYNC = 128,
	MS_NOSYMFOLLOW = 256,
	MS_NOATIME = 1024,
	MS_NODIRATIME = 2048,
	MS_BIND = 4096,
	MS_MOVE = 8192,
	MS_REC = 16384,
	MS_SILENT = 32768,
	MS_POSIXACL = 1 << 16,
	MS_UNBINDABLE = 1 << 17,
	MS_PRIVATE = 1 << 18,
	MS_SLAVE = 1 << 19,
	MS_SHARED = 1 << 20,
	MS_RELATIME = 1 << 21,
	MS_I_VERSION = 1 << 23,
	MS_STRICTATIME = 1 << 24,
	MS_LAZYTIME = 1 << 25,
	MNT_FORCE = 1 << 26,
	MNT_DETACH = 1 << 27,
	MNT_EXPIRE = 1 << 28,
	UMOUNT_NOFOLLOW = 1 << 29,
};
typedef enum mount_flag gadget_mount_flags;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("the call");
	gadget_errno error DOC("why it failed; none if it succeeded");
	gadget_duration latency DOC("how long the call took, in nanoseconds; none if it began before the stream");
	gadget_mount_flags
		flags DOC("its flags; those of calls other than mount(2) by the names that mount(2) has for them");
	gadget_path source DOC("what was to be mounted: a device, a path or any name");
	gadget_path target DOC("where; relative paths as they were passed");
	gadget_word type DOC("type of the file system");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only calls that failed");

/* When a thread began its call. A call that gives way to newer ones has no latency. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} began SEC(".maps");

struct asked {
	enum mount_operation operation;
	__u64 source, target, type;
	__u32 flags;
};

/* MOUNT_ATTR_… of linux/mount.h */
static __always_inline __u32 flags_of_attributes(__u32 given)
{
	return (given & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)) | (given & 0x10 ? MS_NOATIME : 0) |
	       (given & 0x20 ? MS_STRICTATIME : 0) | (given & 0x80 ? MS_NODIRATIME : 0) |
	       (given & 0x200000 ? MS_NOSYMFOLLOW : 0);
}

#define MS_MGC_MASK 0xffff0000 /* a magic number that old programs pass with the flags */
#define MS_MGC_VAL  0xc0ed0000

static __always_inline __u32 flags_of_mount(__u32 given)
{
	return (given & MS_MGC_MASK) == MS_MGC_VAL ? given & ~MS_MGC_MASK : given & (MNT_FORCE - 1);
}

/* By number: one more than the OPERATION_… */
CALLS(__u8) = {
	KNOWN_BOTH(MOUNT, OPERATION_MOUNT + 1),           KNOWN_BOTH(UMOUNT2, OPERATION_UMOUNT + 1),
	KNOWN_BOTH(MOVE_MOUNT, OPERATION_MOVE_MOUNT + 1), KNOWN_BOTH(FSOPEN, OPERATION_FSOPEN + 1),
	KNOWN_BOTH(FSMOUNT, OPERATION_FSMOUNT + 1),       KNOWN_BOTH(OPEN_TREE, OPERATION_OPEN_TREE + 1),
};

static __always_inline struct asked read_asked(struct pt_regs *regs, __u32 number, enum mount_operation operation)
{
	struct syscall_args args = syscall_arguments(regs, number);

	switch (operation) {
	case OPERATION_MOUNT:
		return (struct asked){operation, args.a0, args.a1, args.a2, flags_of_mount(args.a3)};
	case OPERATION_UMOUNT:
		return (struct asked){operation, 0, args.a0, 0, (args.a1 & 15) * MNT_FORCE};
	case OPERATION_MOVE_MOUNT:
		return (struct asked){operation, args.a1, args.a3, 0, 0};
	case OPERATION_FSOPEN:
		return (struct asked){operation, 0, 0, args.a0, 0};
	case OPERATION_FSMOUNT:
		return (struct asked){operation, 0, 0, 0, flags_of_attributes(args.a2)};
	default: /* open_tree(2): OPEN_TREE_CLONE, AT_RECURSIVE */
		return (struct asked){OPERATION_OPEN_TREE, args.a1, 0, 0,
				      (args.a2 & 1 ? MS_BIND : 0) | (args.a2 & 0x8000 ? MS_REC : 0)};
	}
}

SEC("tp_btf/sys_enter")
int BPF_PROG(entered, struct pt_regs *regs)
{
	__u64 thread, now;

	if (!known_call(syscall_number(regs)))
		return 0;
	thread = bpf_get_current_pid_tgid();
	now = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&began, &thread, &now, BPF_ANY);
	return 0;
}

/* When the call of a thread began that has just ended, 0 if it is not known. Forget it: a call that seccomp denies has
 * no beginning, and would take that of an earlier one. */
static __always_inline __u64 take_beginning(void)
{
	__u64 thread = bpf_get_current_pid_tgid(), *since = bpf_map_lookup_elem(&began, &thread), at = 0;

	if (since) {
		at = *since;
		bpf_map_delete_elem(&began, &thread);
	}
	return at;
}

static __always_inline gadget_path read_text(struct event *event, __u64 from, __u32 limit)
{
	gadget_path slice = {.offset = event->header.text_length, .as_given = true};
	__u32 length = from ? text_user_string(&event->header, event->text, from, limit) : 0;

	slice.length = length ? length - 1 : 0;
	return slice;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs), known = known_call(number);
	struct event *event;
	struct asked asked;
	gadget_path type;
	__u64 since;

	if (!known)
		return 0;
	since = take_beginning();
	result = syscall_result(regs, number, result);
	if (param_failed && result >= 0)
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	asked = read_asked(regs, number, known - 1);
	event->latency = since ? event->header.timestamp - since : DURATION_UNKNOWN;
	event->operation = asked.operation;
	event->error = syscall_error(result);
	event->flags = asked.flags;
	event->source = read_text(event, asked.source, SOURCE_MAX);
	event->target = read_text(event, asked.target, SOURCE_MAX);
	type = read_text(event, asked.type, TYPE_MAX);
	event->type = (gadget_word){type.offset, type.length};
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
