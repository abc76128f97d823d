// SPDX-License-Identifier: GPL-2.0
/* What rules of a detection engine judge: processes as they begin, change and end, and system calls. */
#include "event.h"
#include "descriptors.h"
#include "opens.h"
#include "paths.h"
#include "processes.h"
#include "program_file.h"

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct event *event = begin(PROGRAM_EXEC, CALL_EXECVE, true);
	struct mm_struct *mm = task->mm;

	if (!event)
		return 0;
	if (BPF_CORE_READ(bprm, fdpath))
		event->call = CALL_EXECVEAT; /* with a descriptor; without one it is as execve(2) */
	event->arguments = text_arguments(&event->header, event->text, mm, ARGS_MAX, &event->arguments_truncated);
	read_relations(event, task);
	read_program(event, task, mm->exe_file);
	event->exe = path_of_program(PROGRAM_EXEC, task);
	event->cwd = path_of_directory(PROGRAM_EXEC, task);
	if (param_environment)
		event->env = text_bytes(event, mm->env_start, mm->env_end - mm->env_start, ARGS_MAX);
	gadget_submit(event);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 program = PROGRAM_FORK;
	struct event *event;

	if (child->pid != child->tgid)
		return 0; /* a thread */
	event = bpf_map_lookup_elem(&scratch, &program);
	if (!event || !gadget_fill_for(&event->header, child))
		return 0;
	begin_event(event, child, CALL_FORK);
	read_relations(event, child);
	if (event->ppid != BPF_CORE_READ(parent, tgid)) { /* CLONE_PARENT: the program is that of another process */
		event->forker = BPF_CORE_READ(parent, tgid);
		event->forker_start = BPF_CORE_READ(parent, group_leader, start_boottime);
	}
	event->exe = path_of_program(PROGRAM_FORK, child);
	event->cwd = path_of_directory(PROGRAM_FORK, child);
	gadget_submit(event);
	return 0;
}

/* The end of the last thread; two may each find themselves the last, and each send an event. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(ended, struct task_struct *task)
{
	struct event *event;

	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	event = begin(PROGRAM_EXIT, CALL_PROCEXIT, true);
	if (event)
		gadget_submit(event);
	return 0;
}

/* Read what a call asks for, beside paths and sockets. Whether an absolute path begins at the call's directory. */
static __always_inline bool read_more(struct event *event, struct known known)
{
	__u64 how[3] = {}, first = argument(event, known.at); /* struct open_how: flags, mode, resolve */
	__u32 length;

	switch (known.more) {
	case MORE_HOW:
		bpf_probe_read_user(how, sizeof(how), (void *)first);
		break;
	case MORE_FLAGS:
		how[0] = (__u32)first;
		how[1] = argument(event, known.at + 1);
		break;
	case MORE_MODE:
		event->mode = first & 07777;
		if (event->call == CALL_CREAT)
			event->flags = O_CREAT | O_WRONLY | O_TRUNC;
		return false;
	case MORE_FAMILY:
		event->family = first;
		return false;
	case MORE_TEXT:
		event->data.offset = event->header.text_length;
		length = text_user_string(&event->header, event->text, first, TEXT_OF_CALL_MAX);
		event->data.length = length ? length - 1 : 0;
		return false;
	default:
		return false;
	}
	event->flags = common_flags(how[0]);
	if (event->flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) /* else there may be anything */
		event->mode = how[1] & 07777;
	return how[2] & RESOLVE_IN_ROOT;
}

/* The arguments of a call. Those of socketcall(2) lie in memory. */
static __always_inline void read_given(struct event *event, struct pt_regs *regs, __u32 number)
{
	struct syscall_args args = syscall_arguments(regs, number);

#if defined(__TARGET_ARCH_x86)
	if (number == SYSCALL_COMPAT_SOCKETCALL) {
		for (int i = 0; i < 6; i++)
			event->args[i] = read_word(args.a1, i, 4);
		return;
	}
#endif
	event->args[0] = args.a0;
	event->args[1] = args.a1;
	event->args[2] = args.a2;
	event->args[3] = args.a3;
	event->args[4] = args.a4;
	event->args[5] = args.a5;
}

#define CLONE_NEW     0x7e020000 /* linux/sched.h: CLONE_NEWNS and all others that clone(2) takes */
#define CLONE_NEWUSER 0x10000000

/* The namespaces that a call of clone(2) makes. */
static __always_inline __u64 namespaces_of(struct pt_regs *regs, __u32 number, struct known known)
{
	__u64 flags = syscall_arguments(regs, number).a0;

	if (known.more == MORE_CLONE3)
		flags = read_word(flags, 0, 8); /* struct clone_args */
	return flags & CLONE_NEW;
}

/* A call of clone(2) that makes a namespace of users is told of as if the child had called unshare(2). In the child,
 * where it returns 0, it made none. */
static __always_inline int cloned(struct pt_regs *regs, __u32 number, struct known known, long result)
{
	__u64 namespaces = namespaces_of(regs, number, known);
	struct event *event;

	if (!result || !(namespaces & CLONE_NEWUSER) || !is_wanted(CALL_UNSHARE, result))
		return 0;
	event = begin(PROGRAM_CALL, CALL_UNSHARE, param_host_calls);
	if (!event)
		return 0;
	event->result = result < 0 ? result : 0;
	event->args[0] = namespaces;
	gadget_submit(event);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 number = syscall_number(regs);
	struct known known = find_known(regs, number);
	struct event *event;
	bool in_root;

	if (!known.call)
		return 0;
	result = syscall_result(regs, number, result);
	if (known.more >= MORE_CLONE)
		return cloned(regs, number, known, result);
	if (!is_wanted(known.call - 1, result) ||
	    (known.call - 1 == CALL_BPF && is_about_elements(syscall_arguments(regs, number).a0)))
		return 0;
	event = begin(PROGRAM_CALL, known.call - 1, param_host_calls || known.call - 1 == CALL_CHANGE);
	if (!event)
		return 0;
	event->result = result;
	read_given(event, regs, number);
	if (known.call - 1 == CALL_CHANGE) {
		read_relations(event, current_task());
		event->cwd = path_of_directory(PROGRAM_CALL, current_task());
		gadget_submit(event);
		return 0;
	}
	in_root = read_more(event, known);
	read_paths(event, known, in_root);
	read_descriptor(event, known, number);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
