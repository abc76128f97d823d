/* SPDX-License-Identifier: GPL-2.0 */
/* Packets as they leave and enter containers, for SEC("cgroup_skb/egress") and SEC("cgroup_skb/ingress"). Such a
 * program must return 1: the kernel drops the packet otherwise. It may be interrupted by itself, so it sends its events
 * by gadget_reserve() and gadget_send(). */
#pragma once

#include "owner.h"
#include "sockets.h"
#include "text.h"

/* Whose the socket of a packet is. Of UDP that leaves it is the current thread: nothing waits between it and here. */
static __always_inline struct socket_owner *owner_of(struct __sk_buff *skb, bool out, __u64 container)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_owner *owner;
	struct task_struct *task;
	struct cgroup *cgroup;
	__u64 id;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NULL;
	owner = bpf_sk_storage_get(&owners, sk, NULL, 0);
	if ((owner && owner->pid) || !out || sk->protocol != IPPROTO_UDP)
		return owner;
	task = task_here();
	cgroup = cgroup_of(task, &id);
	find_container(cgroup, &id);
	if (id != container)
		return NULL;
	owner = bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	set_owner(owner, task);
	return owner;
}

/* Fill the header of an event for a packet; out: it leaves the container. The container is that of the packet's socket.
 * The process is the socket's owner; if nobody knows it, pid and tid are 0, uid and gid -1, and comm is empty. False if
 * the user did not choose it: send nothing then. */
static __always_inline bool gadget_fill_packet(struct gadget_header *header, struct __sk_buff *skb, bool out)
{
	enum whereabouts where = find_container_of_packet(skb, &header->cgroup_id);

	return container_chosen(where, header->cgroup_id) && fill_owner(header, owner_of(skb, out, header->cgroup_id));
}

/* A packet's protocol, IPPROTO_…; 0 if it is not IP. Ask it first: it costs next to nothing, and most packets are
 * TCP's. */
static __always_inline __u8 packet_protocol(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + 20 > end)
		return 0;
	return skb->protocol == bpf_htons(ETH_P_IP) ? data[9] : skb->protocol == bpf_htons(ETH_P_IPV6) ? data[6] : 0;
}

/* Whether one of the ports of a packet over UDP or TCP is this one, or may be. Ask it before the headers are read: that
 * costs more, and most packets are of other ports. */
static __always_inline bool packet_has_port(struct __sk_buff *skb, __u16 port)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__be16 *ports;

	if (data + 1 > end)
		return true;
	ports = (void *)data + (skb->protocol == bpf_htons(ETH_P_IP) ? (data[0] & 15) * 4 : 40);
	if ((void *)(ports + 2) > (void *)end)
		return true; /* they lie elsewhere */
	return ports[0] == bpf_htons(port) || ports[1] == bpf_htons(port);
}

/* Whether a packet of TCP may have so many bytes of data. Ask it before the headers are read: that costs more, and most
 * packets of a socket that only receives have none. */
static __always_inline bool packet_may_have(struct __sk_buff *skb, __u32 bytes)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *tcp;
	__u32 at;

	if (data + 1 > end)
		return true;
	at = skb->protocol == bpf_htons(ETH_P_IP) ? (data[0] & 15) * 4 : 40;
	tcp = data + at;
	if (tcp + 20 > end)
		return true; /* it lies elsewhere */
	return skb->len >= at + (tcp[12] >> 4) * 4 + bytes;
}

/* What the headers of a packet say. */
struct packet_ends {
	gadget_endpoint own, peer; /* this container's end, and the other */
	__u32 transport;           /* where the header of UDP or TCP begins, in bytes */
	__u32 payload;             /* where what is behind it begins */
	__u8 protocol;             /* IPPROTO_… */
};

/* Read the headers of a packet over UDP or TCP; out: it leaves the container. False if it is another packet. Behind
 * extension headers of IPv6 it is not looked. */
static __always_inline bool read_packet_ends(struct __sk_buff *skb, bool out, struct packet_ends *ends)
{
	gadget_endpoint *from = out ? &ends->own : &ends->peer, *to = out ? &ends->peer : &ends->own;
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, offset;
	__be16 ports[2], *linear;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (data + 20 > end)
			return false;
		ends->protocol = data[9];
		ends->transport = (data[0] & 15) * 4;
		set_ipv4(from, *(__be32 *)(data + 12));
		set_ipv4(to, *(__be32 *)(data + 16));
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (data + 40 > end)
			return false;
		ends->protocol = data[6];
		ends->transport = 40;
		__builtin_memcpy(from->address, data + 8, 16);
		__builtin_memcpy(to->address, data + 24, 16);
	} else {
		return false;
	}
	if (ends->protocol != IPPROTO_UDP && ends->protocol != IPPROTO_TCP)
		return false;
	linear = (void *)data + ends->transport;
	if ((void *)(linear + 2) <= (void *)end) {
		ports[0] = linear[0];
		ports[1] = linear[1];
	} else if (bpf_skb_load_bytes(skb, ends->transport, ports, sizeof(ports))) {
		return false;
	}
	from->port = bpf_ntohs(ports[0]);
	to->port = bpf_ntohs(ports[1]);
	if (ends->protocol == IPPROTO_UDP) {
		ends->payload = ends->transport + 8;
		return true;
	}
	if (bpf_skb_load_bytes(skb, ends->transport + 12, &offset, 1))
		return false;
	ends->payload = ends->transport + (offset >> 4) * 4;
	return true;
}

/* Make a packet's bytes from an offset on the tail of a reserved event: TEXT_SHORT at most, or limit, a constant. A
 * decoder of the gadget's folder makes fields of them. */
static __always_inline gadget_text text_packet(struct gadget_header *header, char *text, struct __sk_buff *skb,
					       __u32 from, __u32 limit)
{
	gadget_text slice = {};
	__u32 length = skb->len;

	if (length <= from)
		return slice;
	length = at_most(length - from - 1, (limit < TEXT_SHORT ? limit : TEXT_SHORT) - 1) + 1;
	if (bpf_skb_load_bytes(skb, from, text, length))
		return slice;
	header->text_length = slice.length = length;
	return slice;
}
