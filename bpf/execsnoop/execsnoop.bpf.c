// SPDX-License-Identifier: GPL-2.0
#include "filter.h"
#include "calls.h"
#include "text.h"

#define ARGS_MAX  4096 /* bytes of argument text kept */
#define ARG_COUNT 256  /* arguments that are walked for a failed exec: its list is not in one piece */

enum { PROGRAM_SUCCESS, PROGRAM_FAILURE, PROGRAMS };

struct event {
	struct gadget_header header;
	gadget_pid ppid DOC("process id of the parent, as the host sees it");
	gadget_comm pcomm DOC("name of the parent");
	gadget_errno error DOC("why the exec failed; none if it succeeded");
	bool args_truncated DOC("there were more arguments than args shows: over 4 KiB, or not in memory");
	gadget_args args DOC("the arguments, the program's own name first");
	gadget_path exe DOC("path of the program that runs; of a failed exec, as it was asked for");
	gadget_path cwd DOC("working directory, if --cwd asks for it");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(PROGRAMS);

PARAM(bool, failed, true, "also show programs that could not be started");
PARAM(bool, cwd, false, "also read the working directory");

static __always_inline struct event *begin(__u32 program)
{
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	struct task_struct *task = current_task();

	if (!event || !gadget_fill(&event->header))
		return NULL;
	event->ppid = BPF_CORE_READ(task, real_parent, tgid);
	__builtin_memset(event->pcomm, 0, sizeof(event->pcomm)); /* an earlier event may have left a longer name */
	BPF_CORE_READ_STR_INTO(&event->pcomm, task, real_parent, comm);
	return event;
}

static __always_inline void finish(struct event *event)
{
	struct task_struct *task = current_task();

	event->cwd = (gadget_path){.as_given = true};
	if (param_cwd)
		event->cwd = text_path(&event->header, event->text, working_directory(task));
	gadget_submit(event);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_success, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct event *event = begin(PROGRAM_SUCCESS);
	struct mm_struct *mm = task->mm;

	if (!event)
		return 0;
	event->header.tid = old_pid; /* the exec-ing thread has taken its leader's id by now */
	event->error = 0;
	event->args = text_arguments(&event->header, event->text, mm, ARGS_MAX, &event->args_truncated);
	event->exe = text_path(&event->header, event->text, __builtin_preserve_access_index(&mm->exe_file->f_path));
	finish(event);
	return 0;
}

#ifdef SCHEDULE_LATER
#define each_round(i, count) rounds(i, count)
#else
#define each_round(i, count) for (i = 0; i < count; i++)
#endif

/* How reading a list of arguments ended. */
enum list_end { LIST_WHOLE, LIST_LONGER, LIST_NOT_IN_MEMORY, LIST_OF_NEW_PROGRAM };

static __always_inline enum list_end read_argv(struct event *event, __u64 argv, bool compat)
{
	__u64 width = compat ? 4 : 8;
	int i = 0;

	each_round(i, ARG_COUNT)
	{
		__u32 left = ARGS_MAX - event->header.text_length;
		__u64 arg = 0;
		__u32 length;
		char last;

		if (bpf_probe_read_user(&arg, width, (void *)(argv + i * width)))
			return LIST_NOT_IN_MEMORY;
		if (!arg)
			return LIST_WHOLE;
		if (!left || left > ARGS_MAX)
			return LIST_LONGER;
		length = text_user_string(&event->header, event->text, arg, left);
		if (!length || bpf_probe_read_user(&last, 1, (void *)(arg + length - 1)))
			return LIST_NOT_IN_MEMORY;
		if (last) {
			event->header.text_length--; /* drop the NUL at the cut */
			return LIST_LONGER;
		}
	}
	return LIST_LONGER;
}

/* Which argument is the path, by a number from 1; the list of arguments follows it. */
CALLS(__u8) = {KNOWN_BOTH(EXECVE, 1), KNOWN_BOTH(EXECVEAT, 2)};

/* A failed exec. The caller's memory is still there, and its registers hold the call's arguments. */
struct asked {
	__u64 path, argv;
	int error;
	bool compat;
};

/* Read the arguments of the call. False if the call was not an exec that failed. */
static __always_inline bool read_asked(struct pt_regs *regs, long result, struct asked *asked)
{
	__u32 number = syscall_number(regs), path = known_call(number);
	struct syscall_args args;

	if (!param_failed || !path)
		return false;
	args = syscall_arguments(regs, number);
	asked->path = path == 1 ? args.a0 : args.a1;
	asked->argv = path == 1 ? args.a1 : args.a2;
	result = syscall_result(regs, number, result);
	if (result >= 0)
		return false;
	asked->error = syscall_error(result);
	asked->compat = number & COMPAT_FLAG;
	return true;
}

/* Whether the exec failed when the old program was gone already. The kernel ends the process then. It has not finished
 * setting up the new program, so it does not know yet where the arguments end. */
static __always_inline bool is_between_programs(void)
{
	struct task_struct *task = current_task();
	struct mm_struct *mm = TASK_READ(task, mm);

	return mm && !BPF_CORE_READ(mm, arg_end);
}

/* The old program is gone, and what the registers point to with it. Read the file of the new program, and its first
 * argument if the kernel has copied that. */
static __always_inline void read_new_program(struct event *event)
{
	struct task_struct *task = current_task();
	struct mm_struct *mm = TASK_READ(task, mm);
	struct file *file = BPF_CORE_READ(mm, exe_file);

	text_user_string(&event->header, event->text, BPF_CORE_READ(mm, arg_start), ARGS_MAX);
	event->args = (gadget_args){.length = event->header.text_length};
	event->exe = text_path(&event->header, event->text, __builtin_preserve_access_index(&file->f_path));
}

static __always_inline void finish_failure(struct event *event, const struct asked *asked, enum list_end end)
{
	event->error = asked->error;
	event->args_truncated = end != LIST_WHOLE;
	if (end == LIST_OF_NEW_PROGRAM) {
		read_new_program(event);
	} else {
		event->args = (gadget_args){.length = event->header.text_length};
		event->exe = text_path_as_given(&event->header, event->text, asked->path);
	}
	finish(event);
}

static __always_inline enum list_end read_list(struct event *event, const struct asked *asked)
{
	return is_between_programs() ? LIST_OF_NEW_PROGRAM : read_argv(event, asked->argv, asked->compat);
}

#ifdef SCHEDULE_LATER
/* A failed exec whose arguments are not all in memory. It waits here until its thread may wait for pages. */
struct later {
	struct bpf_task_work work;
	struct asked asked;
	__u64 timestamp;
};

/* Waiting execs, by thread. A process can delay its pages as long as it likes. When this map is full, an event shows
 * the arguments that are in memory. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct later);
} unread SEC(".maps");

#define CHUNK 128 /* bytes of an argument that are read at once; they only pass through the stack */

/* Make the kernel bring into memory what read_argv() will read. */
static __always_inline void touch_argv(const struct asked *asked)
{
	__u64 arg = 0, argv = asked->argv;
	__u32 left = ARGS_MAX + CHUNK;
	char chunk[CHUNK];
	int i;

	rounds(i, ARG_COUNT + ARGS_MAX / (CHUNK - 1))
	{
		int length;

		if (!arg) {
			if (bpf_copy_from_user(&arg, asked->compat ? 4 : 8, (void *)argv) || !arg)
				return;
			argv += asked->compat ? 4 : 8;
		}
		length = bpf_copy_from_user_str(chunk, sizeof(chunk), (void *)arg, 0);
		if (length <= 0 || length > left)
			return;
		left -= length;
		arg = length == sizeof(chunk) ? arg + sizeof(chunk) - 1 : 0; /* the last byte is always a NUL */
	}
}

/* Runs in the thread whose exec failed, before it goes on. The thread may sleep here, and others run on this CPU then.
 */
static int read_later(struct bpf_map *map, void *key, void *value)
{
	struct later *later = value;
	struct asked asked = later->asked;
	__u64 timestamp = later->timestamp;
	struct event *event;

	touch_argv(&asked);
	bpf_preempt_disable(); /* the scratch event belongs to the CPU */
	event = begin(PROGRAM_FAILURE);
	if (event) {
		event->header.timestamp = timestamp;
		finish_failure(event, &asked, read_list(event, &asked));
	}
	bpf_preempt_enable();
	bpf_map_delete_elem(map, key);
	return 0;
}

static __always_inline struct later *remember(const struct asked *asked, __u64 timestamp)
{
	struct later fresh = {.asked = *asked, .timestamp = timestamp};
	__u64 thread = bpf_get_current_pid_tgid();

	if (bpf_map_update_elem(&unread, &thread, &fresh, BPF_NOEXIST))
		return NULL;
	return bpf_map_lookup_elem(&unread, &thread);
}

static __always_inline void forget(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&unread, &thread);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(exec_failure, struct pt_regs *regs, long result)
{
	struct asked asked;
	struct later *later;
	struct event *event;
	enum list_end end;

	if (!read_asked(regs, result, &asked))
		return 0;
	event = begin(PROGRAM_FAILURE);
	if (!event)
		return 0;
	end = read_list(event, &asked);
	if (end == LIST_NOT_IN_MEMORY && (later = remember(&asked, event->header.timestamp))) {
		if (!SCHEDULE_LATER(&later->work)) {
			gadget_wipe(event);
			return 0;
		}
		forget();
	}
	finish_failure(event, &asked, end);
	return 0;
}
#else
SEC("tp_btf/sys_exit")
int BPF_PROG(exec_failure, struct pt_regs *regs, long result)
{
	struct asked asked;
	struct event *event;

	if (!read_asked(regs, result, &asked))
		return 0;
	event = begin(PROGRAM_FAILURE);
	if (event)
		finish_failure(event, &asked, read_list(event, &asked));
	return 0;
}
#endif

char LICENSE[] SEC("license") = "GPL";
