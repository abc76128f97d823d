/* SPDX-License-Identifier: GPL-2.0 */
/* Calls about sockets: both ends, what is sent, and to whom. */
#pragma once

#include "paths.h"
#include "sockets.h"

#define UNIX_NAME_MAX 108 /* linux/un.h */
#define AF_UNIX       1
#define AF_NETLINK    16

/* States of a socket that has a peer. */
#define HAS_PEER                                                                                                    \
	(1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | \
	 1 << TCP_CLOSING)

/* Peers of the last datagrams of sockets that have none, by socket and its inode's number, as another socket may be at
 * the same place later. One that gives way to newer ones has another peer then. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64[2]);
	__type(value, gadget_endpoint);
} last_peers SEC(".maps");

static __always_inline bool is_same(const gadget_endpoint *one, const gadget_endpoint *other)
{
	const __u32 *words = (void *)one->address, *others = (void *)other->address;

	return one->port == other->port && words[0] == others[0] && words[1] == others[1] && words[2] == others[2] &&
	       words[3] == others[3];
}

/* Whether a socket sends to another peer than before. */
static __always_inline bool is_other_peer(struct sock *sk, const gadget_endpoint *peer)
{
	__u64 key[2] = {(__u64)sk, BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino)};
	gadget_endpoint *last = bpf_map_lookup_elem(&last_peers, &key);

	if (last && is_same(last, peer))
		return false;
	bpf_map_update_elem(&last_peers, &key, peer, BPF_ANY);
	return true;
}

/* Append the name of a UNIX socket: a path, or bytes behind a NUL, which becomes a "@". length is that of the address.
 */
static __always_inline gadget_path text_unix_name(struct event *event, const void *address, __u32 length, bool of_user)
{
	__u32 at = event->header.text_length, most = length - sizeof(__u16);
	gadget_path slice = {.offset = at, .as_given = true};
	char *name = event->text + at;
	long failed;

	if (at >= TEXT_MAX - UNIX_NAME_MAX - 1 || length <= sizeof(__u16))
		return slice;
	most = at_most(most, UNIX_NAME_MAX);
	if (of_user)
		failed = bpf_probe_read_user(name, most, address + sizeof(__u16));
	else
		failed = bpf_probe_read_kernel(name, most, address + sizeof(__u16));
	if (failed)
		return slice;
	slice.length = most;
	if (name[0])
		slice.length = bpf_probe_read_kernel_str(name, most + 1, name) - 1; /* up to a NUL */
	else
		name[0] = '@';
	event->header.text_length = at + slice.length;
	return slice;
}

/* The name that a UNIX socket is bound to, else its peer's. */
static __always_inline gadget_path text_unix_socket(struct event *event, struct sock *sk)
{
	struct unix_sock *socket = (void *)sk, *peer;
	struct unix_address *address;

	if (!bpf_core_type_exists(struct unix_sock))
		return (gadget_path){.as_given = true};
	address = BPF_CORE_READ(socket, addr);
	if (!address) {
		peer = (void *)BPF_CORE_READ(socket, peer);
		address = BPF_CORE_READ(peer, addr);
	}
	return text_unix_name(event, (void *)address + bpf_core_field_offset(struct unix_address, name),
			      BPF_CORE_READ(address, len), false);
}

/* What a call about a socket names and carries. */
struct named {
	__u64 address, buffer, bytes;
	__u32 length; /* of the address */
};

static __always_inline struct named read_named(const struct event *event, __u32 more, __u32 word)
{
	struct named named = {};
	__u64 vector;

	switch (more) {
	case MORE_ADDRESS:
		named.address = event->args[1];
		named.length = event->args[2];
		break;
	case MORE_SENT_TO:
	case MORE_RECEIVED_FROM:
		named.address = event->args[4];
		named.length = event->args[5];
		if (more == MORE_RECEIVED_FROM)
			named.length = read_word(event->args[5], 0, 4);
		named.buffer = event->args[1];
		named.bytes = event->args[2];
		break;
	case MORE_MESSAGE: /* name, its length, buffers, how many */
		named.address = read_word(event->args[1], 0, word);
		named.length = read_word(event->args[1], 1, word);
		vector = read_word(event->args[1], 2, word);
		named.buffer = read_word(vector, 0, word);
		named.bytes = read_word(vector, 1, word);
	}
	return named;
}

/* Whether a call receives, so that its result says how much there is. */
static __always_inline bool receives(const struct event *event)
{
	return event->call == CALL_RECVFROM || event->call == CALL_RECVMSG;
}

/* Take the address that a call names for the end that it is. */
static __always_inline void read_address(struct event *event, const struct named *named)
{
	const void *address = (void *)named->address;
	bool is_new = event->call == CALL_CONNECT || event->call == CALL_BIND;
	gadget_endpoint end;
	char first = 0;

	if (!address || (!is_new && event->protocol == IPPROTO_TCP))
		return; /* TCP sends to its peer whatever the call names */
	if (event->family == AF_UNIX) {
		event->path.path = text_unix_name(event, address, named->length, true);
		bpf_probe_read_user(&first, 1, address + sizeof(__u16));
		if (first && first != '/')
			event->path.directory = path_of_directory(PROGRAM_CALL, current_task());
	} else if (!read_user_endpoint(&end, named->address))
		return;
	else if (event->call != CALL_BIND)
		event->dst = end;
	else if (event->result < 0)
		event->src = end;
}

static __always_inline __u8 letter_of_socket(const struct event *event)
{
	switch (event->family) {
	case AF_UNIX:
		return 'u';
	case AF_INET:
		return '4';
	case AF_INET6:
		return is_ipv4(&event->dst) ? '4' : '6';
	case AF_NETLINK:
		return 'n';
	default:
		return 's';
	}
}

/* Read the socket behind the descriptor of a call, and what the call says of it. word is the size of a pointer of the
 * program. */
__noinline int read_socket(int fd, __u32 more, __u32 word)
{
	__u32 program = PROGRAM_CALL;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	struct sock *sk = socket_of(fd);
	struct named named;

	if (!event || !sk)
		return 0;
	event->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	event->protocol = BPF_CORE_READ(sk, sk_protocol);
	event->connected = HAS_PEER >> (BPF_CORE_READ(sk, __sk_common.skc_state) & 15) & 1;
	if (is_ip(sk))
		read_endpoints(sk, &event->src, &event->dst);
	named = read_named(event, more, word);
	if (!receives(event) || event->result >= 0)
		read_address(event, &named);
	if (event->family == AF_UNIX && !event->path.path.length)
		event->path.path = text_unix_socket(event, sk);
	if ((event->call == CALL_SENDTO || event->call == CALL_SENDMSG) && event->protocol == IPPROTO_UDP &&
	    !event->connected)
		event->name_changed = is_other_peer(sk, &event->dst);
	if (param_buffers && named.buffer && event->result > 0)
		event->data = text_bytes(event, named.buffer,
					 receives(event) && event->result < named.bytes ? event->result : named.bytes,
					 BUFFER_MAX);
	event->fd_type = letter_of_socket(event);
	return 0;
}
