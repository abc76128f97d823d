// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 256
#include "filter.h"
#include "files.h"

enum file_operation {
	OPERATION_READ,
	OPERATION_WRITE,
	OPERATION_OPEN,
	OPERATION_SYNC,
};
typedef enum file_operation gadget_operation_words;
typedef enum file_operation gadget_operation_set;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("what took so long; sync is fsync(2) and its like");
	gadget_errno error DOC("why it failed; none if it succeeded");
	gadget_duration latency DOC("how long the call took, in nanoseconds");
	gadget_some_size bytes DOC("how many bytes were read or written");
	gadget_word type DOC("type of the file system; none if an open failed");
	gadget_absolute_path path DOC("the file, as the kernel names it; if an open failed the path from the root");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(gadget_duration, min, 10000000, "only what took at least so long, such as 1ms");
PARAM(gadget_operation_set, ops, 0, "only these operations");

/* When a thread began its call, 0 if it is in none of ours. Each thread has its own, so nobody can take another's room.
 * agent/bpf/features.py knows what a kernel lacks that refuses a map of such a name. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} calls_of_tasks SEC(".maps");

#define OPENS (OPERATION_OPEN + 1)
#define SYNCS (OPERATION_SYNC + 1)

/* By number: one more than the OPERATION_… */
CALLS(__u8) = {
	READING_CALLS(OPERATION_READ + 1),
	WRITING_CALLS(OPERATION_WRITE + 1),
	KNOWN_BOTH(OPENAT, OPENS),
	KNOWN_BOTH(OPENAT2, OPENS),
	KNOWN_32(OPEN, OPENS),
	KNOWN_32(CREAT, OPENS),
	KNOWN_BOTH(FSYNC, SYNCS),
	KNOWN_BOTH(FDATASYNC, SYNCS),
	KNOWN(SYNC_FILE_RANGE, SYNCS),
#if defined(__TARGET_ARCH_x86)
	KNOWN(OPEN, OPENS),
	KNOWN(CREAT, OPENS),
	KNOWN_32(SYNC_FILE_RANGE, SYNCS),
#elif defined(__TARGET_ARCH_arm64)
	KNOWN_32(SYNC_FILE_RANGE2, SYNCS),
#endif
};

/* What a call does: one more than the OPERATION_…, 0 if it is none of ours or was not chosen. */
static __always_inline __u32 find_known(__u32 number)
{
	__u32 known = known_call(number);

	return known && (!param_ops || param_ops >> (known - 1) & 1) ? known : 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(entered, struct pt_regs *regs)
{
	__u64 id = bpf_get_current_pid_tgid(), *began;
	struct gadget_header header;

	if (!find_known(syscall_number(regs)) || !process_chosen(id >> 32, bpf_get_current_uid_gid()))
		return 0;
	began = bpf_task_storage_get(&calls_of_tasks, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (began)
		*began = bpf_ktime_get_boot_ns();
	else if (gadget_fill(&header))
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
	return 0;
}

/* The path of an open that failed. */
static __always_inline gadget_full_path read_asked(struct event *event, struct pt_regs *regs, __u32 number)
{
	struct syscall_args args = syscall_arguments(regs, number);
	int fd = args.a0;
	__u64 from = args.a1;

	switch (number) {
#if defined(__TARGET_ARCH_x86)
	case SYSCALL_OPEN:
	case SYSCALL_CREAT:
#endif
	case SYSCALL_COMPAT_OPEN:
	case SYSCALL_COMPAT_CREAT:
		fd = AT_FDCWD;
		from = args.a0;
	}
	return text_full_path(&event->header, event->text, fd, from, event->error);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs), known = find_known(number);
	struct file *file = NULL;
	struct event *event;
	bool in_vain;
	__u64 *began, since;

	if (!known)
		return 0;
	began = bpf_task_storage_get(&calls_of_tasks, bpf_get_current_task_btf(), NULL, 0);
	if (!began || !*began)
		return 0; /* begun before the stream */
	since = *began;
	*began = 0;
	if (bpf_ktime_get_boot_ns() - since < param_min)
		return 0;
	in_vain = known == OPENS && result < 0;
	if (!in_vain) {
		file = file_of(current_task(), known == OPENS ? result : syscall_arguments(regs, number).a0);
		if (!file || !is_stored(file))
			return 0;
	}
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->operation = known - 1;
	event->error = syscall_error(result);
	event->latency = event->header.timestamp - since;
	event->bytes = result > 0 && known <= OPERATION_WRITE + 1 ? result : 0;
	event->type = (gadget_word){};
	if (in_vain) {
		event->path = read_asked(event, regs, number);
	} else {
		event->path.directory = (gadget_path){.as_given = true}; /* none */
		event->path.path =
			text_path(&event->header, event->text, __builtin_preserve_access_index(&file->f_path));
		event->type = text_file_system(&event->header, event->text, BPF_CORE_READ(file, f_inode, i_sb));
	}
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
