// SPDX-License-Identifier: GPL-2.0
/* Who talks to whom. A flow is a container, a direction, a protocol, a peer and the server's port; the table says when
 * and how often each was seen.
 *
 * TCP connections are seen by the state changes of sockets, twice in the life of each. UDP and the like have no state,
 * so these programs look at packets as they enter and leave a cgroup. A conversation is the packets of a socket and one
 * peer; the side that spoke first is the client. */
#include "containers.h"
#include "sockets.h"

#define IPPROTO_ICMPV6    58
#define ICMPV6_ECHO_REPLY 129 /* higher types are neighbour discovery and multicast: RFC 4861, RFC 2710 */
#define SCTP_INIT         1   /* RFC 9260 */
#define EPHEMERAL         32768
/* How often "last seen" of a conversation is written, and so how exact it is. */
#define NOTE_NS 1000000000ULL

/* After how much silence a conversation is over: one that nobody answered, and one that was answered. Connection
 * tracking has the same times (nf_conntrack_udp_timeout, nf_conntrack_udp_timeout_stream). Whoever speaks next begins a
 * new conversation, and a NetworkPolicy sees it so, too. */
const volatile __u64 unanswered_ns = 30 * 1000000000ULL;
const volatile __u64 answered_ns = 120 * 1000000000ULL;
/* When these programs began (CLOCK_BOOTTIME). For a while after that, the first packet that they see of a conversation
 * may be an answer to a packet from before. */
const volatile __u64 began = 0;

enum direction {
	DIRECTION_EGRESS,
	DIRECTION_INGRESS,
};

struct names {
	enum direction direction;
};
RECORD(names);

struct flow_key {
	__u64 cgroup_id; /* the container's own cgroup, or a cgroup that was not known yet */
	__u8 peer[16];   /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;      /* the server's; 0 where the protocol has none */
	__u8 protocol;
	__u8 direction;
	__u32 unused;
};
RECORD(flow_key);

struct flow {
	__u64 first, last; /* CLOCK_BOOTTIME, nanoseconds */
	__u64 count;       /* connections, or conversations over UDP */
	__u64 failed;      /* attempts among these that failed */
	__u8 local[16];    /* the container's address */
	__u64 older;       /* connections among these that are older than the recorder */
};
RECORD(flow);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768); /* of 180 bytes each; the agent removes the oldest before it is full */
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* How many flows found the table full. Nobody resets it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} flows_lost SEC(".maps");

/* How many flows were ever put into the table. By this the agent sees that the table fills up, without reading it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} flows_made SEC(".maps");

/* A socket and its peer. With it only the first packet of a conversation, and one a second, costs more than a look-up.
 */
struct talk_key {
	__u64 cookie;
	__u8 peer[16];
	__u16 port; /* the peer's */
	__u16 protocol;
	__u32 unused;
};

struct talk {
	__u64 last;
	__u32 direction;
	__u16 answered;
	__u16 lost; /* its flow found no room in the table, and has been counted as lost */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct talk_key);
	__type(value, struct talk);
} talks SEC(".maps");

/* Add a connection or a conversation to its flow. False if the flow is new and the table is full. */
static __always_inline bool note(struct flow_key *key, const __u8 *local, bool failed)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key), new = {};
	__u32 zero = 0;
	__u64 *made;
	int done;

	if (!flow) {
		new.first = new.last = bpf_ktime_get_boot_ns();
		__builtin_memcpy(new.local, local, sizeof(new.local));
		done = bpf_map_update_elem(&flows, key, &new, BPF_NOEXIST);
		if (done == -7 /* E2BIG */)
			return false;
		made = bpf_map_lookup_elem(&flows_made, &zero);
		if (made && !done)
			__sync_fetch_and_add(made, 1);
		flow = bpf_map_lookup_elem(&flows, key);
		if (!flow)
			return true;
	}
	flow->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&flow->count, 1);
	if (failed)
		__sync_fetch_and_add(&flow->failed, 1);
	return true;
}

static __always_inline void count_lost(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&flows_lost, &zero);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

static __always_inline bool touch(struct flow_key *key, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (flow)
		flow->last = now;
	return flow;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_changed, const struct sock *sk, int before, int after)
{
	gadget_endpoint local = {}, peer = {};
	struct flow_key key = {.protocol = IPPROTO_TCP};
	bool ends = before == TCP_ESTABLISHED;
	struct cgroup *cgroup;

	if (!ends && after != TCP_ESTABLISHED && !(before == TCP_SYN_SENT && after == TCP_CLOSE))
		return 0;
	if (!ends && before != TCP_SYN_SENT && before != TCP_SYN_RECV)
		return 0;
	if (!is_tcp(sk))
		return 0;
	/* the cgroup of the socket, so of the process that made it: this runs in whatever process the packet
	 * interrupted */
	cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	key.cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	if (find_container(cgroup, &key.cgroup_id) == OUTSIDE)
		return 0;
	read_endpoints(sk, &local, &peer);
	if (is_loopback(peer.address))
		return 0;
	__builtin_memcpy(key.peer, peer.address, sizeof(key.peer));
	key.direction = before == TCP_SYN_RECV ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	key.port = key.direction == DIRECTION_EGRESS ? peer.port : local.port;
	if (!ends) {
		if (!note(&key, local.address, after == TCP_CLOSE))
			count_lost();
	} else if (!touch(&key, bpf_ktime_get_boot_ns())) { /* it is not known any more who began it */
		key.direction = DIRECTION_INGRESS;
		key.port = local.port;
		touch(&key, bpf_ktime_get_boot_ns());
	}
	return 0;
}

struct packet {
	__u8 source[16], target[16];
	__u16 source_port, target_port; /* network order */
	__u8 protocol;
	bool begins; /* it says that it begins a conversation, as SCTP's INIT does */
};

/* Whether a packet is TCP's; skb begins at its IP header. Nothing else is done with most packets. */
static __always_inline bool is_tcp_packet(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + 20 > end)
		return false;
	return data[skb->protocol == bpf_htons(ETH_P_IP) ? 9 : 6] == IPPROTO_TCP;
}

/* Read the two ends of a packet that is not TCP's. False if it is not IP, or if no policy is about it. */
static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *packet)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 header;
	__u8 type;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + 20 > end)
			return false;
		packet->protocol = data[9];
		header = (data[0] & 15) * 4;
		packet->source[10] = packet->source[11] = packet->target[10] = packet->target[11] = 0xff;
		__builtin_memcpy(packet->source + 12, data + 12, 4);
		__builtin_memcpy(packet->target + 12, data + 16, 4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + 40 > end)
			return false;
		packet->protocol = data[6]; /* if there are extension headers, the first one counts as the protocol */
		header = 40;
		__builtin_memcpy(packet->source, data + 8, 16);
		__builtin_memcpy(packet->target, data + 24, 16);
	} else {
		return false;
	}
	if (packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_SCTP ||
	    packet->protocol == IPPROTO_UDPLITE) {
		/* both ports at once; the header of a message without payload may lie outside the linear part */
		if (bpf_skb_load_bytes(skb, header, &packet->source_port, 4))
			return false;
		if (packet->protocol == IPPROTO_SCTP)
			packet->begins = !bpf_skb_load_bytes(skb, header + 12, &type, 1) && type == SCTP_INIT;
	} else if (packet->protocol == IPPROTO_ICMPV6) {
		/* The kernel itself asks for neighbours and routers. No policy is about these packets. */
		if (bpf_skb_load_bytes(skb, header, &type, 1) || type > ICMPV6_ECHO_REPLY)
			return false;
	}
	return true;
}

/* Whether a flow is in the table and was seen lately. */
static __always_inline bool is_recent(struct flow_key *key, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	return flow && now - flow->last < answered_ns;
}

/* How much a port looks like a client's: 0 for a port of the system, 2 for a port that the kernel gives to clients, 1
 * for any other. */
static __always_inline int rank(__u16 port)
{
	return port < 1024 ? 0 : port < EPHEMERAL ? 1 : 2;
}

/* Whether a conversation had ended before this packet. */
static __always_inline bool is_over(const struct talk *talk, const struct packet *packet, __u64 now)
{
	__u64 silent = now - talk->last;

	if (packet->protocol == IPPROTO_SCTP) /* SCTP sends heartbeats every 30 s and a little more: RFC 9260, 8.3 */
		return packet->begins && silent >= unanswered_ns;
	return silent >= (talk->answered ? answered_ns : unanswered_ns);
}

/* Whether the first packet seen of a conversation is an answer: the conversation may have begun earlier. The packet
 * belongs to flow `first` if its sender is the client, and to flow `other` if its receiver is. */
static __always_inline bool is_answer(const struct packet *packet, struct flow_key *first, struct flow_key *other,
				      __u64 now)
{
	int sender = rank(bpf_ntohs(packet->source_port)), receiver = rank(bpf_ntohs(packet->target_port));

	if (packet->begins)
		return false;
	if (!packet->source_port &&
	    !packet->target_port) /* ICMP: every socket for it hears the answers to all others */
		return is_recent(other, now);
	if (packet->protocol == IPPROTO_SCTP && sender == receiver)
		return !bpf_map_lookup_elem(&flows, first) && bpf_map_lookup_elem(&flows, other);
	if (sender >= receiver)
		return false;
	return packet->protocol == IPPROTO_SCTP || now - began < answered_ns || is_recent(other, now);
}

static __always_inline int packet_passed(struct __sk_buff *skb, bool out)
{
	struct packet packet = {};
	struct talk_key talking = {};
	struct talk *known, talk = {};
	struct flow_key key = {}, other;
	const __u8 *local;
	__u16 own_port, peer_port;
	bool answers;

	if (!read_packet(skb, &packet))
		return 1;
	talking.cookie = bpf_get_socket_cookie(skb);
	if (!talking.cookie) /* no socket, so no container */
		return 1;
	__builtin_memcpy(talking.peer, out ? packet.target : packet.source, 16);
	local = out ? packet.source : packet.target;
	peer_port = bpf_ntohs(out ? packet.target_port : packet.source_port);
	own_port = bpf_ntohs(out ? packet.source_port : packet.target_port);
	talking.port = peer_port;
	talking.protocol = packet.protocol;
	talk.last = bpf_ktime_get_boot_ns();
	known = bpf_map_lookup_elem(&talks, &talking);
	answers = known && known->direction == (out ? DIRECTION_INGRESS : DIRECTION_EGRESS);
	if (known && talk.last - known->last < NOTE_NS && (known->answered || !answers))
		return 1;
	if (is_loopback(talking.peer) || find_container_of_packet(skb, &key.cgroup_id) == OUTSIDE)
		return 1;
	__builtin_memcpy(key.peer, talking.peer, 16);
	key.protocol = packet.protocol;
	key.direction = out ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	key.port = out ? peer_port : own_port;
	other = key;
	other.direction = out ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	other.port = out ? own_port : peer_port;
	if (known && !is_over(known, &packet, talk.last)) {
		known->answered |= answers;
		known->last = talk.last;
		if (answers)
			key = other;
		if (touch(&key, talk.last))
			return 1;
		/* the flow was removed to make room, or never found any */
		if (note(&key, local, false)) {
			known->lost = 0;
		} else if (!known->lost) {
			known->lost = 1;
			count_lost();
		}
		return 1;
	}
	if (!known && is_answer(&packet, &key, &other, talk.last)) {
		key = other;
		talk.answered = 1;
	}
	talk.direction = key.direction;
	if (!(talk.answered || (packet.protocol == IPPROTO_SCTP && !packet.begins)) || !touch(&key, talk.last))
		if (!note(&key, local, false)) {
			talk.lost = 1;
			count_lost();
		}
	bpf_map_update_elem(&talks, &talking, &talk, BPF_ANY);
	return 1;
}

SEC("cgroup_skb/egress")
int packet_left(struct __sk_buff *skb)
{
	return is_tcp_packet(skb) ? 1 : packet_passed(skb, true);
}

SEC("cgroup_skb/ingress")
int packet_came(struct __sk_buff *skb)
{
	return is_tcp_packet(skb) ? 1 : packet_passed(skb, false);
}

char LICENSE[] SEC("license") = "GPL";
