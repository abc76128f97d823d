// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include "filter.h"
#include "sockets.h"
#include "syscalls.h"

#define CONNECTIONS 65536 /* connections at once; a further one counts as lost */
#define SOCK_DONE   1     /* include/net/sock.h, enum sock_flags: the peer's FIN is there */

enum { PROGRAM_STATE, PROGRAM_RETURN, PROGRAM_DESTROY, PROGRAMS };

enum operation {
	OPERATION_CONNECT,
	OPERATION_ACCEPT,
	OPERATION_CLOSE,
};
typedef enum operation gadget_operation_words;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("connect, accept or close");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	__u8 version DOC("IP version: 4 or 6");
	__u64 sent DOC("bytes sent, without those sent again");
	__u64 received DOC("bytes received");
	gadget_duration duration DOC("of connect the handshake's time, of close the connection's, in nanoseconds; "
				     "none if it began before the stream, and of accept");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(PROGRAMS);

struct connection {
	struct gadget_header header; /* of the thread that connected or accepted */
	__u64 opened;                /* 0 if it opened before this program ran */
	gadget_endpoint src, dst;
	bool connecting; /* this end connects, and the handshake is not over */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CONNECTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct connection);
} connections SEC(".maps");

static __always_inline void send(__u32 program, const struct sock *sk, struct connection *connection,
				 enum operation operation)
{
	const struct tcp_sock *tcp = (const struct tcp_sock *)sk;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	__u64 now = bpf_ktime_get_boot_ns(), fin;

	if (!event)
		return;
	fin = BPF_CORE_READ(sk, __sk_common.skc_flags) >> SOCK_DONE & 1;
	event->header = connection->header;
	event->header.timestamp = now;
	event->operation = operation;
	event->src = connection->src;
	event->dst = connection->dst;
	event->version = is_ipv4(&event->dst) ? 4 : 6;
	event->sent = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans);
	event->received = BPF_CORE_READ(tcp, bytes_received);
	if (fin && event->received)
		event->received--; /* tcp_rcv_nxt_update() counts a FIN as a byte */
	event->duration =
		connection->opened && operation != OPERATION_ACCEPT ? now - connection->opened : DURATION_UNKNOWN;
	gadget_submit(event);
}

/* Describe a connection of the current process. False if the user did not choose the process. */
static __always_inline bool describe(const struct sock *sk, struct connection *connection, bool from_start)
{
	if (!gadget_fill(&connection->header))
		return false;
	connection->opened = from_start ? connection->header.timestamp : 0;
	read_endpoints(sk, &connection->src, &connection->dst);
	return true;
}

/* Add a connection to the table. False if the table is full. */
static __always_inline bool remember(const struct sock *sk, struct connection *connection)
{
	__u64 key = (__u64)sk;

	return !bpf_map_update_elem(&connections, &key, connection, BPF_ANY);
}

/* Remember a connection of the current process. If there is no room, one of its rows is lost, and counted. */
static __always_inline void follow(const struct sock *sk, struct connection *connection, bool from_start)
{
	if (is_tcp(sk) && describe(sk, connection, from_start) && !remember(sk, connection))
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, connection->header.cgroup_id);
}

/* Whether a connection ends because its own process closes it by reset. After a peer's reset or a timeout the socket
 * has an error by now. A connection that was never accepted has no process. */
static __always_inline bool resets(const struct sock *sk, int old)
{
	return (old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT) && !sk->sk_err && sk->sk_socket;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, const struct sock *sk, const int old, const int new)
{
	struct connection *connection, fresh = {};
	__u64 key = (__u64)sk;

	switch (new) {
	case TCP_SYN_SENT:
		fresh.connecting = true;
		follow(sk, &fresh, true);
		break;
	case TCP_ESTABLISHED:
		connection = bpf_map_lookup_elem(&connections, &key);
		if (!connection || !connection->connecting) /* TCP Fast Open accepts before this */
			break;
		connection->connecting = false;
		read_endpoints(sk, &connection->src, &connection->dst);
		send(PROGRAM_STATE, sk, connection, OPERATION_CONNECT); /* the handshake ends here */
		connection->opened = bpf_ktime_get_boot_ns();
		break;
	case TCP_FIN_WAIT1: /* close(2) or shutdown(2) */
	case TCP_LAST_ACK:
		if (!bpf_map_lookup_elem(&connections, &key))
			follow(sk, &fresh, false);
		break;
	case TCP_CLOSE:
		connection = bpf_map_lookup_elem(&connections, &key);
		if (!connection && resets(sk, old) && is_tcp(sk) && describe(sk, &fresh, false))
			connection = &fresh;
		if (!connection)
			break;
		if (old != TCP_SYN_SENT && (old != TCP_SYN_RECV || !connection->connecting))
			send(PROGRAM_STATE, sk, connection, OPERATION_CLOSE);
		bpf_map_delete_elem(&connections, &key);
		break;
	}
	return 0;
}

CALLS(bool) = {
	KNOWN(ACCEPT, true),
	KNOWN_BOTH(ACCEPT4, true),
#if defined(__TARGET_ARCH_arm64)
	KNOWN_32(ACCEPT, true),
#endif
};

SEC("tp_btf/sys_exit")
int BPF_PROG(accept_returned, struct pt_regs *regs, long result)
{
	struct connection fresh = {};
	struct sock *sk;
	__u32 number;

	if (result < 0)
		return 0;
	number = syscall_number(regs);
	if (!known_call(number) || syscall_result(regs, number, result) < 0)
		return 0;
	sk = tcp_socket_of_any(result);
	if (sk && describe(sk, &fresh, true)) {
		remember(sk, &fresh); /* if there is no room, its close is shown as that of an older connection */
		send(PROGRAM_RETURN, sk, &fresh, OPERATION_ACCEPT);
	}
	return 0;
}

/* A connection whose last state change was before it was accepted. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroyed, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct connection *connection = bpf_map_lookup_elem(&connections, &key);

	if (!connection)
		return 0;
	send(PROGRAM_DESTROY, sk, connection, OPERATION_CLOSE);
	bpf_map_delete_elem(&connections, &key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
