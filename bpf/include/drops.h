/* SPDX-License-Identifier: GPL-2.0 */
/* Packets that the kernel drops, for SEC("tp_btf/kfree_skb"). */
#pragma once

#include "sockets.h"
#include "text.h"

#define WORD_MAX 64 /* bytes of a reason's name, with its NUL */
#define PREFIX   "SKB_DROP_REASON_"

/* net/tcp.h, TCPHDR_… */
enum tcp_flag {
	FIN = 1,
	SYN = 2,
	RST = 4,
	PSH = 8,
	ACK = 16,
	URG = 32,
	ECE = 64,
	CWR = 128,
};
typedef enum tcp_flag gadget_tcp_flags;

struct dropped_packet {
	gadget_endpoint sender, receiver;
	__u32 bytes;
	__u8 protocol, flags;
};

/* Read a part of a packet. False if it is not in the packet's first piece of memory. */
static __always_inline bool load(struct sk_buff *skb, __u32 at, void *to, __u32 size)
{
	return at + size <= BPF_CORE_READ(skb, tail) && !bpf_probe_read_kernel(to, size, BPF_CORE_READ(skb, head) + at);
}

/* Read the headers of a packet. False if it has none of IP, or none yet. */
static __always_inline bool read_dropped(struct sk_buff *skb, struct dropped_packet *packet)
{
	__u32 at = BPF_CORE_READ(skb, network_header), length;
	__be16 protocol = BPF_CORE_READ(skb, protocol), ports[2];
	__u8 header[40], behind[2];

	if (protocol == bpf_htons(ETH_P_IP)) {
		if (!load(skb, at, header, 20) || header[0] >> 4 != 4)
			return false;
		packet->protocol = header[9];
		set_ipv4(&packet->sender, *(__be32 *)(header + 12));
		set_ipv4(&packet->receiver, *(__be32 *)(header + 16));
		length = bpf_ntohs(*(__be16 *)(header + 2)) - (header[0] & 15) * 4;
		at += (header[0] & 15) * 4;
	} else if (protocol == bpf_htons(ETH_P_IPV6)) {
		if (!load(skb, at, header, 40) || header[0] >> 4 != 6)
			return false;
		packet->protocol = header[6];
		__builtin_memcpy(packet->sender.address, header + 8, 16);
		__builtin_memcpy(packet->receiver.address, header + 24, 16);
		length = bpf_ntohs(*(__be16 *)(header + 4));
		at += 40;
	} else {
		return false;
	}
	packet->bytes = length;
	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP && packet->protocol != IPPROTO_SCTP)
		return true;
	if (!load(skb, at, ports, sizeof(ports)))
		return true;
	packet->sender.port = bpf_ntohs(ports[0]);
	packet->receiver.port = bpf_ntohs(ports[1]);
	if (packet->protocol == IPPROTO_UDP)
		packet->bytes -= 8;
	if (packet->protocol == IPPROTO_TCP && load(skb, at + 12, behind, sizeof(behind))) {
		packet->bytes -= (behind[0] >> 4) * 4;
		packet->flags = behind[1];
	}
	if (packet->bytes > length)
		packet->bytes = 0; /* the headers contradict each other */
	return true;
}

/* Make the name of a reason the first WORD_MAX bytes of a text. */
static __always_inline gadget_text text_reason(char *text, __u32 reason)
{
	struct btf_ptr value = {.ptr = &reason, .type_id = bpf_core_type_id_kernel(enum skb_drop_reason)};
	const __u32 prefix = sizeof(PREFIX) - 1;
	gadget_text slice = {};
	bool begins = true;
	long length;

	length = bpf_snprintf_btf(text, WORD_MAX, &value, sizeof(value), BTF_F_COMPACT | BTF_F_NONAME);
	if (length <= 0)
		return slice;
	slice.length = at_most(length, WORD_MAX - 1);
	for (__u32 at = 0; at < prefix; at++) /* bpf_strncmp came with Linux 5.17 */
		begins &= text[at] == PREFIX[at];
	if (slice.length > prefix && begins) {
		slice.offset = prefix;
		slice.length -= prefix;
	}
	return slice;
}
