// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include "filter.h"
#include "sockets.h"
#include "syscalls.h"

#define ATTEMPTS 65536 /* attempts at once; a further one counts as lost */

/* asm-generic/errno.h */
#define EBADF         9
#define EPIPE         32
#define ENOTSOCK      88
#define EADDRNOTAVAIL 99
#define ENETDOWN      100
#define ENETUNREACH   101
#define ECONNABORTED  103
#define ECONNRESET    104
#define EISCONN       106
#define ETIMEDOUT     110
#define ECONNREFUSED  111
#define EHOSTDOWN     112
#define EHOSTUNREACH  113
#define EALREADY      114
#define EINPROGRESS   115

enum { PROGRAM_STATE, PROGRAM_RETRANSMIT, PROGRAM_RETURN, PROGRAM_DESTROY, PROGRAMS };

enum connect_result {
	RESULT_OK,
	RESULT_PENDING,
	RESULT_REFUSED,
	RESULT_TIMED_OUT,
	RESULT_NO_ANSWER,
	RESULT_INTERRUPTED,
	RESULT_UNREACHABLE,
	RESULT_RESET,
	RESULT_FAILED,
};
typedef enum connect_result gadget_result_words;

struct event {
	struct gadget_header header;
	gadget_endpoint src DOC("where from");
	gadget_endpoint dst DOC("where to");
	__u8 version DOC("IP version: 4 or 6");
	__u8 retransmits DOC("times that the SYN was sent again");
	gadget_result_words result DOC("how it ended; pending: no answer to the first SYN yet, another row follows");
	gadget_errno error
		DOC("the error that the process got, or that waited for it; none if it connected or gave up untold");
	gadget_duration
		latency DOC("time from the first SYN to the result, in nanoseconds; none if one of them was not seen");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(PROGRAMS);

PARAM(bool, pending, true, "show an attempt also while its first SYN has no answer");

struct attempt {
	struct gadget_header header; /* of the thread that began the attempt */
	__u64 began;
	gadget_endpoint dst; /* kept here, as the socket forgets it before a call that gives up returns */
	bool calling;        /* connect(2) has not returned yet */
	bool interrupted;    /* by a signal */
	bool done;           /* its last row was sent: what connect(2) returns next is no news */
	__u8 retransmits;
	int told_meanwhile; /* an error that did not end the attempt, such as one by ICMP */
};

/* Attempts by address of the socket. A failed attempt stays until the process has been told or the socket goes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ATTEMPTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

/* Whether the table has ever been full. From then on a call without an attempt may be one that was counted as lost. */
static volatile bool overflowed;

static __always_inline enum connect_result result_of(int error)
{
	switch (error) {
	case 0:
		return RESULT_NO_ANSWER;
	case EINTR:
		return RESULT_INTERRUPTED;
	case ECONNREFUSED:
		return RESULT_REFUSED;
	case ETIMEDOUT:
		return RESULT_TIMED_OUT;
	case ECONNRESET:
		return RESULT_RESET;
	case EADDRNOTAVAIL:
	case ENETDOWN:
	case ENETUNREACH:
	case EHOSTDOWN:
	case EHOSTUNREACH:
		return RESULT_UNREACHABLE;
	default:
		return RESULT_FAILED;
	}
}

static __always_inline void send_ended(__u32 program, const struct sock *sk, struct attempt *attempt,
				       enum connect_result result, int error, bool just_now)
{
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	__u64 now = bpf_ktime_get_boot_ns();

	if (!event)
		return;
	event->header = attempt->header;
	event->header.timestamp = now;
	event->latency = just_now ? now - attempt->began : DURATION_UNKNOWN;
	event->retransmits = attempt->retransmits;
	event->result = result;
	event->error = error;
	read_endpoints(sk, &event->src, &event->dst);
	event->dst = attempt->dst;
	event->version = is_ipv4(&event->dst) ? 4 : 6;
	gadget_submit(event);
}

static __always_inline void send(__u32 program, const struct sock *sk, struct attempt *attempt,
				 enum connect_result result, int error)
{
	send_ended(program, sk, attempt, result, error, true);
}

/* Whether the socket has sent a SYN since it was made or last disconnected. */
static __always_inline bool asked(const struct sock *sk)
{
	return BPF_CORE_READ((const struct tcp_sock *)sk, segs_out);
}

CALLS(bool) = {KNOWN_BOTH(CONNECT, true)};

static __always_inline bool in_connect(void)
{
	struct pt_regs *regs;

	if (!has_task_registers())
		return true; /* or TCP Fast Open or io_uring: their end may be told as "no answer" */
	regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	return known_call(syscall_number(regs));
}

static __always_inline void begin(const struct sock *sk)
{
	struct attempt attempt = {};
	gadget_endpoint src;
	__u64 key = (__u64)sk;

	if (!gadget_fill(&attempt.header)) {
		bpf_map_delete_elem(&attempts, &key);
		return;
	}
	attempt.began = attempt.header.timestamp;
	attempt.calling = in_connect();
	read_endpoints(sk, &src, &attempt.dst);
	if (bpf_map_update_elem(&attempts, &key, &attempt, BPF_ANY)) {
		overflowed = true;
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, attempt.header.cgroup_id);
	}
}

/* Why a process gives up an attempt that the socket has not ended. An ICMP error that comes while connect(2) has the
 * socket does not end the attempt: it waits in sk_err_soft for SO_ERROR, which takes it away. */
static __always_inline int why_given_up(const struct sock *sk, const struct attempt *attempt)
{
	int soft = BPF_CORE_READ(sk, sk_err_soft);

	if (attempt->interrupted)
		return EINTR;
	return attempt->told_meanwhile ? attempt->told_meanwhile : soft;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, const struct sock *sk, const int old, const int new)
{
	__u64 key = (__u64)sk;
	struct attempt *attempt;
	int error;

	if (new == TCP_SYN_SENT) {
		if (is_tcp(sk))
			begin(sk);
		return 0;
	}
	if (new != TCP_ESTABLISHED &&new != TCP_CLOSE)
		return 0;
	attempt = bpf_map_lookup_elem(&attempts, &key);
	if (!attempt || attempt->done)
		return 0;
	if (new == TCP_ESTABLISHED) {
		send(PROGRAM_STATE, sk, attempt, RESULT_OK, 0);
		attempt->done = true;
		if (!attempt->calling)
			bpf_map_delete_elem(&attempts, &key);
		return 0;
	}
	if (old != TCP_SYN_SENT && old != TCP_SYN_RECV &&
	    old != TCP_CLOSE) { /* the attempt succeeded, and this program missed that */
		send_ended(PROGRAM_STATE, sk, attempt, RESULT_OK, 0, false);
		bpf_map_delete_elem(&attempts, &key);
		return 0;
	}
	error = sk->sk_err;
	if (!error && attempt->calling && attempt->header.tid == (__u32)bpf_get_current_pid_tgid())
		return 0;           /* connect(2) itself gives up; its result will say why */
	if (!error && !asked(sk)) { /* TCP Fast Open or io_uring, which do not tell the reason */
		bpf_map_delete_elem(&attempts, &key);
		return 0;
	}
	if (!error)
		error = why_given_up(sk, attempt);
	attempt->done = true;
	send(PROGRAM_STATE, sk, attempt, result_of(error), error);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(sent_again, const struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct attempt *attempt = bpf_map_lookup_elem(&attempts, &key);

	if (!attempt || sk->__sk_common.skc_state != TCP_SYN_SENT)
		return 0;
	if (attempt->retransmits < 255)
		attempt->retransmits++;
	if (param_pending && attempt->retransmits == 1)
		send(PROGRAM_RETRANSMIT, sk, attempt, RESULT_PENDING, 0);
	return 0;
}

/* Whether an error of connect(2) never comes before the first SYN. */
static __always_inline bool is_late(int error)
{
	return error == ECONNREFUSED || error == ECONNRESET || error == ECONNABORTED || error == EPIPE ||
	       error == ETIMEDOUT;
}

/* A call that failed and has no attempt in the table: it failed before its first SYN, or its first SYN was before the
 * stream. The socket has forgotten the address by now, so it is read from the call's arguments. */
static __always_inline void send_forgotten_call(const struct sock *sk, __u64 address, int error)
{
	__u32 program = PROGRAM_RETURN;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	/* tcp_disconnect() leaves these two: they tell whether there was a SYN, and an answer to it */
	bool begun = BPF_CORE_READ((const struct tcp_sock *)sk, write_seq);
	bool answered = BPF_CORE_READ((const struct tcp_sock *)sk, rcv_nxt);

	if (answered && is_late(error))
		return; /* the end of a connection that was made */
	if (overflowed && (begun || error == EADDRNOTAVAIL))
		return;
	if (!event || !gadget_fill(&event->header))
		return;
	event->latency = begun ? DURATION_UNKNOWN : 0;
	event->retransmits = 0;
	event->result = result_of(error);
	event->error = error;
	event->src = (gadget_endpoint){};
	event->version = read_user_endpoint(&event->dst, address) && !is_ipv4(&event->dst) ? 6 : 4;
	gadget_submit(event);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(connect_returned, struct pt_regs *regs, long result)
{
	__u32 number = syscall_number(regs);
	struct syscall_args args;
	struct attempt *attempt;
	struct sock *sk;
	bool closed, interrupted, told, worked;
	__u8 state;
	int error;
	__u64 key;

	if (!known_call(number) || result == -EBADF || result == -ENOTSOCK)
		return 0;
	error = syscall_error(syscall_result(regs, number, result));
	args = syscall_arguments(regs, number);
	sk = tcp_socket(args.a0);
	if (!sk)
		return 0;
	key = (__u64)sk;
	state = BPF_CORE_READ(sk, __sk_common.skc_state); /* read before done: a close sets done, then the state */
	closed = state == TCP_CLOSE;
	worked = (!error && state != TCP_SYN_SENT) || error == EISCONN; /* TCP_FASTOPEN_CONNECT puts the SYN off */
	interrupted = error == EINTR;
	told = !interrupted && error != EINPROGRESS && error != EALREADY;
	attempt = bpf_map_lookup_elem(&attempts, &key);
	if (attempt && attempt->done) {
		attempt->calling = false;
		/* if it failed before connect(2) returned EINPROGRESS, the next call tells the process */
		if (told || !closed)
			bpf_map_delete_elem(&attempts, &key);
	} else if (attempt && worked) { /* the change to ESTABLISHED was missed */
		send(PROGRAM_RETURN, sk, attempt, RESULT_OK, 0);
		bpf_map_delete_elem(&attempts, &key);
	} else if (attempt && closed) {
		send(PROGRAM_RETURN, sk, attempt, result_of(error), error);
		bpf_map_delete_elem(&attempts, &key);
	} else if (attempt) {
		attempt->calling = false;
		attempt->interrupted = interrupted;
		attempt->told_meanwhile = BPF_CORE_READ(sk, sk_err_soft);
	} else if (told && error && error != EISCONN) {
		send_forgotten_call(sk, args.a1, error);
	}
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroyed, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct attempt *attempt = bpf_map_lookup_elem(&attempts, &key);
	int error;

	if (!attempt)
		return 0;
	if (!attempt->done && asked(sk)) {
		error = why_given_up(sk, attempt);
		send(PROGRAM_DESTROY, sk, attempt, result_of(error), error);
	}
	bpf_map_delete_elem(&attempts, &key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
