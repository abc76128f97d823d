// SPDX-License-Identifier: GPL-2.0
/* Who talks to whom: for each container, direction, protocol, peer and port of the server, when and how often.
 *
 * TCP is told by the state changes of sockets: twice in the life of a connection. UDP and the like have no state, so
 * their packets are looked at where they enter and leave a cgroup; who spoke first is the client. */
#include "containers.h"
#include "sockets.h"

#define ETH_P_IP          0x0800
#define ETH_P_IPV6        0x86DD
#define IPPROTO_ICMPV6    58
#define ICMPV6_ECHO_REPLY 129 /* higher ones are of neighbour discovery and multicast: RFC 4861, RFC 2710 */
/* As connection tracking forgets UDP that nobody answers (nf_conntrack_udp_timeout): after that, whoever speaks first
 * begins anew, also in the eyes of a NetworkPolicy. */
#define TALK_NS (30 * 1000000000ULL)
/* How exact "last seen" is of a talk that goes on, and how seldom it is written. */
#define NOTE_NS 1000000000ULL

enum direction {
	DIRECTION_EGRESS,
	DIRECTION_INGRESS,
};

struct names {
	enum direction direction;
};
RECORD(names);

struct flow_key {
	__u64 cgroup_id; /* the container's own, or one that nobody knew yet */
	__u8 peer[16];   /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;      /* the server's; 0 where the protocol has none */
	__u8 protocol;
	__u8 direction;
	__u32 unused;
};
RECORD(flow_key);

struct flow {
	__u64 first, last; /* CLOCK_BOOTTIME, nanoseconds */
	__u64 count;       /* connections, or talks over UDP */
	__u64 failed;      /* of these, attempts that came to nothing */
	__u8 local[16];    /* the container's address */
	__u64 older;       /* of these, connections from before the recorder, which found them */
};
RECORD(flow);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768); /* of 180 bytes each; the agent removes the oldest before it is full */
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Flows that found the table full, by nobody. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} flows_lost SEC(".maps");

/* A socket and whom it talks to: so that only the first packet, and one a second, costs more than a look. */
struct talk_key {
	__u64 cookie;
	__u8 peer[16];
	__u16 port; /* the peer's */
	__u16 protocol;
	__u32 unused;
};

struct talk {
	__u64 last;
	__u64 direction;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct talk_key);
	__type(value, struct talk);
} talks SEC(".maps");

static __always_inline bool is_loopback(const __u8 *address)
{
	const __u32 *words = (const void *)address;

	if (words[0] || words[1])
		return false;
	if (words[2] == bpf_htonl(0xffff))
		return address[12] == 127;
	return !words[2] && words[3] == bpf_htonl(1);
}

/* Whose a socket's cgroup is. False for the host's. */
static __always_inline bool container_of_cgroup(__u64 cgroup_id, __u64 *container)
{
	__u64 *known = bpf_map_lookup_elem(&containers, &cgroup_id);

	*container = known ? *known : cgroup_id;
	return !known || *known != CGROUP_OF_HOST;
}

static __always_inline void note(struct flow_key *key, const __u8 *local, bool failed)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key), new = {};
	__u32 zero = 0;
	__u64 *lost;

	if (!flow) {
		new.first = new.last = bpf_ktime_get_boot_ns();
		__builtin_memcpy(new.local, local, sizeof(new.local));
		if (bpf_map_update_elem(&flows, key, &new, BPF_NOEXIST) == -7 /* E2BIG */) {
			lost = bpf_map_lookup_elem(&flows_lost, &zero);
			if (lost)
				__sync_fetch_and_add(lost, 1);
			return;
		}
		flow = bpf_map_lookup_elem(&flows, key);
		if (!flow)
			return;
	}
	flow->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&flow->count, 1);
	if (failed)
		__sync_fetch_and_add(&flow->failed, 1);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_changed, const struct sock *sk, int before, int after)
{
	gadget_endpoint local = {}, peer = {};
	struct flow_key key = {.protocol = IPPROTO_TCP};
	__u64 cgroup_id;

	if (after != TCP_ESTABLISHED && !(before == TCP_SYN_SENT && after == TCP_CLOSE))
		return 0;
	if (before != TCP_SYN_SENT && before != TCP_SYN_RECV)
		return 0;
	if (!is_tcp(sk))
		return 0;
	/* the socket's, which is who made it: this runs in whatever process the packet interrupted */
	cgroup_id = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	if (!container_of_cgroup(cgroup_id, &key.cgroup_id))
		return 0;
	read_endpoints(sk, &local, &peer);
	if (is_loopback(peer.address))
		return 0;
	__builtin_memcpy(key.peer, peer.address, sizeof(key.peer));
	key.direction = before == TCP_SYN_SENT ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	key.port = key.direction == DIRECTION_EGRESS ? peer.port : local.port;
	note(&key, local.address, after == TCP_CLOSE);
	return 0;
}

struct packet {
	__u8 source[16], target[16];
	__u16 source_port, target_port; /* network order */
	__u8 protocol;
};

/* The ends of a packet that begins at its IP header. False for TCP, at the least cost, and for what is no IP. */
static __always_inline bool read_packet(struct __sk_buff *skb, struct packet *packet)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 header;
	__u8 type;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + 20 > end || data[9] == IPPROTO_TCP)
			return false;
		packet->protocol = data[9];
		header = (data[0] & 15) * 4;
		packet->source[10] = packet->source[11] = packet->target[10] = packet->target[11] = 0xff;
		__builtin_memcpy(packet->source + 12, data + 12, 4);
		__builtin_memcpy(packet->target + 12, data + 16, 4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + 40 > end || data[6] == IPPROTO_TCP)
			return false;
		packet->protocol = data[6]; /* what is behind extension headers counts as that extension */
		header = 40;
		__builtin_memcpy(packet->source, data + 8, 16);
		__builtin_memcpy(packet->target, data + 24, 16);
	} else {
		return false;
	}
	if (packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_SCTP ||
	    packet->protocol == IPPROTO_UDPLITE) {
		/* both ports at once; a message of no payload may lie outside the linear part */
		if (bpf_skb_load_bytes(skb, header, &packet->source_port, 4))
			return false;
	} else if (packet->protocol == IPPROTO_ICMPV6) {
		/* neighbours and routers, asked for by the kernel itself: no policy is about them */
		if (bpf_skb_load_bytes(skb, header, &type, 1) || type > ICMPV6_ECHO_REPLY)
			return false;
	}
	return true;
}

static __always_inline bool is_recent(struct flow_key *key, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	return flow && now - flow->last < TALK_NS;
}

static __always_inline int packet_passed(struct __sk_buff *skb, bool out)
{
	struct packet packet = {};
	struct talk_key talking = {};
	struct talk *known, talk = {};
	struct flow_key key = {}, other;
	struct flow *flow;
	const __u8 *local;
	__u16 own_port, peer_port;

	if (!read_packet(skb, &packet))
		return 1;
	talking.cookie = bpf_get_socket_cookie(skb);
	if (!talking.cookie) /* no socket: nobody's */
		return 1;
	__builtin_memcpy(talking.peer, out ? packet.target : packet.source, 16);
	local = out ? packet.source : packet.target;
	peer_port = bpf_ntohs(out ? packet.target_port : packet.source_port);
	own_port = bpf_ntohs(out ? packet.source_port : packet.target_port);
	talking.port = peer_port;
	talking.protocol = packet.protocol;
	talk.last = bpf_ktime_get_boot_ns();
	known = bpf_map_lookup_elem(&talks, &talking);
	if (known && talk.last - known->last < NOTE_NS)
		return 1;
	if (is_loopback(talking.peer) || !container_of_cgroup(bpf_skb_cgroup_id(skb), &key.cgroup_id))
		return 1;
	__builtin_memcpy(key.peer, talking.peer, 16);
	key.protocol = packet.protocol;
	if (known && talk.last - known->last < TALK_NS) {
		talk.direction = known->direction;
		known->last = talk.last;
		key.direction = talk.direction;
		key.port = talk.direction == DIRECTION_EGRESS ? peer_port : own_port;
		flow = bpf_map_lookup_elem(&flows, &key);
		if (flow)
			flow->last = talk.last;
		return 1;
	}
	/* an answer to what has been forgotten, or a talk that begins */
	other = key;
	other.direction = out ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	other.port = out ? own_port : peer_port;
	key.direction = out ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	key.port = out ? peer_port : own_port;
	if (!known && is_recent(&other, talk.last)) {
		talk.direction = other.direction;
	} else {
		talk.direction = key.direction;
		note(&key, local, false);
	}
	bpf_map_update_elem(&talks, &talking, &talk, BPF_ANY);
	return 1;
}

SEC("cgroup_skb/egress")
int packet_left(struct __sk_buff *skb)
{
	return packet_passed(skb, true);
}

SEC("cgroup_skb/ingress")
int packet_came(struct __sk_buff *skb)
{
	return packet_passed(skb, false);
}

char LICENSE[] SEC("license") = "GPL";
