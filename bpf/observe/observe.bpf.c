// SPDX-License-Identifier: GPL-2.0
/* Flows: what becomes of each TCP connection and UDP conversation of containers, a row at each change.
 *
 * What has to be known of a connection is kept with its socket (owner.h, and connections below), so that the kernel
 * frees it with the socket, and nothing of it can be stale. */
#define TEXT_SHORT 320 /* WORD_MAX, of the kernel's name for why a packet was dropped, and a domain's 254 behind it */
#include "conversations.h"
#include "domains.h"
#include "drops.h"

/* asm-generic/errno.h */
#define ENETDOWN     100
#define ENETUNREACH  101
#define ETIMEDOUT    110
#define ECONNREFUSED 111
#define EHOSTDOWN    112
#define EHOSTUNREACH 113

#define SENDERS            16384 /* senders of packets that were dropped lately */
#define ICMP_UNREACHABLE   3     /* RFC 792 */
#define ICMPV6_UNREACHABLE 1     /* RFC 4443 */
#define SOCK_DONE          1     /* include/net/sock.h, enum sock_flags: the peer's FIN is there */

enum flow_type {
	TYPE_BEGUN,
	TYPE_WAITING,
	TYPE_FAILED,
	TYPE_ENDED,
};
typedef enum flow_type gadget_type_words;

enum verdict {
	VERDICT_FORWARDED,
	VERDICT_REFUSED,
	VERDICT_REJECTED,
	VERDICT_NO_ANSWER,
	VERDICT_UNREACHABLE,
	VERDICT_DROPPED,
};
typedef enum verdict gadget_verdict_words;

enum direction {
	DIRECTION_EGRESS,
	DIRECTION_INGRESS,
};
typedef enum direction gadget_direction_words;

enum reason {
	REASON_NONE,
	REASON_CLOSED,
	REASON_SILENT,
	REASON_RESET,
	REASON_ABORTED,
	REASON_TIMED_OUT,
};
typedef enum reason gadget_reason_words;

struct event {
	struct gadget_header header;
	gadget_type_words type DOC("begun, waiting (the first SYN has no answer yet), failed or ended");
	gadget_verdict_words verdict DOC("what became of it");
	gadget_direction_words direction DOC("egress if this end began it, else ingress");
	gadget_protocol_words protocol DOC("TCP or UDP");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	__u8 version DOC("IP version: 4 or 6");
	gadget_reason_words
		reason DOC("why it ended: closed, silent (UDP), reset by the other end, aborted by this one "
			   "(RST), timed out; none of others");
	gadget_errno error DOC("the error of a failed connection, if there was one");
	gadget_text drop DOC("the kernel's name for why it dropped a packet of a flow that failed; empty before Linux "
			     "5.17, and if it dropped none");
	gadget_domain domain DOC("the name that the connection was made for, if it is known: what TLS asks for (SNI), "
				 "else the last name that the container asked DNS for and that had the address");
	gadget_domain_by_words domain_by
		DOC("what tells the domain: sni, dns, or an answer of DNS that did not hold any more (stale)");
	__u64 sent DOC("bytes of data sent, without those sent again");
	__u64 received DOC("bytes of data received");
	__u64 bytes DOC("bytes of data both ways");
	__u32 retransmits DOC("TCP segments that were sent again");
	gadget_duration
		duration DOC("of what has begun or failed how long that took, of what has ended how long it went "
			     "on, in nanoseconds; none if its beginning was not seen");
	gadget_duration rtt DOC("round-trip time, smoothed, as TCP had it last, in nanoseconds; none if it had none");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

/* The state that is kept with a TCP socket. */
struct connection {
	__u64 began; /* its first SYN, or that it was accepted; 0: that was not seen */
	__u32 rtt;   /* microseconds, before the end spoils it: the ACK of a FIN may be delayed */
	enum direction direction;
	bool waiting; /* that its first SYN has no answer was told */
	bool reset;   /* the other end sent a RST */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/* Who sent a packet that was dropped, or of which ICMP told. At that time no address has been translated, so it is what
 * the socket says. */
struct sender {
	gadget_endpoint end;
	__u32 protocol;
};

struct fate {
	__u64 dropped, told; /* when; 0: never */
	__u32 reason;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SENDERS);
	__type(key, struct sender);
	__type(value, struct fate);
} fates SEC(".maps");

/* Whether a drop's number is that of a reason, on kernels that have it. */
#define IS_REASON(reason, name)                                                      \
	(bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_##name) && \
	 (reason) == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_##name))

static __always_inline struct fate *fate_of(const gadget_endpoint *end, __u32 protocol, bool make)
{
	struct sender sender = {.protocol = protocol};
	struct fate none = {};

	__builtin_memcpy(sender.end.address, end->address, sizeof(sender.end.address));
	sender.end.port = end->port;
	if (make)
		bpf_map_update_elem(&fates, &sender, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&fates, &sender);
}

/* Whether a packet of such a fate was dropped since then, but for want of somebody who listens, or has the address. */
static __always_inline bool was_dropped(const struct fate *fate, __u64 since)
{
	return fate && fate->dropped >= since && !IS_REASON(fate->reason, NO_SOCKET) &&
	       !IS_REASON(fate->reason, NEIGH_FAILED);
}

/* The verdict on an attempt to connect that failed. answered: by a RST. */
static __always_inline enum verdict verdict_of(int error, bool answered, const struct fate *fate, __u64 since)
{
	bool told = answered || (error && error != ETIMEDOUT) || (fate && fate->told >= since);

	if (was_dropped(fate, since))
		return told ? VERDICT_REJECTED : VERDICT_DROPPED;
	if (answered)
		return VERDICT_REFUSED;
	switch (error) {
	case ENETDOWN:
	case ENETUNREACH:
	case EHOSTDOWN:
	case EHOSTUNREACH:
		return VERDICT_UNREACHABLE;
	}
	return told ? VERDICT_REJECTED : VERDICT_NO_ANSWER; /* ICMP, by which no end of TCP refuses: a filter does */
}

/* The verdict on datagrams without an answer. Perhaps nobody expected one. */
static __always_inline enum verdict verdict_of_unanswered(const struct fate *fate, __u64 since)
{
	if (was_dropped(fate, since))
		return fate->told >= since ? VERDICT_REJECTED : VERDICT_DROPPED;
	if (fate && (fate->told >= since || fate->dropped >= since))
		return VERDICT_REFUSED;
	return VERDICT_NO_ANSWER;
}

struct told {
	enum flow_type type;
	enum reason reason;
	enum verdict verdict;
	int error;
	__u64 since;                /* what duration begins with, 0 if that is not known */
	const struct fate *dropped; /* NULL if nothing of it was dropped */
};

/* The state of this end's TCP socket. NULL if there is none; make: create it then. */
static __always_inline struct connection *connection_of(const struct sock *sk, bool make)
{
	return bpf_sk_storage_get(&connections, (void *)sk, NULL, make ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

/* Add a name to an event, behind a reason's, if that is there. */
static __always_inline void add_domain(struct event *event, enum domain_by by, const char *name, __u32 length)
{
	__u32 at = event->header.text_length ? WORD_MAX : 0;

	length = at_most(length, DOMAIN_BYTES);
	if (bpf_probe_read_kernel(event->text + at, length, name))
		return;
	event->domain_by = by;
	event->domain = (gadget_domain){.offset = at, .length = length};
	event->header.text_length = at + length;
}

static __always_inline void send(const struct sock *sk, const struct connection *connection, const struct told *told)
{
	const struct tcp_sock *tcp = (const struct tcp_sock *)sk;
	gadget_endpoint src = {}, dst = {};
	struct gadget_header header = {};
	struct domain *domain;
	struct event *event;
	bool fin;

	read_endpoints(sk, &src, &dst);
	if (is_loopback(dst.address) || !gadget_fill_socket(&header, (void *)sk))
		return;
	event = gadget_reserve(&header);
	if (!event)
		return;
	event->type = told->type;
	event->verdict = told->verdict;
	event->direction = connection->direction;
	event->protocol = PROTOCOL_TCP;
	event->src = src;
	event->dst = dst;
	event->version = is_ipv4(&dst) ? 4 : 6;
	event->reason = told->reason;
	event->error = told->error;
	event->duration = told->since ? header.timestamp - told->since : DURATION_UNKNOWN;
	event->rtt = connection->rtt ? connection->rtt * 1000ULL : DURATION_UNKNOWN;
	event->retransmits = BPF_CORE_READ(tcp, total_retrans);
	if (told->type == TYPE_ENDED) {
		fin = BPF_CORE_READ(sk, __sk_common.skc_flags) >> SOCK_DONE & 1;
		event->sent = BPF_CORE_READ(tcp, bytes_sent) - BPF_CORE_READ(tcp, bytes_retrans);
		event->received = BPF_CORE_READ(tcp, bytes_received);
		if (fin && event->received)
			event->received--; /* tcp_rcv_nxt_update() counts a FIN as a byte */
		event->bytes = event->sent + event->received;
	}
	if (told->dropped) {
		event->drop = text_reason(event->text, told->dropped->reason);
		event->header.text_length = WORD_MAX;
	}
	domain = bpf_sk_storage_get(&domains, (void *)sk, NULL, 0);
	if (domain && domain->length)
		add_domain(event, domain->by, domain->name, domain->length);
	gadget_send(event);
}

/* An attempt begins. */
static __always_inline void begin(const struct sock *sk)
{
	struct connection *connection = connection_of(sk, true);

	if (!connection)
		return;
	*connection = (struct connection){.began = bpf_ktime_get_boot_ns(), .direction = DIRECTION_EGRESS};
	name_by_answer(sk);
}

/* The handshake is over. */
static __always_inline void establish(const struct sock *sk, int old)
{
	struct told told = {.type = TYPE_BEGUN, .verdict = VERDICT_FORWARDED};
	struct connection *connection = connection_of(sk, old == TCP_SYN_RECV);

	if (!connection) /* it began before these programs */
		return;
	if (!connection->began) {
		connection->direction = DIRECTION_INGRESS;
		connection->began = bpf_ktime_get_boot_ns();
	} else {
		told.since = connection->began;
	}
	connection->rtt = BPF_CORE_READ((const struct tcp_sock *)sk, srtt_us) >> 3;
	send(sk, connection, &told);
}

/* An attempt has come to nothing. */
static __always_inline void fail(const struct sock *sk, struct connection *connection)
{
	struct told told = {.type = TYPE_FAILED, .error = sk->sk_err, .since = connection->began};
	gadget_endpoint src = {}, dst = {};
	const struct fate *fate;

	if (!BPF_CORE_READ((const struct tcp_sock *)sk, segs_out))
		return; /* no packet has left */
	if (!told.error)
		told.error = BPF_CORE_READ(sk, sk_err_soft); /* the process gave up, and perhaps was told why */
	read_endpoints(sk, &src, &dst);
	fate = fate_of(&src, IPPROTO_TCP, false);
	told.verdict = verdict_of(told.error, connection->reset, fate, connection->began);
	if (was_dropped(fate, connection->began))
		told.dropped = fate;
	send(sk, connection, &told);
}

/* A connection is over on both sides, or reset, or given up. */
static __always_inline void finish(const struct sock *sk, struct connection *connection, int old)
{
	struct told told = {.type = TYPE_ENDED, .verdict = VERDICT_FORWARDED, .since = connection->began};

	told.error = sk->sk_err;
	if (connection->reset)
		told.reason = REASON_RESET;
	else if (told.error == ETIMEDOUT)
		told.reason = REASON_TIMED_OUT;
	else
		told.reason = old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT ? REASON_ABORTED : REASON_CLOSED;
	send(sk, connection, &told);
}

/* Of a connection that came from outside, the process that closes it is the one that used it: the one that listens may
 * be another one, as where a server has workers. */
static __always_inline void note_closer(const struct sock *sk)
{
	struct socket_owner *owner = bpf_sk_storage_get(&owners, (void *)sk, NULL, 0);
	struct task_struct *task = task_here();
	struct cgroup *cgroup, *own = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	__u64 id, own_id = BPF_CORE_READ(own, kn, id);

	cgroup = cgroup_of(task, &id);
	if (find_container(cgroup, &id) == INSIDE && find_container(own, &own_id) == INSIDE && id == own_id)
		set_owner(owner, task);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, const struct sock *sk, const int old, const int new)
{
	struct connection *connection;

	if (!is_tcp(sk))
		return 0;
	if (new == TCP_SYN_SENT) {
		begin(sk);
		return 0;
	}
	if (new == TCP_ESTABLISHED) {
		establish(sk, old);
		return 0;
	}
	connection = connection_of(sk, false);
	if (!connection)
		return 0;
	if (old == TCP_ESTABLISHED)
		connection->rtt = BPF_CORE_READ((const struct tcp_sock *)sk, srtt_us) >> 3;
	if ((new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK) && connection->direction == DIRECTION_INGRESS)
		note_closer(sk);
	if (new != TCP_CLOSE)
		return 0;
	if (old == TCP_SYN_SENT || (old == TCP_SYN_RECV && connection->direction == DIRECTION_EGRESS))
		fail(sk, connection);
	else if (old != TCP_SYN_RECV)
		finish(sk, connection, old);
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(was_reset, struct sock *sk)
{
	struct connection *connection = connection_of(sk, false);

	if (connection)
		connection->reset = true;
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(sent_again, const struct sock *sk)
{
	struct told told = {.type = TYPE_WAITING, .verdict = VERDICT_NO_ANSWER};
	struct connection *connection;

	if (sk->__sk_common.skc_state != TCP_SYN_SENT)
		return 0;
	connection = connection_of(sk, false);
	if (!connection || connection->waiting)
		return 0;
	connection->waiting = true;
	told.since = connection->began;
	send(sk, connection, &told);
	return 0;
}

/* A connection that is there already. Its port tells who began it. */
SEC("iter/task_file")
int older(struct bpf_iter__task_file *found)
{
	struct task_struct *task = found->task;
	struct file *file = found->file;
	struct connection *connection;
	struct socket *socket;
	struct sock *sk;
	__u8 state;

	if (!has_socket_of_file() || !task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || !is_tcp(sk))
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == TCP_CLOSE || state == TCP_LISTEN || state == TCP_SYN_SENT)
		return 0;
	connection = bpf_sk_storage_get(&connections, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (connection && !connection->began &&
	    BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_bind_hash, fastreuse) >= 0)
		connection->direction = DIRECTION_INGRESS;
	return 0;
}

/* Packets whose drops are noted: those that begin TCP, and all of UDP. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(dropped, struct sk_buff *skb)
{
	struct dropped_packet packet = {};
	__u32 reason = SKB_DROP_REASON_NOT_SPECIFIED;
	struct fate *fate;

	if (tells_drop_reasons())
		reason = ctx[2];
	if (IS_REASON(reason, NOT_SPECIFIED) || !read_dropped(skb, &packet))
		return 0;
	if (packet.protocol != IPPROTO_UDP && (packet.protocol != IPPROTO_TCP || (packet.flags & (SYN | ACK)) != SYN))
		return 0;
	fate = fate_of(&packet.sender, packet.protocol, true);
	if (!fate)
		return 0;
	fate->dropped = bpf_ktime_get_boot_ns();
	fate->reason = reason;
	return 0;
}

/* ICMP as it leaves, from whatever network of this machine: it tells a sender that its packet does not arrive. The
 * sender's socket may have forgotten that when it is closed. */
static __noinline int note_told(struct __sk_buff *skb, bool six)
{
	__u32 at = six ? 40 : 20, inner;
	gadget_endpoint sender = {};
	__u8 type, header[40], protocol;
	struct fate *fate;
	__be16 port;

	if (bpf_skb_load_bytes(skb, at, &type, 1) || type != (six ? ICMPV6_UNREACHABLE : ICMP_UNREACHABLE))
		return 0;
	at += 8;
	if (bpf_skb_load_bytes(skb, at, header, six ? 40 : 20))
		return 0;
	protocol = header[six ? 6 : 9];
	inner = six ? 40 : (header[0] & 15) * 4;
	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) || bpf_skb_load_bytes(skb, at + inner, &port, 2))
		return 0;
	if (six)
		__builtin_memcpy(sender.address, header + 8, 16);
	else
		set_ipv4(&sender, *(__be32 *)(header + 12));
	sender.port = bpf_ntohs(port);
	fate = fate_of(&sender, protocol, true);
	if (fate)
		fate->told = bpf_ktime_get_boot_ns();
	return 0;
}

/* A function of its own, as others here are: what each has on the stack is not there while another one runs. */
static __noinline int follow(struct __sk_buff *skb, bool out)
{
	return datagram_passed(skb, out);
}

SEC("cgroup_skb/egress")
int packet_left(struct __sk_buff *skb)
{
	__u8 protocol = packet_protocol(skb);

	if (protocol == IPPROTO_ICMP && skb->protocol == bpf_htons(ETH_P_IP))
		note_told(skb, false);
	else if (protocol == PROTOCOL_ICMPV6 && skb->protocol == bpf_htons(ETH_P_IPV6))
		note_told(skb, true);
	else if (protocol == IPPROTO_TCP && may_be_hello(skb, true))
		read_hello(skb, true);
	return follow(skb, true);
}

SEC("cgroup_skb/ingress")
int packet_came(struct __sk_buff *skb)
{
	__u8 protocol = packet_protocol(skb);

	if (protocol == IPPROTO_TCP && may_be_hello(skb, false))
		read_hello(skb, false);
	else if (protocol == IPPROTO_UDP && packet_has_port(skb, DNS_PORT))
		learn_answer(skb);
	return follow(skb, false);
}

static __always_inline bool wants_conversation(const struct packet_ends *ends)
{
	return !is_loopback(ends->peer.address);
}

static __always_inline void tell_conversation(const struct conversation *from, const gadget_endpoint *peer, __u64 now,
					      enum conversation_end why)
{
	bool unanswered = why && from->out && !from->packets[0];
	struct gadget_header header = from->header;
	__u64 began = header.timestamp;
	const struct answered *found = NULL;
	const struct fate *fate = NULL;
	struct event *event;

	header.timestamp = now;
	if (unanswered)
		fate = fate_of(&from->src, IPPROTO_UDP, false);
	event = gadget_reserve(&header);
	if (!event)
		return;
	event->verdict = unanswered ? verdict_of_unanswered(fate, began) : VERDICT_FORWARDED;
	event->type = !why                                                                         ? TYPE_BEGUN
		      : event->verdict == VERDICT_FORWARDED || event->verdict == VERDICT_NO_ANSWER ? TYPE_ENDED
												   : TYPE_FAILED;
	event->direction = from->out ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	event->protocol = PROTOCOL_UDP;
	event->src = from->src;
	event->dst = *peer;
	event->version = is_ipv4(peer) ? 4 : 6;
	event->reason = why == END_CLOSED ? REASON_CLOSED : why ? REASON_SILENT : REASON_NONE;
	event->received = from->bytes[0];
	event->sent = from->bytes[1];
	event->bytes = from->bytes[0] + from->bytes[1];
	event->duration = why ? from->last - began : DURATION_UNKNOWN;
	event->rtt = DURATION_UNKNOWN;
	if (unanswered && was_dropped(fate, began)) {
		event->drop = text_reason(event->text, fate->reason);
		event->header.text_length = WORD_MAX;
	}
	if (from->out)
		found = find_name(header.cgroup_id, peer->address);
	if (found)
		add_domain(event, still_holds(found, now), found->name, found->length);
	gadget_send(event);
}

char LICENSE[] SEC("license") = "GPL";
