// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 112
#include "files.h"
#include "sockets.h"
#include "walk.h"

#define AF_UNIX    1
#define AF_NETLINK 16
#define AF_PACKET  17
#define AF_VSOCK   40

/* What a socket is of, in the words of ss(8); the numbers are ours. */
enum socket_type {
	SOCKET_TCP,
	SOCKET_UDP,
	SOCKET_RAW,
	SOCKET_ICMP,
	SOCKET_MPTCP,
	SOCKET_SCTP,
	SOCKET_UNIX_STREAM,
	SOCKET_UNIX_DATAGRAM,
	SOCKET_UNIX_SEQPACKET,
	SOCKET_NETLINK,
	SOCKET_PACKET,
	SOCKET_VSOCK,
	SOCKET_OTHER,
};
typedef enum socket_type gadget_socket_type_words;

/* linux/net.h */
#define SOCK_STREAM    1
#define SOCK_DGRAM     2
#define SOCK_RAW       3
#define SOCK_SEQPACKET 5

struct row {
	struct gadget_header header;
	gadget_socket_type_words type DOC("what it is of");
	gadget_tcp_state_words state DOC("state; close is one that is not connected");
	__u32 received
		DOC("bytes that came and wait to be read, of unix messages; if it listens, connections that wait");
	__u32 unsent DOC("bytes that are not taken by the other end yet; if it listens, how many connections may wait");
	gadget_some_endpoint src DOC("own address and port");
	gadget_some_endpoint dst DOC("address and port of the other end, if it is connected");
	__s32 fd DOC("descriptor by which its process has it");
	__u64 inode DOC("inode number of the socket");
	__u64 peer DOC("inode number of the other end, of a unix socket that is connected; 0 if nobody has it");
	__u64 netns DOC("inode number of the network namespace that it is in");
	gadget_path name DOC("name of a unix socket: a path, or one that begins with @");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_WALK(struct row);

/* Sockets that this walk has found, by which one: processes may have one in common. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768); /* one that is evicted may be shown again, with another process */
	__type(key, __u64);
	__type(value, __u64);
} found_sockets SEC(".maps");

static __always_inline bool is_first(struct sock *sk)
{
	__u64 key = (__u64)sk, walk = walks, *found = bpf_map_lookup_elem(&found_sockets, &key);

	if (found && *found == walk)
		return false;
	bpf_map_update_elem(&found_sockets, &key, &walk, BPF_ANY);
	return true;
}

static __always_inline enum socket_type socket_type(struct sock *sk, __u16 family)
{
	__u16 type = BPF_CORE_READ(sk, sk_type);

	switch (family) {
	case AF_UNIX:
		return type == SOCK_STREAM  ? SOCKET_UNIX_STREAM
		       : type == SOCK_DGRAM ? SOCKET_UNIX_DATAGRAM
					    : SOCKET_UNIX_SEQPACKET;
	case AF_NETLINK:
		return SOCKET_NETLINK;
	case AF_PACKET:
		return SOCKET_PACKET;
	case AF_VSOCK:
		return SOCKET_VSOCK;
	case AF_INET:
	case AF_INET6:
		break;
	default:
		return SOCKET_OTHER;
	}
	if (type == SOCK_RAW)
		return SOCKET_RAW;
	switch (BPF_CORE_READ(sk, sk_protocol)) {
	case PROTOCOL_TCP:
		return SOCKET_TCP;
	case PROTOCOL_UDP:
		return SOCKET_UDP;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		return SOCKET_ICMP;
	case PROTOCOL_SCTP:
		return SOCKET_SCTP;
	case PROTOCOL_MPTCP:
		return SOCKET_MPTCP;
	default:
		return SOCKET_OTHER;
	}
}

/* The queues, as ss(8) has them. */
static __always_inline void read_queues(struct row *row, struct sock *sk)
{
	const struct tcp_sock *tcp = (void *)sk;
	bool is_unix = row->type >= SOCKET_UNIX_STREAM && row->type <= SOCKET_UNIX_SEQPACKET;

	if (row->state == TCP_LISTEN) {
		row->received = is_unix ? BPF_CORE_READ(sk, sk_receive_queue.qlen) : BPF_CORE_READ(sk, sk_ack_backlog);
		row->unsent = BPF_CORE_READ(sk, sk_max_ack_backlog);
		return;
	}
	if (row->type == SOCKET_TCP) {
		row->received = BPF_CORE_READ(tcp, rcv_nxt) - BPF_CORE_READ(tcp, copied_seq);
		row->unsent = BPF_CORE_READ(tcp, write_seq) - BPF_CORE_READ(tcp, snd_una);
		if ((__s32)row->received < 0) /* the end of the connection has been read */
			row->received = 0;
		return;
	}
	row->received =
		is_unix ? BPF_CORE_READ(sk, sk_receive_queue.qlen) : BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
	if (row->type == SOCKET_UDP)
		row->received -= BPF_CORE_READ((struct udp_sock *)sk, forward_deficit);
	row->unsent = BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1; /* the socket itself counts as one */
}

/* Append the name of a unix socket. */
static __always_inline gadget_path text_unix_name(struct gadget_header *header, char *text, struct sock *sk)
{
	struct unix_address *address = BPF_CORE_READ((struct unix_sock *)sk, addr);
	gadget_path slice = {.offset = header->text_length, .as_given = true};
	__u32 length = BPF_CORE_READ(address, len), at = header->text_length;
	char *path = (char *)address + bpf_core_field_offset(struct unix_address, name) + sizeof(__u16);

	if (!address || length <= sizeof(__u16) || at >= TEXT_MAX)
		return slice;
	length = at_most(length - sizeof(__u16), sizeof(struct sockaddr_un));
	at = at_most(at, TEXT_MAX - 1); /* which the verifier can follow */
	if (bpf_probe_read_kernel(text + at, length, path))
		return slice;
	if (!text[at])
		text[at] = '@';
	else if (!text[(at + length - 1) & (TEXT_MAX - 1)])
		length--; /* the zero behind a path */
	slice.length = length;
	header->text_length = at + length;
	return slice;
}

SEC("iter/bpf_map_elem")
int walked(struct bpf_iter__bpf_map_elem *turn)
{
	struct walk_file found;
	struct socket *socket;
	struct file *file;
	struct sock *sk;
	struct row *row;
	__u16 family;
	__u64 *at;
	int result;

	at = walk_begin(turn, row, &result);
	if (!at)
		return result;
	if (!next_file(at, &row->header, &found))
		return 0;
	file = found.file;
	if (type_of(file) != TYPE_SOCKET)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	if (!socket || BPF_CORE_READ(socket, file) != file)
		return 0;
	sk = BPF_CORE_READ(socket, sk);
	if (!sk || !is_first(sk))
		return 0;
	if (!walk_may_add(row->header.cgroup_id)) {
		skip_files(at);
		return 0;
	}
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	row->type = socket_type(sk, family);
	row->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	row->fd = found.fd;
	row->inode = BPF_CORE_READ(file, f_inode, i_ino);
	row->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	row->src = row->dst = (gadget_endpoint){};
	row->peer = 0;
	row->name = (gadget_path){.as_given = true};
	read_queues(row, sk);
	if (family == AF_INET || family == AF_INET6) {
		read_endpoints(sk, &row->src, &row->dst);
	} else if (family == AF_UNIX) {
		row->peer = BPF_CORE_READ((struct unix_sock *)sk, peer, sk_socket, file, f_inode, i_ino);
		row->name = text_unix_name(&row->header, row->text, sk);
	}
	walk_write(turn, row);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
