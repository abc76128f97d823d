// SPDX-License-Identifier: GPL-2.0
/* The kernel itself counts what each TCP socket sends and receives. These programs add to a row what has come since
 * they last looked: when a packet arrives, when a process has read, and when the connection's state changes. A look
 * that is missed is made up for by the next. */
#include "table.h"
#include "owner.h"

#define ENTRIES   8192 /* connections that move bytes in an interval; each end that is here counts */
#define SOCK_DONE 1    /* include/net/sock.h, enum sock_flags: the peer's FIN is there */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_pid pid DOC("process that read last, connected, or listened, as the host sees it");
	gadget_uid uid DOC("user id, as the host sees it");
	gadget_comm comm DOC("name of the thread that did");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
};

struct value {
	gadget_size sent DOC("bytes sent in the interval, without those sent again");
	gadget_size received DOC("bytes received");
	__u64 retransmits DOC("segments sent again");
	gadget_latest_duration rtt DOC("smoothed round-trip time in the end, in nanoseconds; none before an answer");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

/* What a socket had counted when a program last looked. Looks hold the socket's lock. */
struct seen {
	__u64 sent, received;
	__u32 retransmits;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct seen);
} seen_of_sockets SEC(".maps");

static __always_inline struct seen look_at(struct sock *sk)
{
	const struct tcp_sock *tcp = (const void *)sk;
	bool fin = BPF_CORE_READ(sk, __sk_common.skc_flags) >> SOCK_DONE & 1;
	struct seen now = {
		.sent = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans),
		.received = BPF_CORE_READ(tcp, bytes_received),
		.retransmits = BPF_CORE_READ(tcp, total_retrans),
	};

	if (fin && now.received)
		now.received--; /* tcp_rcv_nxt_update() counts a FIN as a byte */
	return now;
}

static __always_inline void count(const struct gadget_header *header, struct sock *sk, const struct seen *now,
				  const struct seen *before)
{
	struct value *value;
	struct key key = {};
	__u32 srtt;

	key.cgroup_id = header->cgroup_id;
	key.pid = header->pid;
	key.uid = header->uid;
	__builtin_memcpy(key.comm, header->comm, sizeof(key.comm));
	read_endpoints(sk, &key.src, &key.dst);
	value = gadget_row(&key);
	if (!value)
		return;
	srtt = BPF_CORE_READ((const struct tcp_sock *)sk, srtt_us) >> 3;
	__sync_fetch_and_add(&value->sent, now->sent - before->sent);
	__sync_fetch_and_add(&value->received, now->received - before->received);
	__sync_fetch_and_add(&value->retransmits, now->retransmits - before->retransmits);
	value->rtt = srtt ? srtt * 1000ULL : DURATION_UNKNOWN;
}

/* Count what a socket has done since the last look. begins: there was nothing before; else of a socket that nobody has
 * looked at it is not known when it did what it has. */
static __always_inline int look(struct sock *sk, bool begins)
{
	struct seen now = look_at(sk), before, *seen;
	struct gadget_header header;

	seen = bpf_sk_storage_get(&seen_of_sockets, sk, NULL, 0);
	if (!seen) {
		seen = bpf_sk_storage_get(&seen_of_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (!seen)
			return 0;
		if (!begins)
			*seen = now;
	}
	before = *seen;
	*seen = now;
	if (now.sent == before.sent && now.received == before.received && now.retransmits == before.retransmits)
		return 0;
	if (gadget_fill_socket(&header, sk))
		count(&header, sk, &now, &before);
	return 0;
}

/* A packet has come, and is not taken yet. */
SEC("tp_btf/tcp_probe")
int BPF_PROG(packet_came, struct sock *sk)
{
	return look(sk, false);
}

/* A process has read. A program of the kernel's that reads in its place, in whatever process a packet interrupted, does
 * not own the socket. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(was_read, struct sock *sk)
{
	struct task_struct *task = task_here();

	if (BPF_CORE_READ(sk, sk_lock.owned))
		set_owner(bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE), task);
	return look(sk, false);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, struct sock *sk, int before, int after)
{
	if (!is_tcp(sk) || after == TCP_LISTEN || before == TCP_LISTEN)
		return 0;
	return look(sk,
		    before == TCP_SYN_SENT || before == TCP_SYN_RECV || after == TCP_SYN_SENT || after == TCP_SYN_RECV);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroyed, struct sock *sk)
{
	return look(sk, false);
}

/* A connection that is there already: what it did before does not count. */
SEC("iter/task_file")
int look_older(struct bpf_iter__task_file *found)
{
	struct sock *sk = socket_found(found);
	struct seen *seen;

	if (!sk || !is_tcp(sk) || bpf_sk_storage_get(&seen_of_sockets, sk, NULL, 0))
		return 0;
	seen = bpf_sk_storage_get(&seen_of_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (seen)
		*seen = look_at(sk);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
