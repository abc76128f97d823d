/* SPDX-License-Identifier: GPL-2.0 */
/* Sockets: the socket behind a file descriptor, its two endpoints and its options. */
#pragma once

#include <linux/in.h>

#include <bpf/bpf_endian.h>

#include "drift.h"
#include "fields.h"
#include "calls.h"

#define AF_INET  2
#define AF_INET6 10

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86DD

/* net/tcp_states.h */
enum tcp_state {
	TCP_UNKNOWN = 0,
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_FIN_WAIT2 = 5,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_CLOSING = 11,
	TCP_NEW_SYN_RECV = 12, /* a handshake that is not over: struct request_sock */
};
typedef enum tcp_state gadget_tcp_state_words;

/* linux/in.h */
enum socket_protocol {
	PROTOCOL_UNKNOWN = 0,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_ICMPV6 = 58,
	PROTOCOL_SCTP = 132,
	PROTOCOL_UDPLITE = 136,
	PROTOCOL_MPTCP = 262,
};
typedef enum socket_protocol gadget_protocol_words;

/* What decides whether an address is free; the bits are ours. */
enum socket_option {
	SO_REUSEADDR = 1,
	SO_REUSEPORT = 2,
	IPV6_V6ONLY = 4,
};
typedef enum socket_option gadget_option_flags;

/* linux/net.h: operations of socketcall(2) */
#define SOCKETCALL_BIND   2
#define SOCKETCALL_LISTEN 4

/* CALLS of a gadget about one call of sockets. 32-bit programs on x86 may also make it by socketcall(2), which has the
 * arguments in memory. */
#if defined(__TARGET_ARCH_x86)
#define SOCKET_CALL(call) CALLS(__u8) = {KNOWN_BOTH(call, SOCKETCALL_##call), KNOWN_32(SOCKETCALL, SOCKETCALL_##call)}
#else
#define SOCKET_CALL(call) CALLS(__u8) = {KNOWN_BOTH(call, SOCKETCALL_##call)}
#endif

/* Read the first three arguments of the call that has just ended. False if it is not the one of SOCKET_CALL. */
#define read_socket_call(regs, number, args) read_socket_arguments(regs, number, known_call(number), args)

static __always_inline bool read_socket_arguments(struct pt_regs *regs, __u32 number, __u32 by_socketcall,
						  struct syscall_args *args)
{
	if (!by_socketcall)
		return false;
	*args = syscall_arguments(regs, number);
#if defined(__TARGET_ARCH_x86)
	if (number == SYSCALL_COMPAT_SOCKETCALL) {
		__u32 in_memory[3] = {};

		if (args->a0 != by_socketcall)
			return false;
		if (bpf_probe_read_user(in_memory, sizeof(in_memory), (void *)args->a1)) /* listen(2) has only two */
			bpf_probe_read_user(in_memory, 2 * sizeof(in_memory[0]), (void *)args->a1);
		args->a0 = in_memory[0];
		args->a1 = in_memory[1];
		args->a2 = in_memory[2];
	}
#endif
	return true;
}

/* Whether a socket is an IPv4 or IPv6 socket. */
static __always_inline bool is_ip(const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == AF_INET || family == AF_INET6;
}

/* The options of a socket that decide whether it may share an address. */
static __always_inline __u32 socket_options(const struct sock *sk)
{
	const struct sock_common *common = &sk->__sk_common;

	return (BPF_CORE_READ_BITFIELD_PROBED(common, skc_reuse) ? SO_REUSEADDR : 0) |
	       (BPF_CORE_READ_BITFIELD_PROBED(common, skc_reuseport) ? SO_REUSEPORT : 0) |
	       (BPF_CORE_READ_BITFIELD_PROBED(common, skc_ipv6only) ? IPV6_V6ONLY : 0);
}

/* Whether a socket is a TCP socket over IPv4 or IPv6. The kernel's own sockets are, too. An MPTCP socket is not: it has
 * a TCP socket for each of its paths, and each of these is. */
static __always_inline bool is_tcp(const struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP && is_ip(sk);
}

/* The socket behind a descriptor of a process, NULL if there is none. */
static __always_inline struct sock *socket_of_task(struct task_struct *task, int fd)
{
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

/* The socket behind a descriptor of the current process. Ask only after a system call that has used the descriptor as a
 * socket's. NULL if another thread has changed the descriptor since. */
static __always_inline struct sock *socket_of(int fd)
{
	return socket_of_task(current_task(), fd);
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

/* Whether an address of 16 bytes is a loopback address. */
static __always_inline bool is_loopback(const __u8 *address)
{
	const __u32 *words = (const void *)address;

	if (words[0] || words[1])
		return false;
	if (words[2] == bpf_htonl(0xffff))
		return address[12] == 127;
	return !words[2] && words[3] == bpf_htonl(1);
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

/* Read the two endpoints of a connection whose handshake is not over: src is this end. */
static __always_inline void read_request_endpoints(const struct request_sock *request, gadget_endpoint *src,
						   gadget_endpoint *dst)
{
	if (BPF_CORE_READ(request, __req_common.skc_family) == AF_INET) {
		set_ipv4(src, BPF_CORE_READ(request, __req_common.skc_rcv_saddr));
		set_ipv4(dst, BPF_CORE_READ(request, __req_common.skc_daddr));
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)src->address, request, __req_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)dst->address, request, __req_common.skc_v6_daddr);
	}
	src->port = BPF_CORE_READ(request, __req_common.skc_num);
	dst->port = bpf_ntohs(BPF_CORE_READ(request, __req_common.skc_dport));
}

/* Read an address that a call passes, a sockaddr_in or sockaddr_in6. False if it is in no memory, or of another family.
 */
static __always_inline bool read_user_endpoint(gadget_endpoint *endpoint, __u64 address)
{
	struct {
		__u16 family;
		__be16 port;
		__be32 ipv4;
		__u8 ipv6[16];
	} asked = {};

	*endpoint = (gadget_endpoint){};
	if (bpf_probe_read_user(&asked, sizeof(asked),
				(void *)address)) /* a sockaddr_in may be the last bytes of its page */
		bpf_probe_read_user(&asked, offsetof(typeof(asked), ipv6), (void *)address);
	if (asked.family == AF_INET)
		set_ipv4(endpoint, asked.ipv4);
	else if (asked.family == AF_INET6)
		__builtin_memcpy(endpoint->address, asked.ipv6, sizeof(asked.ipv6));
	else
		return false;
	endpoint->port = bpf_ntohs(asked.port);
	return true;
}

/* The socket over IPv4 or IPv6 that an iterator over open files has found. NULL if it is another file. */
static __always_inline struct sock *socket_found(struct bpf_iter__task_file *found)
{
	struct file *file = found->file;
	struct socket *socket;
	struct sock *sk;

	if (!has_socket_of_file() || !file)
		return NULL;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return NULL;
	sk = socket->sk;
	if (!sk)
		return NULL;
	return is_ip(sk) ? sk : NULL;
}
