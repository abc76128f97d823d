/* SPDX-License-Identifier: GPL-2.0 */
/* Conversations over UDP: datagrams between a socket and one peer, until the socket closes or both are silent. The
 * gadget says which it wants (wants_conversation), and makes its rows of those that begin and end (tell_conversation).
 * They are called from programs that may be interrupted by themselves: see packets.h. */
#pragma once

#include "packets.h"
#include "quota.h"

#define CONVERSATIONS 65536 /* conversations at once; a further one is not followed, and counts as lost */
#define QUOTA         16384 /* conversations of one container among these */
#define PEERS         16 /* conversations that end at once when their socket closes, the newest; silence ends the others */
#define ANSWERED                                                                                                      \
	4 /* an answered conversation may be silent for so many times as long, as in the kernel's connection tracking \
	   */
#define CLOCK_BOOT 7 /* linux/time.h, CLOCK_BOOTTIME */

PARAM(gadget_duration, silence, 30000000000,
      "how long nothing is said until a conversation is over; 4 times as long if it was answered");

enum role {
	ROLE_CLIENT,
	ROLE_SERVER,
};
typedef enum role gadget_role_words;

enum conversation_end {
	END_NONE,
	END_CLOSED,
	END_SILENT,
};

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

static const struct conversation no_conversation;

/* Whether the gadget wants a conversation of these ends. */
static __always_inline bool wants_conversation(const struct packet_ends *ends);

/* Tell that a conversation has begun (why: END_NONE) or ended. */
static __always_inline void tell_conversation(const struct conversation *conversation, const gadget_endpoint *peer,
					      __u64 now, enum conversation_end why);

/* End a conversation. Its timer may run out while its socket closes: only the program that deletes it sends the row. */
static __always_inline void end_conversation(void *map, struct conversation_key *key, struct conversation *conversation,
					     enum conversation_end why)
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
	tell_conversation(&copy, &key->peer, now, why);
}

static int may_be_over(void *map, struct conversation_key *key, struct conversation *conversation)
{
	bool answered = conversation->packets[0] && conversation->packets[1];
	__u64 most = param_silence * (answered ? ANSWERED : 1);
	__u64 now = bpf_ktime_get_boot_ns(), last = conversation->last;

	if (now < last + most)
		bpf_timer_start(&conversation->timer, last + most - now, 0);
	else
		end_conversation(map, key, conversation, END_SILENT);
	return 0;
}

/* A function of its own: what it has on the stack is not there while others run that a packet leads to. */
static __noinline int begin_conversation(struct __sk_buff *skb, bool out, const struct packet_ends *ends,
					 const struct conversation_key *key)
{
	struct gadget_header header = {};
	struct conversation *conversation;
	struct bpf_sock *sk = skb->sk;
	gadget_endpoint *last = NULL;

	if (!gadget_fill_packet(&header, skb, out))
		return 0;
	if (!quota_take(header.cgroup_id, QUOTA)) {
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
		return 0;
	}
	if (bpf_map_update_elem(&conversations, key, &no_conversation, BPF_NOEXIST)) {
		quota_give(header.cgroup_id);
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
		return 0;
	}
	conversation = bpf_map_lookup_elem(&conversations, key);
	if (!conversation)
		return 0;
	conversation->header = header;
	conversation->src = ends->own;
	conversation->last = header.timestamp;
	conversation->out = out;
	conversation->bytes[out] = skb->len - ends->payload;
	conversation->packets[out] = skb->gso_segs ?: 1;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk)
		last = bpf_sk_storage_get(&peers, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (last) {
		conversation->before = *last;
		*last = key->peer;
	}
	tell_conversation(conversation, &key->peer, header.timestamp, END_NONE);
	if (bpf_timer_init(&conversation->timer, &conversations, CLOCK_BOOT) ||
	    bpf_timer_set_callback(&conversation->timer, may_be_over) ||
	    bpf_timer_start(&conversation->timer, param_silence, 0)) {
		bpf_map_delete_elem(&conversations, key); /* else it might stay for ever */
		quota_give(header.cgroup_id);
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
	}
	return 0;
}

static __always_inline void make_key(struct conversation_key *key, __u64 cookie, const gadget_endpoint *peer)
{
	key->cookie = cookie;
	__builtin_memcpy(key->peer.address, peer->address, sizeof(key->peer.address));
	key->peer.port = peer->port;
}

/* A packet leaves (out) or comes, of whatever protocol. Returns what the program has to return. */
static __always_inline int datagram_passed(struct __sk_buff *skb, bool out)
{
	struct conversation *conversation;
	struct conversation_key key = {};
	struct packet_ends ends = {};

	if (packet_protocol(skb) != IPPROTO_UDP || !read_packet_ends(skb, out, &ends) || skb->len < ends.payload)
		return 1;
	make_key(&key, bpf_get_socket_cookie(skb), &ends.peer);
	conversation = bpf_map_lookup_elem(&conversations, &key);
	if (!conversation) {
		if (wants_conversation(&ends))
			begin_conversation(skb, out, &ends, &key);
		return 1;
	}
	conversation->last = bpf_ktime_get_boot_ns();
	__sync_fetch_and_add(&conversation->bytes[out], skb->len - ends.payload);
	__sync_fetch_and_add(&conversation->packets[out], skb->gso_segs ?: 1);
	return 1;
}

SEC("cgroup/sock_release")
int datagrams_end(struct bpf_sock *sk)
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
		end_conversation(&conversations, &key, conversation, END_CLOSED);
	}
	return 1;
}
