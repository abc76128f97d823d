// SPDX-License-Identifier: GPL-2.0
/* The flight recorder. Every system call, exec, signal and end of a container's threads goes into the container's ring,
 * with the memory that its arguments point to, as far as it fits. */
#include <asm/errno.h>

#include "ring.h"

#define SI_KERNEL            0x80 /* asm-generic/siginfo.h */
#define SIGINT               2
#define SIGTERM              15
#define TRACE_SIGNAL_IGNORED 1       /* trace/events/signal.h */
#define AT_EXECVE_CHECK      0x10000 /* linux/fcntl.h, since Linux 6.14 (a5874fde3c08) */
#define PARTS                2       /* further slots for one argument at most */
#define STRINGS              6       /* strings of an argument list that are kept, each in a slot */
#define TEXT_LIMIT           4096
#define MESSAGE_MAX          256 /* a longer buffer is data, not a message, and its beginning is enough */
#define CAPTURES             3   /* arguments of one call whose memory is copied, at most */
#define NUMBERS              512 /* system calls that can have a plan */
#define BUFFERS                                                                                                 \
	10           /* of an iovec array behind the first that holds something, each in a slot: glibc's loader \
		      * writes why a program cannot start in as many */
#define LOWEST 65536 /* no program has memory below, where numbers are that another command of a call takes */

/* How to copy the memory that an argument points to. gadget/syscalls.py says which argument of which call has which. */
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
	HOW_BITS,
	HOW_REST,
	HOW_HEADER,
};

struct names {
	enum constant constant;
	enum kind kind;
	enum end end;
	enum how how;
	enum beyond beyond;
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

/* A length that the verifier can follow. clang leaves the mask out where it knows that the value is no larger.
 * Linux 6.1 does not know that: it forgets a bound of 64 bits when only 32 of them are copied. */
static __always_inline __u32 masked(__u64 value, __u32 mask)
{
	barrier_var(value);
	return value & mask;
}

/* A text to copy: of which call and argument, from where, how much and how. counted: size, buffers and skipped go into
 * the record of the call. */
struct text {
	__u64 owner, from, left, size;
	__u32 argument;
	__u16 buffers, skipped;
	bool string, kernel, counted;
};

static __always_inline long copy(char *to, __u32 size, const struct text *text)
{
	if (text->kernel)
		return bpf_probe_read_kernel_str(to, size, (void *)text->from);
	if (text->string)
		return read_user_string(to, size, (void *)text->from);
	return bpf_probe_read_user(to, size, (void *)text->from) ? -1 : size;
}

/* Copy up to size bytes, and move on behind them. Returns how many, without the NUL of a string, or NO_DATA if they
 * could not be read. text->left becomes 0 when a string has ended or could not be read. */
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

/* Whether a string ends just where the copy ended. */
static __always_inline bool ends_here(const struct text *text)
{
	char next = 0;

	if (text->kernel)
		bpf_probe_read_kernel(&next, 1, (void *)text->from);
	else
		bpf_probe_read_user(&next, 1, (void *)text->from);
	return !next;
}

/* Fill one further slot. Returns whether text is left for another one. */
static __noinline int copy_piece(struct ring *ring, struct text *text, __u32 part)
{
	__u64 size, sequence;
	struct more *more;

	if (!ring || !text)
		return 0;
	size = text->left < DATA_BYTES ? text->left : DATA_BYTES;
	more = claim(ring, SEQUENCE_MORE, &sequence);
	if (!more)
		return 0;
	more->owner = text->owner;
	more->argument = text->argument;
	more->part = part;
	more->length = copy_some(more->data, masked(size, 127), text);
	if (text->string && text->left && ends_here(text))
		text->left = 0;
	more->left = text->left;
	publish(more, sequence);
	return text->left != 0;
}

static __always_inline void copy_more(struct ring *ring, struct text *text)
{
	for (__u32 part = 0; part < PARTS; part++)
		if (!copy_piece(ring, text, part))
			return;
}

/* Whether a call writes to standard output or standard error, where a program's last words are. */
static __always_inline bool is_output(struct call *call)
{
	return (call->number == SYSCALL_WRITE || call->number == SYSCALL_WRITEV) && (__u32)call->args[0] <= 2;
}

/* Copy a text behind the arguments of a call; what does not fit goes into further slots. */
static __always_inline void copy_text(struct ring *ring, struct call *call, struct text *text, __u32 arguments)
{
	__u64 room = SLOT_BYTES - offsetof(struct call, args) - (arguments & 7) * 8;

	if (text->counted) {
		call->size = text->size > 0xffffffff ? 0xffffffff : text->size;
		call->buffers = text->buffers;
		call->skipped = text->skipped;
		room -= SLOT_BYTES - offsetof(struct call, size);
	}
	if (!text->string && text->left > MESSAGE_MAX && !is_output(call))
		text->left = room;
	if (room > text->left)
		room = text->left;
	if (room > 63)
		room = 63; /* the room of a record without arguments, for the mask below */
	call->argument |= text->argument;
	call->length = copy_some((char *)call->args + (arguments & 7) * 8, masked(room, 63), text);
	if (text->left)
		copy_more(ring, text);
}

/* Copy an argument list: each of its first strings into a slot of its own. An empty list has a slot without data. */
static __noinline int copy_strings(struct ring *ring, struct text *text)
{
	__u64 list, item;
	__u32 count;

	if (!ring || !text)
		return 0;
	list = text->from;
	for (count = 0; count <= STRINGS; count++) {
		if (bpf_probe_read_user(&item, sizeof(item), (void *)(list + count * 8)))
			return 0;
		if (!item)
			break;
	}
	for (__u32 i = 0; i < STRINGS; i++) { /* not up to count: the verifier would try each */
		text->from = 0;
		bpf_probe_read_user(&text->from, sizeof(text->from), (void *)(list + i * 8));
		if (i && !text->from)
			break;
		text->left = TEXT_LIMIT;
		copy_piece(ring, text, count << 4 | i);
	}
	return 0;
}

/* Find the first buffer of an iovec array that is not empty. Only the first two of its count buffers are looked at. */
static __always_inline void find_buffer(struct text *text, __u64 count)
{
	__u64 vector[4] = {};

	if (count < 2 || bpf_probe_read_user(vector, sizeof(vector), (void *)text->from))
		bpf_probe_read_user(vector, sizeof(vector) / 2, (void *)text->from);
	text->skipped = !vector[1] && count > 1;
	text->from = text->skipped ? vector[2] : vector[0];
	text->left = text->skipped ? vector[3] : vector[1];
	text->buffers = count > 0xffff ? 0xffff : count;
}

/* Copy a further part of an argument, which is not what the argument itself points to, into slots of its own. */
static __always_inline void copy_beyond(struct ring *ring, struct text *text, enum beyond which, __u64 from, __u64 size)
{
	__u32 argument = text->argument;

	text->argument |= which << BEYOND_SHIFT;
	text->from = from;
	text->left = size;
	if (from && size)
		copy_piece(ring, text, 0);
	text->argument = argument;
}

/* Copy the buffers of an iovec array that follow the one that find_buffer() found. */
static __noinline int copy_buffers(struct ring *ring, struct text *text, __u64 list, __u64 count)
{
	bool first = true;

	if (!ring || !text)
		return 0;
	for (__u32 i = 0; i <= BUFFERS; i++) {
		__u64 vector[2];

		if (i >= count || bpf_probe_read_user(vector, sizeof(vector), (void *)(list + i * sizeof(vector))))
			break;
		if (!first)
			copy_beyond(ring, text, BEYOND_BUFFER + i, vector[0], vector[1]);
		if (vector[1] || i)
			first = false;
	}
	return 0;
}

/* Copy the address, the control messages and the further buffers of a struct msghdr. */
static __noinline int copy_header(struct ring *ring, struct text *text)
{
	__u64 header[6]; /* ABI: name, namelen, iov, iovlen, control, controllen */

	if (!ring || !text || bpf_probe_read_user(header, sizeof(header), (void *)text->from))
		return 0;
	copy_beyond(ring, text, BEYOND_NAME, header[0], (__u32)header[1]);
	copy_beyond(ring, text, BEYOND_CONTROL, header[4], header[5]);
	if (header[3] > 1)
		copy_buffers(ring, text, header[2], header[3]);
	return 0;
}

static __always_inline void copy_argument(struct ring *ring, struct call *call, __u64 sequence, __u32 arguments,
					  __u32 index, const volatile struct capture *plan)
{
	struct text text = {.owner = sequence, .argument = plan->argument};
	__u32 how = plan->how;

	if (how == HOW_NOTHING || (plan->after_success && call->result < 0))
		return;
	text.from = call->args[plan->argument & 7];
	if (text.from < LOWEST)
		return;
	if (index == 1 && how >= HOW_REST) { /* the further parts come after what VECTOR and MESSAGE copy */
		if (how == HOW_HEADER)
			copy_header(ring, &text);
		else if (call->args[plan->size & 7] > 1)
			copy_buffers(ring, &text, text.from, call->args[plan->size & 7]);
		return;
	}
	if (how == HOW_BYTES_ARG) {
		text.left = call->args[plan->size & 7];
	} else if (how == HOW_BYTES_RESULT) {
		text.left = call->args[plan->size & 7];
		if (call->result < (__s64)text.left) /* recv(2) with MSG_TRUNC may return more than it copied */
			text.left = call->result < 0 ? 0 : call->result;
	} else if (how == HOW_BYTES_FIXED) {
		text.left = plan->size;
	} else if (how == HOW_BITS) {
		text.left = ((call->args[plan->size & 7] & 0xffff) + 63) / 64 * 8;
	} else if (how == HOW_BYTES_POINTED) {
		bpf_probe_read_user(&text.left, 4, (void *)call->args[plan->size & 7]);
		text.counted = true;
		text.size = text.left;
	} else if (how == HOW_VECTOR || how == HOW_MESSAGE) {
		__u64 vector[2] = {text.from, call->args[plan->size & 7]};

		/* struct msghdr: msg_iov and msg_iovlen are its third and fourth word */
		if (how == HOW_MESSAGE && bpf_probe_read_user(vector, sizeof(vector), (void *)text.from + 16))
			return;
		text.from = vector[0];
		find_buffer(&text, vector[1]);
		text.counted = true;
		text.size = text.left;
		if (plan->after_success && text.left > call->result)
			text.left = call->result;
	} else { /* HOW_STRING, HOW_STRINGS */
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
		copy_more(ring, &text);
}

/* Whether a call of this number is recorded elsewhere if it returned 0: a clone as the child sees it, or an exec that
 * succeeded, of which sched_process_exec tells more. */
static __always_inline bool is_told_elsewhere(__u32 number)
{
	switch (number) {
	case SYSCALL_CLONE:
	case SYSCALL_CLONE3:
	case SYSCALL_EXECVE:
	case SYSCALL_EXECVEAT:
	case SYSCALL_COMPAT_EXECVE:
	case SYSCALL_COMPAT_EXECVEAT:
	case SYSCALL_COMPAT_FORK:
	case SYSCALL_COMPAT_VFORK:
	case SYSCALL_COMPAT_CLONE:
	case SYSCALL_COMPAT_CLONE3:
#if defined(__TARGET_ARCH_x86)
	case SYSCALL_FORK:
	case SYSCALL_VFORK:
#endif
		return true;
	}
	return false;
}

static __always_inline bool is_execveat(__u32 number)
{
	return number == SYSCALL_EXECVEAT || number == SYSCALL_COMPAT_EXECVEAT;
}

/* Whether this is an execveat that only asked whether it is allowed. After one that began a program, the registers are
 * the new program's: zero. */
static __always_inline bool is_check(struct pt_regs *regs, __u32 number)
{
	return is_execveat(number) && syscall_arguments(regs, number).a4 & AT_EXECVE_CHECK;
}

static __always_inline void store_arguments(struct call *call, struct pt_regs *regs, __u32 number)
{
	struct syscall_args args = syscall_arguments(regs, number);

	call->args[0] = args.a0;
	call->args[1] = args.a1;
	call->args[2] = args.a2;
	call->args[3] = args.a3;
	call->args[4] = args.a4;
	call->args[5] = args.a5;
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
	if (result == 0 && is_told_elsewhere(number) && !is_check(regs, number))
		return 0;
	if (number == NO_SYSCALL) /* rt_sigreturn restores all registers and marks this one; but a program may ask for
				     call -1, too */
		number = result == -ENOSYS ? UNKNOWN_SYSCALL : SYSCALL_RT_SIGRETURN;
	call = begin(ring, task, KIND_CALL, &sequence);
	if (!call)
		return 0;
	call->result = result;
	call->number = number;
	store_arguments(call, regs, number);
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
		call->size = syscall_number_as_given(regs);
	}
	publish(call, sequence);
	return 0;
}

/* Whether a process comes from outside the container and has a mount namespace of its own. Such a process executes the
 * container's program, or the program of an exec into the container. Before that the runtime's helpers execute
 * themselves, in the host's mount namespace. Pid 1 does not tell: a container may have the host's pid namespace, or its
 * pod's, and may make further ones in it. */
static __always_inline bool comes_from_outside(struct task_struct *task)
{
	struct task_struct *parent = task->real_parent;

	return !find_ring(parent) && task->nsproxy->mnt_ns != parent->nsproxy->mnt_ns;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_succeeded, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct ring *ring = find_ring(task);
	struct text text = {.kernel = true, .string = true, .left = TEXT_LIMIT};
	struct mm_struct *mm = task->mm;
	struct call *call;
	__u64 sequence;
	bool outside;

	if (!ring)
		return 0;
	outside = comes_from_outside(task);
	if (outside && !ring->state.first)
		ring->state.first = task->tgid;
	call = begin(ring, task, KIND_EXEC, &sequence);
	if (!call)
		return 0;
	call->tid = old_pid;
	/* fdpath is "/dev/fd/N" or "/dev/fd/N/path", if the call named a descriptor. An execveat without one cannot be
	 * told from execve by now: set_personality_64bit() has written execve's number over the call's own. */
	call->number = bprm->fdpath ? SYSCALL_EXECVEAT : SYSCALL_EXECVE;
	call->result = outside ? task->start_boottime : 0;
	text.owner = sequence;
	text.from = (__u64)bprm->filename;
	copy_text(ring, call, &text, 0);
	/* setup_arg_pages and copy_strings have laid all arguments out in one piece */
	text = (struct text){
		.owner = sequence, .argument = 1, .from = mm->arg_start, .left = mm->arg_end - mm->arg_start};
	copy_more(ring, &text);
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
	call->shape |= 4 << 4;
	call->args[0] = number;
	call->args[1] = BPF_CORE_READ(info, si_code);
	/* ABI: si_addr; or si_pid and si_uid, and behind them si_status or si_value; or si_call_addr and si_syscall */
	if (bpf_probe_read_kernel(&call->args[2], 16, (void *)info + 16))
		call->args[2] = call->args[3] = 0;
	publish(call, sequence);
	return 0;
}

/* Who sent a signal. Its delivery tells only a number in the receiver's pid namespace, and nothing for SIGKILL. */
SEC("tp_btf/signal_generate")
int BPF_PROG(signal_sent, int number, struct kernel_siginfo *info, struct task_struct *target, int group, int outcome)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool kernel =
		(long)info ==
		1; /* SEND_SIG_PRIV: the kernel sends it, and the current process may have nothing to do with it */
	struct ring *ring;
	struct call *call;
	__u64 sequence;
	int code;

	/* 0 is TRACE_SIGNAL_DELIVERED. Ignored signals are recorded only if they ask to end: they say why a SIGKILL
	 * came */
	if (outcome != 0 && !(outcome == TRACE_SIGNAL_IGNORED && (number == SIGTERM || number == SIGINT)))
		return 0;
	if (task->tgid == target->tgid && !kernel)
		return 0;
	ring = find_ring(target);
	if (!ring)
		return 0;
	code = kernel ? SI_KERNEL : BPF_CORE_READ(info, si_code);
	call = begin(ring, task, KIND_SENT, &sequence);
	if (!call)
		return 0;
	call->shape |= 4 << 4;
	call->args[0] = number;
	call->args[1] = code;
	call->args[2] = target->tgid;
	call->args[3] = find_ring(task) == ring;
	publish(call, sequence);
	return 0;
}

static __always_inline void thread_exits(struct ring *ring, struct task_struct *task, struct signal_struct *signal,
					 bool last)
{
	int group_code = BPF_CORE_READ(signal, group_exit_code);
	bool oom = BPF_CORE_READ(signal, oom_mm) != NULL, known;
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
	if (!last || ring->state.known == END_INIT)
		return;
	known = ring->state.first && ring->state.first != FIRST_MISSED;
	if (known ? ring->state.first != task->tgid : find_ring(task->real_parent) != NULL)
		return;
	ring->state.status = group_code ? group_code : task->exit_code;
	ring->state.ended = bpf_ktime_get_boot_ns();
	ring->state.known = known ? END_INIT : END_CHILD;
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
	if (number == SYSCALL_EXIT || number == SYSCALL_EXIT_GROUP || number == SYSCALL_COMPAT_EXIT ||
	    number == SYSCALL_COMPAT_EXITALL) {
		call = begin(ring, task, KIND_NO_RETURN, &sequence);
		if (call) {
			call->number = number;
			call->shape |= 1 << 4 | (number & COMPAT_FLAG ? SHAPE_32BIT : 0);
			call->args[0] = syscall_arguments(regs, number).a0;
			publish(call, sequence);
		}
	}
	thread_exits(ring, task, signal, BPF_CORE_READ(signal, live.counter) == 0);
	return 0;
}

#define CONTAINER_ID 64
#define SCOPE        ".scope"
#define MONITOR      "conmon"

/* The end of the name of a container's cgroup: [[PREFIX](-|:)]ID[.scope], as in agent/containers/identity.py. */
struct name_end {
	char prefix[sizeof(MONITOR) - 1];
	char separator;
	char id[CONTAINER_ID];
};

static __always_inline bool is_same(const char *text, const char *other, int size)
{
	for (int at = 0; at < size; at++)
		if (text[at] != other[at])
			return false;
	return true;
}

/* Whether a name is that of a container's cgroup, not that of the monitor beside it (conmon). */
static __noinline bool is_container(struct cgroup *cgroup)
{
	struct name_end end = {};
	const char *name;
	char all[256];
	long length;

	if (!cgroup)
		return false;
	name = cgroup->kn->name;
	length = bpf_probe_read_kernel_str(all, sizeof(all), name) - 1;
	if (length >= CONTAINER_ID + (long)sizeof(SCOPE) - 1) {
		char scope[sizeof(SCOPE)];

		bpf_probe_read_kernel(scope, sizeof(scope), name + length - sizeof(SCOPE) + 1);
		if (is_same(scope, SCOPE, sizeof(SCOPE)))
			length -= sizeof(SCOPE) - 1;
	}
	if (length >= (long)sizeof(end))
		bpf_probe_read_kernel(&end, sizeof(end), name + length - sizeof(end));
	else if (length > CONTAINER_ID + 1)
		bpf_probe_read_kernel(&end.separator, 1 + CONTAINER_ID, name + length - CONTAINER_ID - 1);
	else if (length == CONTAINER_ID)
		bpf_probe_read_kernel(&end.id, CONTAINER_ID, name);
	if (length != CONTAINER_ID && end.separator != '-' && end.separator != ':')
		return false;
	for (int at = 0; at < CONTAINER_ID; at++) {
		char digit = end.id[at];

		if ((digit < '0' || digit > '9') && (digit < 'a' || digit > 'f'))
			return false;
	}
	return !is_same(end.prefix, MONITOR, sizeof(end.prefix));
}

/* Give a cgroup a spare ring if its name is that of a container's. User space will soon make the ring the container's
 * own, or empty it. */
SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_made, struct cgroup *cgroup)
{
	__u32 zero = 0;
	struct recorded *few = bpf_map_lookup_elem(&recorded, &zero);

	if (!few || cgroup->root->hierarchy_id != 0) /* cgroup version 1 has 1 or more */
		return 0;
	if (!is_container(cgroup) || container_above(cgroup) != CGROUP_OF_HOST)
		return 0;
	if (few->any_fresh && fresh_ring(cgroup)) /* inside a container that has just come */
		return 0;
	for (__u32 at = 0; at < SPARES; at++)
		if (!few->fresh[at] && !__sync_val_compare_and_swap(&few->fresh[at], 0, cgroup->kn->id)) {
			__sync_fetch_and_or(&few->any_fresh, 1ULL << (cgroup->kn->id & 63));
			break;
		}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
