// SPDX-License-Identifier: GPL-2.0
/* Flows: what becomes of each TCP connection and UDP conversation of containers, a row at each change.
 *
 * What has to be known of a connection is kept with its socket (owner.h, and connections below), so that the kernel
 * frees it with the socket, and nothing of it can be stale. */
#define TEXT_SHORT 320 /* WORD_MAX, of the kernel's name for why a packet was dropped, and a domain's 254 behind it */
#include "kernel.h"

/* The state of a TCP connection. */
struct connection {
	__u64 began;     /* its first SYN, or that it was accepted; 0: that was not seen */
	__u64 container; /* of its socket; 0: not known */
	__u32 rtt;       /* microseconds, before the end spoils it: the ACK of a FIN may be delayed */
	bool known;      /* else it began before these programs, or is over, or is none */
	bool ingress;
	bool waiting; /* that its first SYN has no answer was told */
	bool reset;   /* the other end sent a RST */
	bool named;   /* it has a domain */
};

/* One storage for all that is kept of a socket: what costs most of a connection is to make it. */
#define KEPT_WITH_OWNER struct connection connection;
#define OWNS_TCP
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

/* A TCP socket and what is kept with it. */
struct end {
	struct sock *sk;
	const struct tcp_sock *tcp; /* the same, for plain loads of what TCP has in it */
	struct socket_owner *owner;
};

/* The two ends of a connection: src is this one. */
static __always_inline void load_endpoints(const struct end *end, gadget_endpoint *src, gadget_endpoint *dst)
{
	const struct sock_common *common = &end->sk->__sk_common;

	if (common->skc_family == AF_INET) {
		set_ipv4(src, common->skc_rcv_saddr);
		set_ipv4(dst, common->skc_daddr);
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)src->address, common, skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)dst->address, common, skc_v6_daddr);
	}
	src->port = bpf_ntohs(end->tcp->inet_conn.icsk_inet.inet_sport);
	dst->port = bpf_ntohs(common->skc_dport);
}

/* Where a connection's socket was made. *id becomes the id of its cgroup, or of its container's. */
static __always_inline enum whereabouts where_made(const struct end *end, __u64 *id)
{
	struct connection *connection = &end->owner->connection;
	enum whereabouts where;
	struct cgroup *cgroup;

	*id = connection->container;
	if (*id)
		return INSIDE;
	cgroup = end->sk->sk_cgrp_data.cgroup;
	*id = cgroup->kn->id;
	where = find_container(cgroup, id);
	if (where == INSIDE)
		connection->container = *id;
	return where;
}

static __always_inline void send(const struct end *end, const struct told *told)
{
	const struct connection *connection = &end->owner->connection;
	const struct tcp_sock *tcp = end->tcp;
	gadget_endpoint src = {}, dst = {};
	struct gadget_header header = {};
	struct domain *domain;
	struct event *event;

	load_endpoints(end, &src, &dst);
	if (is_loopback(dst.address) || !container_chosen(where_made(end, &header.cgroup_id), header.cgroup_id) ||
	    !fill_owner(&header, end->owner))
		return;
	event = gadget_reserve(&header);
	if (!event)
		return;
	event->type = told->type;
	event->verdict = told->verdict;
	event->direction = connection->ingress ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	event->protocol = PROTOCOL_TCP;
	event->src = src;
	event->dst = dst;
	event->version = is_ipv4(&dst) ? 4 : 6;
	event->reason = told->reason;
	event->error = told->error;
	event->duration = told->since ? header.timestamp - told->since : DURATION_UNKNOWN;
	event->rtt = connection->rtt ? connection->rtt * 1000ULL : DURATION_UNKNOWN;
	event->retransmits = tcp->total_retrans;
	if (told->type == TYPE_ENDED) {
		event->sent = tcp->bytes_sent - tcp->bytes_retrans;
		event->received = tcp->bytes_received;
		if (event->received && end->sk->__sk_common.skc_flags >> SOCK_DONE & 1)
			event->received--; /* tcp_rcv_nxt_update() counts a FIN as a byte */
		event->bytes = event->sent + event->received;
	}
	if (told->dropped) {
		event->drop = text_reason(event->text, told->dropped->reason);
		event->header.text_length = WORD_MAX;
	}
	domain = connection->named ? bpf_sk_storage_get(&domains, end->sk, NULL, 0) : NULL;
	if (domain && domain->length)
		add_domain(event, domain->by, domain->name, domain->length);
	gadget_send(event);
}

/* Make the current process the owner of a socket, if the user chose its container. It connects, or begins to listen. */
static __always_inline void note_user(const struct end *end)
{
	struct task_struct *task = current_task();
	struct cgroup *cgroup = task->cgroups->dfl_cgrp;
	__u64 id = cgroup->kn->id;

	if (cgroup_chosen(cgroup, &id))
		load_owner(end->owner, task);
}

/* An attempt begins. */
static __always_inline void begin(const struct end *end)
{
	struct connection *connection = &end->owner->connection;
	gadget_endpoint src = {}, dst = {};
	__u64 container;

	*connection = (struct connection){.began = bpf_ktime_get_boot_ns(), .known = true};
	note_user(end);
	load_endpoints(end, &src, &dst);
	if (is_loopback(dst.address))
		return;
	where_made(end, &container);
	connection->named = name_by_answer(end->sk, container, dst.address);
}

/* The handshake is over. */
static __always_inline void establish(const struct end *end)
{
	struct told told = {.type = TYPE_BEGUN, .verdict = VERDICT_FORWARDED};
	struct connection *connection = &end->owner->connection;

	if (connection->began) {
		told.since = connection->began;
	} else {
		connection->known = connection->ingress = true;
		connection->began = bpf_ktime_get_boot_ns();
	}
	connection->rtt = end->tcp->srtt_us >> 3;
	send(end, &told);
}

/* An attempt has come to nothing. */
static __always_inline void fail(const struct end *end)
{
	struct connection *connection = &end->owner->connection;
	struct told told = {.type = TYPE_FAILED, .error = end->sk->sk_err, .since = connection->began};
	gadget_endpoint src = {}, dst = {};
	const struct fate *fate;

	if (!end->tcp->segs_out)
		return; /* no packet has left */
	if (!told.error)
		told.error = end->sk->sk_err_soft; /* the process gave up, and perhaps was told why */
	load_endpoints(end, &src, &dst);
	fate = fate_of(&src, IPPROTO_TCP, false);
	told.verdict = verdict_of(told.error, connection->reset, fate, connection->began);
	if (was_dropped(fate, connection->began))
		told.dropped = fate;
	send(end, &told);
}

/* A connection is over on both sides, or reset, or given up. */
static __always_inline void finish(const struct end *end, int old)
{
	struct connection *connection = &end->owner->connection;
	struct told told = {.type = TYPE_ENDED, .verdict = VERDICT_FORWARDED, .since = connection->began};

	told.error = end->sk->sk_err;
	if (connection->reset)
		told.reason = REASON_RESET;
	else if (told.error == ETIMEDOUT)
		told.reason = REASON_TIMED_OUT;
	else
		told.reason = old == TCP_ESTABLISHED || old == TCP_CLOSE_WAIT ? REASON_ABORTED : REASON_CLOSED;
	send(end, &told);
}

/* Of a connection that came from outside, the process that closes it is the one that used it: the one that listens may
 * be another one, as where a server has workers. */
static __always_inline void note_closer(const struct end *end)
{
	struct task_struct *task = current_task();
	struct cgroup *cgroup = task->cgroups->dfl_cgrp;
	__u64 id = cgroup->kn->id, own;

	if (where_made(end, &own) == INSIDE && find_container(cgroup, &id) == INSIDE && id == own)
		load_owner(end->owner, task);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, struct sock *sk, int old, int new)
{
	bool make = new == TCP_SYN_SENT || new == TCP_LISTEN || (new == TCP_ESTABLISHED &&old == TCP_SYN_RECV);
	struct end end = {.sk = sk};
	struct connection *connection;

	if (new == TCP_SYN_RECV || new == TCP_FIN_WAIT2 || new == TCP_CLOSING || sk->sk_protocol != IPPROTO_TCP ||
	    !is_ip(sk))
		return 0;
	end.tcp = bpf_skc_to_tcp_sock(sk);
	if (!end.tcp)
		return 0;
	end.owner = bpf_sk_storage_get(&owners, sk, NULL, make ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!end.owner)
		return 0;
	connection = &end.owner->connection;
	if (new == TCP_SYN_SENT) {
		begin(&end);
		return 0;
	}
	if (new == TCP_LISTEN) { /* what is accepted begins with this state */
		*connection = (struct connection){};
		note_user(&end);
		return 0;
	}
	if (new == TCP_ESTABLISHED) {
		if (make || connection->known)
			establish(&end);
		return 0;
	}
	if (!connection->known)
		return 0;
	if (old == TCP_ESTABLISHED)
		connection->rtt = end.tcp->srtt_us >> 3;
	if ((new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK) && connection->ingress)
		note_closer(&end);
	if (new != TCP_CLOSE)
		return 0;
	if (old == TCP_SYN_SENT || (old == TCP_SYN_RECV && !connection->ingress))
		fail(&end);
	else if (old != TCP_SYN_RECV)
		finish(&end, old);
	connection->known = false;
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(was_reset, struct sock *sk)
{
	struct socket_owner *owner = bpf_sk_storage_get(&owners, sk, NULL, 0);

	if (owner)
		owner->connection.reset = true;
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(sent_again, struct sock *sk)
{
	struct told told = {.type = TYPE_WAITING, .verdict = VERDICT_NO_ANSWER};
	struct end end = {.sk = sk};
	struct connection *connection;

	if (sk->__sk_common.skc_state != TCP_SYN_SENT)
		return 0;
	end.tcp = bpf_skc_to_tcp_sock(sk);
	if (!end.tcp)
		return 0;
	end.owner = bpf_sk_storage_get(&owners, sk, NULL, 0);
	if (!end.owner)
		return 0;
	connection = &end.owner->connection;
	if (!connection->known || connection->waiting)
		return 0;
	connection->waiting = true;
	told.since = connection->began;
	send(&end, &told);
	return 0;
}

/* A connection that is there already. Its port tells who began it. */
SEC("iter/task_file")
int older(struct bpf_iter__task_file *found)
{
	struct sock *sk = socket_found(found);
	struct socket_owner *owner;
	__u8 state;

	if (!sk || !is_tcp(sk))
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == TCP_CLOSE || state == TCP_LISTEN || state == TCP_SYN_SENT)
		return 0;
	owner = bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!owner || owner->connection.known)
		return 0;
	owner->connection.ingress = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_bind_hash, fastreuse) >= 0;
	owner->connection.known = true;
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

SEC("cgroup_skb/egress")
int packet_left(struct __sk_buff *skb)
{
	switch (packet_protocol(skb)) {
	case IPPROTO_TCP:
		if (may_be_hello(skb, true))
			read_hello(skb, true);
		break;
	case IPPROTO_UDP:
		return datagram_passed(skb, true);
	case IPPROTO_ICMP:
		if (skb->protocol == bpf_htons(ETH_P_IP))
			note_told(skb, false);
		break;
	case PROTOCOL_ICMPV6:
		if (skb->protocol == bpf_htons(ETH_P_IPV6))
			note_told(skb, true);
	}
	return 1;
}

SEC("cgroup_skb/ingress")
int packet_came(struct __sk_buff *skb)
{
	switch (packet_protocol(skb)) {
	case IPPROTO_TCP:
		if (may_be_hello(skb, false))
			read_hello(skb, false);
		break;
	case IPPROTO_UDP:
		if (packet_has_port(skb, DNS_PORT))
			learn_answer(skb);
		return datagram_passed(skb, false);
	}
	return 1;
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
