// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include "filter.h"
#include "calls.h"
#include "signals.h"

#define EAGAIN   11 /* asm-generic/errno-base.h */
#define SIGRTMIN 32 /* asm/signal.h: the first real-time signal */

enum { PROGRAM_GENERATE, PROGRAM_RETURN, PROGRAMS };

/* The first five are the kernel's own: include/trace/events/signal.h */
enum signal_result {
	RESULT_DELIVERED,
	RESULT_IGNORED,
	RESULT_ALREADY_PENDING,
	RESULT_QUEUE_FULL,
	RESULT_INFO_LOST,
	RESULT_FAILED,
};
typedef enum signal_result gadget_result_words;

struct event {
	struct gadget_header header;
	gadget_signal signal DOC("the signal; none if a call that failed would only have asked for the process");
	gadget_pid
		tpid DOC("process id of the target, as the host sees it; of a call that failed, as the sender gave it");
	gadget_pid ttid DOC("thread id of the target; of a signal to a process one of its threads");
	gadget_comm tcomm DOC("name of the target");
	gadget_container target DOC("container of the target; none outside containers");
	gadget_result_words
		result DOC("what became of it; queue full, info lost: too many wait already; failed: error says why");
	gadget_reason_words reason DOC("who or what sent it: a process by one of its calls, or the kernel, and why");
	gadget_errno error DOC("why the call failed that was to send it");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(PROGRAMS);

PARAM(bool, failed, false, "only signals that could not be sent or were lost; ignored ones were not");
PARAM(bool, all, false, "also SIGCHLD, SIGURG, signals of timers and mere tests (0), which are left out else");

/* Whether a signal is one of those that come by the thousand and say little. A process may claim to be a timer. */
static __always_inline bool is_left_out(int number, int code, bool own)
{
	return !param_all && (!number || number == SIGCHLD || number == SIGURG ||
			      (!own && signal_reason(number, code) == REASON_TIMER));
}

/* A child tells its parent. Other signals of the kernel come in the midst of any process. */
static __always_inline bool is_of_current(int number, struct kernel_siginfo *info, int code, struct task_struct *target)
{
	return is_sent_by_process(info, code, target) || (number == SIGCHLD && (unsigned long)info > 1);
}

SEC("tp_btf/signal_generate")
int BPF_PROG(generated, int number, struct kernel_siginfo *info, struct task_struct *target, int group, int result)
{
	__u32 program = PROGRAM_GENERATE;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	int code = signal_code(info);
	struct gadget_header other = {};
	bool own = is_of_current(number, info, code, target);

	if (!event || is_left_out(number, code, own) || (param_failed && result <= RESULT_IGNORED))
		return 0;
	/* here, as the verifier would follow each value of own to the end */
	event->error = own && result == RESULT_QUEUE_FULL ? EAGAIN : 0;
	if (!gadget_fill_pair(&event->header, own ? current_task() : target, &other, target))
		return 0;
	event->signal = number;
	event->tpid = other.pid;
	event->ttid = other.tid;
	__builtin_memcpy(event->tcomm, other.comm, sizeof(event->tcomm));
	event->target = other.cgroup_id;
	event->result = result;
	event->reason = info ? signal_reason(number, code) : is_in_sending_call() ? REASON_CALL : REASON_KERNEL;
	gadget_submit(event);
	return 0;
}

/* Whom a call names: a process, a thread, both, a descriptor. */
enum { NAMES_PROCESS = 1, NAMES_THREAD, NAMES_BOTH, NAMES_DESCRIPTOR };

CALLS(__u8) = {
	KNOWN_BOTH(KILL, NAMES_PROCESS),           KNOWN_BOTH(RT_SIGQUEUEINFO, NAMES_PROCESS),
	KNOWN_BOTH(TKILL, NAMES_THREAD),           KNOWN_BOTH(TGKILL, NAMES_BOTH),
	KNOWN_BOTH(RT_TGSIGQUEUEINFO, NAMES_BOTH), KNOWN_BOTH(PIDFD_SEND_SIGNAL, NAMES_DESCRIPTOR),
};

/* What a call asked for. */
struct asked {
	int process, thread, signal;
};

/* Read what a call was to send. False if the call sends no signals. */
static __always_inline bool read_asked(struct pt_regs *regs, __u32 number, struct asked *asked)
{
	struct syscall_args args = syscall_arguments(regs, number);

	switch (known_call(number)) {
	case NAMES_PROCESS:
		*asked = (struct asked){args.a0, args.a0, args.a1};
		return true;
	case NAMES_THREAD:
		*asked = (struct asked){0, args.a0, args.a1};
		return true;
	case NAMES_BOTH:
		*asked = (struct asked){args.a0, args.a1, args.a2};
		return true;
	case NAMES_DESCRIPTOR:
		*asked = (struct asked){0, 0, args.a1};
		return true;
	default:
		return false;
	}
}

/* Whether a failed call has its row from the tracepoint of its signal: a real-time signal that found the queue full. */
static __always_inline bool is_told_already(int signal, long result)
{
	return result == -EAGAIN && signal >= SIGRTMIN;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(not_sent, struct pt_regs *regs, long result)
{
	__u32 program = PROGRAM_RETURN, number = syscall_number(regs);
	struct event *event;
	struct asked asked;

	if (!read_asked(regs, number, &asked))
		return 0;
	result = syscall_result(regs, number, result);
	if (result >= 0 || is_left_out(asked.signal, SI_USER, true) || is_told_already(asked.signal, result))
		return 0;
	event = bpf_map_lookup_elem(&scratch, &program);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->signal = asked.signal;
	event->tpid = asked.process > 0 ? asked.process : 0;
	event->ttid = asked.thread > 0 ? asked.thread : 0;
	__builtin_memset(event->tcomm, 0, sizeof(event->tcomm));
	event->target = 0;
	event->result = RESULT_FAILED;
	event->reason = REASON_CALL;
	event->error = syscall_error(result);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
