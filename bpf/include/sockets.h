/* SPDX-License-Identifier: GPL-2.0 */
/* TCP sockets: the socket behind a file descriptor, and its two endpoints. */
#pragma once

#include <linux/in.h>

#include <bpf/bpf_endian.h>

#include "drift.h"
#include "fields.h"

#define AF_INET  2
#define AF_INET6 10

/* net/tcp_states.h */
enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_CLOSING = 11,
};

/* Whether a socket is a TCP socket over IPv4 or IPv6. The kernel's own sockets are, too. An MPTCP socket is not: it has
 * a TCP socket for each of its paths, and each of these is. */
static __always_inline bool is_tcp(const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP && (family == AF_INET || family == AF_INET6);
}

/* The socket behind a descriptor of the current process. Ask only after a system call that has used the descriptor as a
 * socket's. NULL if another thread has changed the descriptor since. */
static __always_inline struct sock *socket_of(int fd)
{
	struct task_struct *task = current_task();
	struct file *file = NULL, **files = BPF_CORE_READ(task, files, fdt, fd);
	struct socket *socket;

	if ((__u32)fd >= BPF_CORE_READ(task, files, fdt, max_fds))
		return NULL;
	bpf_core_read(&file, sizeof(file), &files[fd]);
	socket = BPF_CORE_READ(file, private_data);
	if (!file || BPF_CORE_READ(socket, file) != file)
		return NULL; /* another thread has put another file there */
	return BPF_CORE_READ(socket, sk);
}

/* The TCP socket behind a descriptor, NULL if it is none. See socket_of(). */
static __always_inline struct sock *tcp_socket(int fd)
{
	struct sock *sk = socket_of(fd);

	return sk && is_tcp(sk) ? sk : NULL;
}

/* The TCP socket behind a descriptor; if it is an MPTCP socket, the TCP socket of its first path. See socket_of(). */
static __always_inline struct sock *tcp_socket_of_any(int fd)
{
	struct sock *sk = socket_of(fd);

	if (sk && bpf_core_type_exists(struct mptcp_sock) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		sk = BPF_CORE_READ((struct mptcp_sock *)sk, first);
	return sk && is_tcp(sk) ? sk : NULL;
}

/* Whether an endpoint's address is an IPv4 address. */
static __always_inline bool is_ipv4(const gadget_endpoint *endpoint)
{
	const __u32 *words = (const void *)endpoint->address;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

/* Set the address of an endpoint to an IPv4 address in network order. */
static __always_inline void set_ipv4(gadget_endpoint *endpoint, __be32 address)
{
	__u32 *words = (void *)endpoint->address;

	words[0] = words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = address;
}

/* Read the two endpoints of a socket: src is this end. The local port stays readable after the socket gave it back. */
static __always_inline void read_endpoints(const struct sock *sk, gadget_endpoint *src, gadget_endpoint *dst)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET) {
		set_ipv4(src, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		set_ipv4(dst, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)src->address, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)dst->address, sk, __sk_common.skc_v6_daddr);
	}
	src->port = bpf_ntohs(BPF_CORE_READ((const struct inet_sock *)sk, inet_sport));
	dst->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}
