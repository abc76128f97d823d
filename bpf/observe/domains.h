/* SPDX-License-Identifier: GPL-2.0 */
/* The names that connections are made for: what the client's first message of TLS asks for (SNI), else the last name
 * that the container asked DNS for and that had the address then. Both are a container's own word. */
#pragma once

#include "conversations.h"

#define DOMAIN_BYTES 253  /* the longest name as text: RFC 1035, 2.3.4 */
#define NAMED        8192 /* addresses with names; the oldest make room */
#define NAMED_BITS   9    /* bits of a container's own table: 512 addresses, each with one place in it */
#define RECORDS      24   /* records that are read of an answer */
#define LABELS       32   /* labels of a name; a longer name is not kept */
#define EXTENSIONS   32   /* extensions that are read of a hello; Chrome's has 18 */

#define DNS_PORT     53
#define DNS_HEADER   12 /* RFC 1035, 4.1.1 */
#define DNS_A        1
#define DNS_AAAA     28
#define DNS_IN       1
#define TLS_HEADER   5 /* a record's type, version and length. RFC 8446, 5.1 */
#define TLS_RECORD   22
#define HELLO_HEADER 4 /* type, length of three bytes. RFC 8446, 4 */
#define HELLO_TYPE   1
#define HELLO_FIXED  34 /* version, random */
#define SERVER_NAME  0  /* the extension. RFC 6066, 3 */
/* The shortest hello with a name: no session, one cipher, one compression, and a name of one letter. */
#define HELLO_LEAST (TLS_HEADER + HELLO_HEADER + HELLO_FIXED + 1 + 4 + 2 + 2 + 10)

enum domain_by {
	BY_NONE,
	BY_SNI,
	BY_DNS,
	BY_STALE, /* by an answer of DNS that did not hold any more */
};
typedef enum domain_by gadget_domain_by_words;

typedef struct gadget_slice gadget_domain; /* kinds.py */

struct domain {
	__u8 by, length;
	char name[DOMAIN_BYTES + 1];
};

/* Of the connections that have one. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct domain);
} domains SEC(".maps");

struct answered_key {
	__u64 container;
	__u64 place;
};

struct answered {
	__u8 address[16];
	__u64 until;
	__u32 length;
	char name[DOMAIN_BYTES + 3];
};

/* A container overwrites its own names, whatever it asks for, before it pushes out those of others. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NAMED);
	__type(key, struct answered_key);
	__type(value, struct answered);
} answered SEC(".maps");

static const struct answered nothing_answered;

static __always_inline struct answered *answered_for(__u64 container, const __u8 *address, bool make)
{
	const __u32 *words = (const void *)address;
	__u32 hash = (words[0] ^ words[1] * 31 ^ words[2] * 37 ^ words[3]) * 2654435761U;
	struct answered_key key = {.container = container, .place = hash >> (32 - NAMED_BITS)};

	if (make)
		bpf_map_update_elem(&answered, &key, &nothing_answered, BPF_NOEXIST);
	return bpf_map_lookup_elem(&answered, &key);
}

/* The name that an address had when the container asked for it last. NULL if there is none. */
static __always_inline const struct answered *find_name(__u64 container, const __u8 *address)
{
	const struct answered *found = answered_for(container, address, false);
	const __u64 *have, *want = (const void *)address;

	if (!found || !found->length)
		return NULL;
	have = (const void *)found->address;
	return have[0] == want[0] && have[1] == want[1] ? found : NULL;
}

static __always_inline enum domain_by still_holds(const struct answered *found, __u64 now)
{
	return found->until >= now ? BY_DNS : BY_STALE;
}

/* A connection begins: its name is the one that its address has now. False if it has none. */
static __always_inline bool name_by_answer(struct sock *sk, __u64 container, const __u8 *address)
{
	const struct answered *found = find_name(container, address);
	struct domain *domain;

	if (!found)
		return false;
	domain = bpf_sk_storage_get(&domains, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!domain)
		return false;
	domain->by = still_holds(found, bpf_ktime_get_boot_ns());
	domain->length = at_most(found->length, DOMAIN_BYTES);
	bpf_probe_read_kernel(domain->name, DOMAIN_BYTES, found->name);
	return true;
}

/* Keep a name for an address. from: where its first label is in the packet; first: how long that is. */
static __always_inline void keep_name(struct __sk_buff *skb, __u64 container, const __u8 *address, __u32 from,
				      __u32 length, __u8 first, __u64 until)
{
	struct answered *kept = answered_for(container, address, true);
	__u32 at = first;
	__u8 size;

	if (!kept)
		return;
	kept->length = 0; /* meanwhile nobody takes it */
	length = at_most(length - 1, DOMAIN_BYTES - 1) + 1;
	if (bpf_skb_load_bytes(skb, from, kept->name, length))
		return;
	for (int i = 0; i < LABELS && at < length; i++) {
		size = kept->name[at & 0xff];
		kept->name[at & 0xff] = '.';
		at += 1 + size;
	}
	__builtin_memcpy(kept->address, address, sizeof(kept->address));
	kept->until = until;
	kept->length = length;
}

/* Where a name of a packet ends, 0 if it makes no sense. whole: its end may not be elsewhere. */
__noinline int behind_name(struct __sk_buff *skb, __u32 at, int whole)
{
	__u8 size;

	for (int i = 0; i <= LABELS; i++) {
		if (bpf_skb_load_bytes(skb, at, &size, 1))
			return 0;
		if (size >> 6 == 3 && !whole)
			return at + 2;
		if (size >> 6)
			return 0;
		at += 1 + size;
		if (!size)
			return at;
	}
	return 0;
}

/* Learn what an answer of DNS says, if this socket asked. */
__noinline int learn_answer(struct __sk_buff *skb)
{
	struct {
		__be16 type, group;
		__be32 seconds;
		__be16 length;
	} __attribute__((packed)) record;
	__be16 header[DNS_HEADER / 2];
	struct conversation *conversation;
	struct conversation_key key = {};
	struct packet_ends ends = {};
	gadget_endpoint address;
	__u32 from, at, length;
	__u64 container, now;
	__u8 first;

	if (!read_packet_ends(skb, false, &ends) || ends.protocol != IPPROTO_UDP || ends.peer.port != DNS_PORT ||
	    bpf_skb_load_bytes(skb, ends.payload, header, sizeof(header)))
		return 0;
	if ((header[1] & bpf_htons(0xF80F)) != bpf_htons(0x8000) || header[2] != bpf_htons(1))
		return 0;
	make_key(&key, bpf_get_socket_cookie(skb), &ends.peer);
	conversation = bpf_map_lookup_elem(&conversations, &key);
	if (!conversation || !conversation->out)
		return 0;
	container = conversation->header.cgroup_id;
	from = ends.payload + DNS_HEADER;
	at = behind_name(skb, from, true);
	length = at - from - 2; /* without the first size, and the root */
	if (at < from + 3 || length > DOMAIN_BYTES || bpf_skb_load_bytes(skb, from, &first, 1) || first > 63)
		return 0;
	at += 4; /* its type and class */
	now = bpf_ktime_get_boot_ns();
	for (int i = 0; i < RECORDS; i++) {
		at = behind_name(skb, at, false);
		if (!at || bpf_skb_load_bytes(skb, at, &record, sizeof(record)))
			break;
		at += sizeof(record);
		address = (gadget_endpoint){};
		if (record.type == bpf_htons(DNS_A) && record.length == bpf_htons(4)) {
			__be32 ipv4;

			if (bpf_skb_load_bytes(skb, at, &ipv4, sizeof(ipv4)))
				break;
			set_ipv4(&address, ipv4);
		} else if (record.type == bpf_htons(DNS_AAAA) && record.length == bpf_htons(16)) {
			if (bpf_skb_load_bytes(skb, at, address.address, sizeof(address.address)))
				break;
		} else {
			at += bpf_ntohs(record.length);
			continue;
		}
		at += bpf_ntohs(record.length);
		if (record.group == bpf_htons(DNS_IN))
			keep_name(skb, container, address.address, from + 1, length, first,
				  now + bpf_ntohl(record.seconds) * 1000000000ULL);
	}
	return 0;
}

/* Name a connection by the hello that a packet begins with, if it does. */
__noinline int read_hello(struct __sk_buff *skb, int out)
{
	struct packet_ends ends = {};
	struct socket_owner *owner;
	struct domain *domain;
	struct bpf_sock *sk;
	__u8 begin[TLS_HEADER + 1], size;
	__be16 part[2], length;
	__u32 at;

	if (!read_packet_ends(skb, out, &ends) || is_loopback(ends.peer.address) ||
	    bpf_skb_load_bytes(skb, ends.payload, begin, sizeof(begin)) || begin[0] != TLS_RECORD || begin[1] != 3 ||
	    begin[TLS_HEADER] != HELLO_TYPE)
		return 0;
	at = ends.payload + TLS_HEADER + HELLO_HEADER + HELLO_FIXED;
	if (bpf_skb_load_bytes(skb, at, &size, 1)) /* the session */
		return 0;
	at += 1 + size;
	if (bpf_skb_load_bytes(skb, at, &length, sizeof(length))) /* ciphers */
		return 0;
	at += sizeof(length) + bpf_ntohs(length);
	if (bpf_skb_load_bytes(skb, at, &size, 1)) /* compressions */
		return 0;
	at += 1 + size + sizeof(length);
	for (int i = 0; i < EXTENSIONS; i++) {
		if (bpf_skb_load_bytes(skb, at, part, sizeof(part)))
			return 0;
		at += sizeof(part);
		if (part[0] == bpf_htons(SERVER_NAME))
			goto found;
		at += bpf_ntohs(part[1]);
	}
	return 0;
found:
	at += 3; /* the length of the list, and the type of the name, of which there is one */
	if (bpf_skb_load_bytes(skb, at, &length, sizeof(length)))
		return 0;
	length = bpf_ntohs(length);
	if (!length || length > DOMAIN_BYTES || at + sizeof(length) + length > skb->len)
		return 0; /* of a hello that is cut within the name, what DNS said stays */
	sk = skb->sk;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	domain = bpf_sk_storage_get(&domains, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	owner = bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!domain || !owner)
		return 0;
	owner->connection.named = true;
	domain->length = 0;
	if (bpf_skb_load_bytes(skb, at + sizeof(length), domain->name, at_most(length - 1, DOMAIN_BYTES - 1) + 1))
		return 0;
	domain->length = length;
	domain->by = BY_SNI;
	return 0;
}

/* Whether a packet of TCP may be the first one with data of the end that began the connection. Most are not: it is
 * asked of each, and a call of a helper is half of what that costs. */
static __always_inline bool may_be_hello(struct __sk_buff *skb, bool out)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tcp;

	if (!packet_may_have(skb, HELLO_LEAST) || !sk)
		return false;
	tcp = bpf_tcp_sock(sk);
	/* a SYN counts as a byte that is acknowledged */
	return tcp && (out ? tcp->bytes_acked <= 1 : !tcp->bytes_received) && sk->state != TCP_LISTEN;
}
