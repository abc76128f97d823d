// SPDX-License-Identifier: GPL-2.0
#include "filter.h"
#include "syscalls.h"
#include "text.h"

#define ARGS_MAX  4096 /* bytes of argument text kept */
#define ARG_COUNT 256  /* arguments walked for a failed exec, whose list is not in one piece */

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
	__builtin_memset(event->pcomm, 0, sizeof(event->pcomm)); /* an event before may have left a longer one */
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
	__u64 start, length;

	if (!event)
		return 0;
	event->header.tid = old_pid; /* the exec-ing thread has taken its leader's id by now */
	event->error = 0;

	/* setup_arg_pages and copy_strings have laid all arguments out in one piece */
	start = mm->arg_start;
	length = mm->arg_end - start;
	event->args_truncated = length > ARGS_MAX;
	if (length > ARGS_MAX)
		length = ARGS_MAX;
	if (bpf_probe_read_user(event->text, length, (void *)start)) {
		event->args_truncated = true;
		length = 0;
	}
	event->args = (gadget_args){.length = length};
	event->header.text_length = length;
	event->exe = text_path(&event->header, event->text, __builtin_preserve_access_index(&mm->exe_file->f_path));
	finish(event);
	return 0;
}

static __always_inline void read_argv(struct event *event, __u64 argv, bool compat)
{
	__u64 width = compat ? 4 : 8;

	event->args_truncated = true;
	for (int i = 0; i < ARG_COUNT; i++) {
		__u32 left = ARGS_MAX - event->header.text_length;
		__u64 arg = 0;
		__u32 length;
		char last;

		if (bpf_probe_read_user(&arg, width, (void *)(argv + i * width)))
			break;
		if (!arg) {
			event->args_truncated = false;
			break;
		}
		if (left > ARGS_MAX)
			break;
		length = text_user_string(&event->header, event->text, arg, left);
		if (!length || bpf_probe_read_user(&last, 1, (void *)(arg + length - 1)) || last)
			break; /* not readable, or cut before its NUL */
	}
	event->args = (gadget_args){.length = event->header.text_length};
}

/* A failed exec: the caller's memory is still there, and its registers hold what it asked for. */
SEC("tp_btf/sys_exit")
int BPF_PROG(exec_failure, struct pt_regs *regs, long result)
{
	struct syscall_args args;
	struct event *event;
	__u64 path, argv;
	__u32 number;

	if (result >= 0 || !param_failed)
		return 0;
	number = syscall_number(regs);
	if (number == SYSCALL_EXECVE || number == SYSCALL_COMPAT_EXECVE) {
		args = syscall_arguments(regs, number);
		path = args.a0;
		argv = args.a1;
	} else if (number == SYSCALL_EXECVEAT || number == SYSCALL_COMPAT_EXECVEAT) {
		args = syscall_arguments(regs, number);
		path = args.a1;
		argv = args.a2;
	} else {
		return 0;
	}
	event = begin(PROGRAM_FAILURE);
	if (!event)
		return 0;
	event->error = syscall_error(result);
	read_argv(event, argv, number & COMPAT_FLAG);
	event->exe = text_path_as_given(&event->header, event->text, path);
	finish(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
