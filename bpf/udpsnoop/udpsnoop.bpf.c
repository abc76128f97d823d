// SPDX-License-Identifier: GPL-2.0
/* Conversations over UDP: datagrams between a socket and one peer, until the socket closes or both are silent. */
#define TEXT_SHORT 0
#include "packets.h"
#include "quota.h"

#define CONVERSATIONS 65536 /* at once; one more is not followed, and counted as lost */
#define SHARE         16384 /* of these, so many of one container */
#define PEERS         16    /* of a socket that closes: the last ones to begin; of others, the silence ends it */
#define ANSWERED      4 /* so many times as long is waited after an answer, as the kernel's connection tracking does */
#define CLOCK_BOOT    7 /* linux/time.h, CLOCK_BOOTTIME */

PARAM(gadget_duration, silence, 30000000000,
      "how long nothing is said until a conversation is over; 4 times as long if it was answered");

enum operation {
	OPERATION_BEGIN,
	OPERATION_END,
};
typedef enum operation gadget_operation_words;

enum role {
	ROLE_CLIENT,
	ROLE_SERVER,
};
typedef enum role gadget_role_words;

enum reason {
	REASON_NONE,
	REASON_CLOSED,
	REASON_SILENT,
};
typedef enum reason gadget_reason_words;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("begin or end");
	gadget_role_words role DOC("client if this end spoke first, else server");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_reason_words reason DOC("why it ended: the socket was closed, or both were silent; none of a begin");
	__u64 sent DOC("bytes of data sent");
	__u64 received DOC("bytes of data received");
	__u64 packets_sent DOC("datagrams sent");
	__u64 packets_received DOC("datagrams received");
	gadget_duration duration DOC("of an end, from the first datagram to the last one, in nanoseconds");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

struct conversation_key {
	__u64 cookie; /* of the socket */
	gadget_endpoint peer;
	__u32 unused;
};

struct conversation {
	struct bpf_timer timer;
	struct gadget_header header;
	gadget_endpoint src, before; /* the socket's peer of the conversation before this one */
	__u64 last;                  /* when something was said */
	__u64 bytes[2], packets[2];  /* received, sent */
	bool out;                    /* this end spoke first */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CONVERSATIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct conversation_key);
	__type(value, struct conversation);
} conversations SEC(".maps");

/* The peer of a socket's last conversation to begin. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, gadget_endpoint);
} peers SEC(".maps");

static const struct conversation fresh;

static __always_inline void send(const struct conversation *from, const gadget_endpoint *peer, __u64 now,
				 enum reason reason)
{
	struct gadget_header header = from->header;
	struct event *event;

	header.timestamp = now;
	event = gadget_reserve(&header);
	if (!event)
		return;
	event->operation = reason ? OPERATION_END : OPERATION_BEGIN;
	event->role = from->out ? ROLE_CLIENT : ROLE_SERVER;
	event->reason = reason;
	event->src = from->src;
	event->dst = *peer;
	event->received = from->bytes[0];
	event->sent = from->bytes[1];
	event->packets_received = from->packets[0];
	event->packets_sent = from->packets[1];
	event->duration = reason ? from->last - from->header.timestamp : DURATION_UNKNOWN;
	gadget_send(event);
}

/* End a conversation. Its timer may run out while its socket closes: who deletes it sends the row. */
static __always_inline void end(void *map, struct conversation_key *key, struct conversation *conversation,
				enum reason reason)
{
	struct conversation copy = {};
	__u64 now = bpf_ktime_get_boot_ns();

	copy.header = conversation->header;
	copy.src = conversation->src;
	copy.last = conversation->last;
	copy.out = conversation->out;
	for (int i = 0; i < 2; i++) {
		copy.bytes[i] = conversation->bytes[i];
		copy.packets[i] = conversation->packets[i];
	}
	if (bpf_map_delete_elem(map, key))
		return;
	quota_give(copy.header.cgroup_id);
	send(&copy, &key->peer, now, reason);
}

static int may_be_over(void *map, struct conversation_key *key, struct conversation *conversation)
{
	bool answered = conversation->packets[0] && conversation->packets[1];
	__u64 most = param_silence * (answered ? ANSWERED : 1);
	__u64 now = bpf_ktime_get_boot_ns(), last = conversation->last;

	if (now < last + most)
		bpf_timer_start(&conversation->timer, last + most - now, 0);
	else
		end(map, key, conversation, REASON_SILENT);
	return 0;
}

static __always_inline void begin(struct __sk_buff *skb, bool out, const struct packet_ends *ends,
				  const struct conversation_key *key, __u64 bytes, __u64 packets)
{
	struct gadget_header header = {};
	struct conversation *conversation;
	struct bpf_sock *sk = skb->sk;
	gadget_endpoint *last = NULL;

	if (!gadget_fill_packet(&header, skb, out))
		return;
	if (!quota_take(header.cgroup_id, SHARE)) {
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
		return;
	}
	if (bpf_map_update_elem(&conversations, key, &fresh, BPF_NOEXIST)) {
		quota_give(header.cgroup_id);
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
		return;
	}
	conversation = bpf_map_lookup_elem(&conversations, key);
	if (!conversation)
		return;
	conversation->header = header;
	conversation->src = ends->own;
	conversation->last = header.timestamp;
	conversation->out = out;
	conversation->bytes[out] = bytes;
	conversation->packets[out] = packets;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk)
		last = bpf_sk_storage_get(&peers, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (last) {
		conversation->before = *last;
		*last = key->peer;
	}
	send(conversation, &key->peer, header.timestamp, REASON_NONE);
	if (bpf_timer_init(&conversation->timer, &conversations, CLOCK_BOOT) ||
	    bpf_timer_set_callback(&conversation->timer, may_be_over) ||
	    bpf_timer_start(&conversation->timer, param_silence, 0)) {
		bpf_map_delete_elem(&conversations, key); /* else it might stay for ever */
		quota_give(header.cgroup_id);
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
	}
}

static __always_inline void make_key(struct conversation_key *key, __u64 cookie, const gadget_endpoint *peer)
{
	key->cookie = cookie;
	__builtin_memcpy(key->peer.address, peer->address, sizeof(key->peer.address));
	key->peer.port = peer->port;
}

static __always_inline int passed(struct __sk_buff *skb, bool out)
{
	struct conversation *conversation;
	struct conversation_key key = {};
	struct packet_ends ends = {};
	__u64 bytes, packets;

	if (packet_protocol(skb) != IPPROTO_UDP || !read_packet_ends(skb, out, &ends) || skb->len < ends.payload)
		return 1;
	bytes = skb->len - ends.payload;
	packets = skb->gso_segs ?: 1;
	make_key(&key, bpf_get_socket_cookie(skb), &ends.peer);
	conversation = bpf_map_lookup_elem(&conversations, &key);
	if (!conversation) {
		begin(skb, out, &ends, &key, bytes, packets);
		return 1;
	}
	conversation->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&conversation->bytes[out], bytes);
	__sync_fetch_and_add(&conversation->packets[out], packets);
	return 1;
}

SEC("cgroup_skb/egress")
int datagram_left(struct __sk_buff *skb)
{
	return passed(skb, true);
}

SEC("cgroup_skb/ingress")
int datagram_came(struct __sk_buff *skb)
{
	return passed(skb, false);
}

SEC("cgroup/sock_release")
int closed(struct bpf_sock *sk)
{
	struct conversation *conversation;
	struct conversation_key key = {};
	gadget_endpoint *last, peer;

	if (sk->protocol != IPPROTO_UDP)
		return 1;
	last = bpf_sk_storage_get(&peers, sk, NULL, 0);
	if (!last)
		return 1;
	peer = *last;
	for (int i = 0; i < PEERS; i++) {
		make_key(&key, bpf_get_socket_cookie(sk), &peer);
		conversation = bpf_map_lookup_elem(&conversations, &key);
		if (!conversation)
			break;
		peer = conversation->before;
		end(&conversations, &key, conversation, REASON_CLOSED);
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
