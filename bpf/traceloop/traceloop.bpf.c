// SPDX-License-Identifier: GPL-2.0
/* The flight recorder: every system call, exec, signal and end of a container's threads goes into its ring, with what
 * of its arguments lies in memory. */
#include "ring.h"

#define PARTS       2 /* further slots for one argument at most */
#define STRINGS     6 /* of an argument list, each in a slot */
#define TEXT_LIMIT  4096
#define MESSAGE_MAX 256 /* a longer buffer is no message but data, and its beginning is enough */
#define CAPTURES    3   /* arguments of one call whose memory is copied, at most */
#define NUMBERS     512 /* of system calls that have a plan */

/* What to copy of a call's memory: gadget/syscalls.py, whose How this is. */
enum how {
	HOW_NOTHING,
	HOW_STRING,
	HOW_BYTES_ARG,
	HOW_BYTES_RESULT,
	HOW_BYTES_FIXED,
	HOW_BYTES_POINTED,
	HOW_STRINGS,
	HOW_VECTOR,
	HOW_MESSAGE,
};

struct names {
	enum constant constant;
	enum kind kind;
	enum end end;
	enum how how;
};
RECORD(names);

struct capture {
	__u8 argument, how, size, after_success;
};

struct plan {
	__u8 arguments, unused[3];
	struct capture captures[CAPTURES];
};
RECORD(plan);
RECORD(capture);
const volatile struct plan plans[NUMBERS] = {};

/* A length that the verifier can follow. clang leaves a mask out where it knows that the value is no larger, and what
 * it knows Linux 6.1 does not: it forgets a bound of 64 bits when only 32 of them are copied. */
static __always_inline __u32 masked(__u64 value, __u32 mask)
{
	barrier_var(value);
	return value & mask;
}

/* Text to copy: whose, from where, of which argument and how. */
struct text {
	__u64 owner, from, left;
	__u32 argument;
	bool string, kernel;
};

static __always_inline long copy(char *to, __u32 size, const struct text *text)
{
	if (text->kernel)
		return bpf_probe_read_kernel_str(to, size, (void *)text->from);
	if (text->string)
		return read_user_string(to, size, (void *)text->from);
	return bpf_probe_read_user(to, size, (void *)text->from) ? -1 : size;
}

/* Copy up to size bytes, and move on behind them. Returns how many, without the NUL of a string, or NO_DATA; nothing
 * is left once a string has ended or could not be read. */
static __always_inline __u32 copy_some(char *to, __u32 size, struct text *text)
{
	long length = copy(to, size, text);
	bool ended = length < size;

	if (text->string)
		length--;
	if (length < 0) {
		text->left = 0;
		return NO_DATA;
	}
	text->from += length;
	text->left = ended || text->left <= length ? 0 : text->left - length;
	return length;
}

static __noinline int copy_more(struct ring *ring, struct text *text, __u32 first)
{
	if (!ring || !text)
		return 0;
	for (__u32 part = first; part < first + PARTS && text->left; part++) {
		__u64 size = text->left < DATA_BYTES ? text->left : DATA_BYTES, sequence;
		struct more *more = claim(ring, SEQUENCE_MORE, &sequence);

		if (!more)
			return 0;
		more->owner = text->owner;
		more->argument = text->argument;
		more->part = part;
		more->length = copy_some(more->data, masked(size, 127), text);
		publish(more, sequence);
	}
	return 0;
}

/* Whether a call writes to standard output or standard error, where the last words are. */
static __always_inline bool is_output(struct call *call)
{
	return (call->number == SYSCALL_WRITE || call->number == SYSCALL_WRITEV) && (__u32)call->args[0] <= 2;
}

/* Copy behind a call's arguments, and into further slots what does not fit. */
static __always_inline void copy_text(struct ring *ring, struct call *call, struct text *text, __u32 arguments)
{
	__u64 room = SLOT_BYTES - offsetof(struct call, args) - (arguments & 7) * 8;

	if (!text->string && text->left > MESSAGE_MAX && !is_output(call))
		text->left = room;
	if (room > text->left)
		room = text->left;
	if (room > 63)
		room = 63; /* of a record without arguments, for the mask below */
	call->argument |= text->argument;
	call->length = copy_some((char *)call->args + (arguments & 7) * 8, masked(room, 63), text);
	if (text->left)
		copy_more(ring, text, 0);
}

/* An argument list: each of the first strings in a slot of its own. */
static __always_inline void copy_strings(struct ring *ring, struct text *text)
{
	__u64 list = text->from;

	text->string = true;
	for (int i = 0; i < STRINGS; i++) {
		text->from = 0;
		if (bpf_probe_read_user(&text->from, 8, (void *)(list + i * 8)) || !text->from)
			return;
		text->left = DATA_BYTES;
		copy_more(ring, text, i);
	}
}

/* The address of the first buffer of an iovec array that holds something; its length into text. */
static __always_inline void find_buffer(struct text *text)
{
	__u64 vector[4] = {};

	if (bpf_probe_read_user(vector, sizeof(vector), (void *)text->from))
		bpf_probe_read_user(vector, sizeof(vector) / 2, (void *)text->from);
	text->from = vector[1] ? vector[0] : vector[2];
	text->left = vector[1] ? vector[1] : vector[3];
}

static __always_inline void copy_argument(struct ring *ring, struct call *call, __u64 sequence, __u32 arguments,
					  __u32 index, const volatile struct capture *plan)
{
	struct text text = {.owner = sequence, .argument = plan->argument};
	__u32 how = plan->how;

	if (how == HOW_NOTHING || (plan->after_success && call->result < 0))
		return;
	text.from = call->args[plan->argument & 7];
	if (how == HOW_BYTES_ARG) {
		text.left = call->args[plan->size & 7];
	} else if (how == HOW_BYTES_RESULT) {
		text.left = call->args[plan->size & 7];
		if (call->result < (__s64)text.left) /* recv(2) with MSG_TRUNC tells of more than it copied */
			text.left = call->result < 0 ? 0 : call->result;
	} else if (how == HOW_BYTES_FIXED) {
		text.left = plan->size;
	} else if (how == HOW_BYTES_POINTED) {
		bpf_probe_read_user(&text.left, 4, (void *)call->args[plan->size & 7]);
	} else if (how == HOW_VECTOR || how == HOW_MESSAGE) {
		/* struct msghdr: msg_iov is its third word */
		if (how == HOW_MESSAGE && bpf_probe_read_user(&text.from, 8, (void *)text.from + 16))
			return;
		find_buffer(&text);
		if (plan->after_success && text.left > call->result)
			text.left = call->result;
	} else {
		text.left = TEXT_LIMIT;
		text.string = true;
	}
	if (!text.from || !text.left)
		return;
	if (how == HOW_STRINGS)
		copy_strings(ring, &text);
	else if (index == 0)
		copy_text(ring, call, &text, arguments);
	else
		copy_more(ring, &text, 0);
}

/* A clone as the child sees it, and an exec that succeeded, which sched_process_exec tells more of. */
static __always_inline bool is_told_elsewhere(__u32 number)
{
	switch (number) {
	case SYSCALL_CLONE:
	case SYSCALL_CLONE3:
	case SYSCALL_EXECVE:
	case SYSCALL_EXECVEAT:
#if defined(__TARGET_ARCH_x86)
	case SYSCALL_FORK:
	case SYSCALL_VFORK:
#endif
		return true;
	}
	return false;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_returned, struct pt_regs *regs, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct ring *ring = find_ring(task);
	const volatile struct plan *plan;
	struct call *call;
	__u64 sequence;
	__u32 number;

	if (!ring)
		return 0;
	number = syscall_number_of(regs, task);
	if (result == 0 && is_told_elsewhere(number))
		return 0;
	if (number == (__u32)-1)
		number = SYSCALL_RT_SIGRETURN; /* it restores all registers, and marks this one */
	call = begin(ring, task, KIND_CALL, &sequence);
	if (!call)
		return 0;
	call->result = result;
	call->number = number;
	call->args[0] = REGISTER_ARG0(regs);
	call->args[1] = REGISTER_ARG1(regs);
	call->args[2] = REGISTER_ARG2(regs);
	call->args[3] = REGISTER_ARG3(regs);
	call->args[4] = REGISTER_ARG4(regs);
	call->args[5] = REGISTER_ARG5(regs);
	if (number < NUMBERS) {
		plan = &plans[number];
		call->shape |= plan->arguments << 4;
		if (plan->captures[0].how) {
			copy_argument(ring, call, sequence, plan->arguments, 0, &plan->captures[0]);
			copy_argument(ring, call, sequence, plan->arguments, 1, &plan->captures[1]);
			copy_argument(ring, call, sequence, plan->arguments, 2, &plan->captures[2]);
		}
	} else {
		call->shape |= ARGUMENTS << 4 | (number & COMPAT_FLAG ? SHAPE_32BIT : 0);
	}
	publish(call, sequence);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_succeeded, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct ring *ring = find_ring(task);
	struct text text = {.kernel = true, .string = true, .left = TEXT_LIMIT};
	struct mm_struct *mm = task->mm;
	struct call *call;
	__u64 sequence;

	if (!ring)
		return 0;
	call = begin(ring, task, KIND_EXEC, &sequence);
	if (!call)
		return 0;
	call->tid = old_pid;
	call->number = SYSCALL_EXECVE;
	call->result = 0;
	text.owner = sequence;
	text.from = (__u64)bprm->filename;
	copy_text(ring, call, &text, 0);
	/* setup_arg_pages and copy_strings have laid all arguments out in one piece */
	text = (struct text){
		.owner = sequence, .argument = 1, .from = mm->arg_start, .left = mm->arg_end - mm->arg_start};
	copy_more(ring, &text, 0);
	publish(call, sequence);
	return 0;
}

SEC("tp_btf/signal_deliver")
int BPF_PROG(signal_delivered, int number, struct kernel_siginfo *info)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct ring *ring = find_ring(task);
	struct call *call;
	__u64 sequence;

	if (!ring)
		return 0;
	call = begin(ring, task, KIND_SIGNAL, &sequence);
	if (!call)
		return 0;
	call->shape |= 3 << 4;
	call->args[0] = number;
	call->args[1] = BPF_CORE_READ(info, si_code);
	bpf_probe_read_kernel(&call->args[2], 8, (void *)info + 16); /* ABI: si_addr, or si_pid and si_uid */
	publish(call, sequence);
	return 0;
}

/* Whether a task is the first of its pid namespace, and that is not the host's. */
static __always_inline bool is_first(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;
	unsigned int level = BPF_CORE_READ(pid, level);
	int number = 0;

	bpf_probe_read_kernel(&number, sizeof(number),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid));
	return level > 0 && number == 1;
}

static __always_inline void thread_exits(struct ring *ring, struct task_struct *task, struct signal_struct *signal,
					 bool last)
{
	int group_code = BPF_CORE_READ(signal, group_exit_code);
	bool oom = BPF_CORE_READ(signal, oom_mm) != NULL;
	struct call *call;
	__u64 sequence;

	call = begin(ring, task, last ? KIND_PROCESS_EXIT : KIND_THREAD_EXIT, &sequence);
	if (call) {
		call->result = task->exit_code;
		call->shape |= 1 << 4;
		call->args[0] = oom;
		publish(call, sequence);
	}
	if (oom)
		ring->state.oom = 1;
	if (!last || find_ring(task->real_parent) || ring->state.known == END_INIT)
		return;
	ring->state.status = group_code ? group_code : task->exit_code;
	ring->state.ended = bpf_ktime_get_boot_ns();
	ring->state.known = is_first(task) ? END_INIT : END_CHILD;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(thread_exited, struct task_struct *task)
{
	struct ring *ring = find_ring(task);
	struct signal_struct *signal = task->signal;
	struct pt_regs *regs;
	struct call *call;
	__u64 sequence;
	__u32 number;

	if (!ring)
		return 0;
	regs = (void *)bpf_task_pt_regs(task);
	number = syscall_number_of(regs, task);
	if (number == SYSCALL_EXIT || number == SYSCALL_EXIT_GROUP) {
		call = begin(ring, task, KIND_NO_RETURN, &sequence);
		if (call) {
			call->number = number;
			call->shape |= 1 << 4;
			call->args[0] = REGISTER_ARG0(regs);
			publish(call, sequence);
		}
	}
	thread_exits(ring, task, signal, BPF_CORE_READ(signal, live.counter) == 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
