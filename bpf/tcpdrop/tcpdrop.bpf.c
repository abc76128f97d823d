// SPDX-License-Identifier: GPL-2.0
/* Packets that the kernel drops, and why. */
#define TEXT_SHORT 128
#include "owner.h"
#include "sockets.h"
#include "text.h"

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86DD
#define WORD_MAX   64 /* of a reason or a function, with its NUL */
#define PREFIX     "SKB_DROP_REASON_"

PARAM(bool, all, false, "also packets of other protocols than TCP");

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

struct event {
	struct gadget_header header;
	gadget_protocol_words protocol DOC("protocol of the packet");
	gadget_endpoint sender DOC("who sent the packet");
	gadget_endpoint receiver DOC("to whom");
	gadget_tcp_state_words state DOC("state of the connection; unknown if the kernel did not know the socket");
	gadget_tcp_flags flags DOC("flags of TCP in the packet");
	__u32 bytes DOC("bytes of data in it, as its headers say");
	gadget_text reason DOC("the kernel's name for why; empty before Linux 5.17");
	gadget_text function DOC("function of the kernel that dropped it; empty before Linux 5.13");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

struct packet {
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
static __always_inline bool read_packet(struct sk_buff *skb, struct packet *packet)
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

/* Fill the header of an event for a packet that has no socket, as far as the kernel knows. */
static __always_inline bool fill_without_socket(struct gadget_header *header)
{
	return param_host && fill_owner(header, NULL);
}

/* Whether a socket is whole: not the little that the kernel keeps of a connection as it begins and when it is over. */
static __always_inline bool is_whole(const struct sock *sk)
{
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

/* Append the name of the reason. */
static __always_inline gadget_text text_reason(struct event *event, __u32 reason)
{
	struct btf_ptr value = {.ptr = &reason, .type_id = bpf_core_type_id_kernel(enum skb_drop_reason)};
	const __u32 prefix = sizeof(PREFIX) - 1;
	gadget_text slice = {};
	long length;

	length = bpf_snprintf_btf(event->text, WORD_MAX, &value, sizeof(value), BTF_F_COMPACT | BTF_F_NONAME);
	if (length <= 0)
		return slice;
	slice.length = at_most(length, WORD_MAX - 1);
	if (slice.length > prefix && !bpf_strncmp(event->text, prefix, PREFIX)) {
		slice.offset = prefix;
		slice.length -= prefix;
	}
	event->header.text_length = TEXT_SHORT;
	return slice;
}

/* Append the name of the function that dropped the packet. */
static __always_inline gadget_text text_function(struct event *event, void *location)
{
	gadget_text slice = {.offset = WORD_MAX};
	__u64 argument = (__u64)location;
	long length = bpf_snprintf(event->text + WORD_MAX, WORD_MAX, "%ps", &argument, sizeof(argument));

	if (length > 1)
		slice.length = at_most(length, WORD_MAX) - 1;
	event->header.text_length = TEXT_SHORT;
	return slice;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(dropped, struct sk_buff *skb, void *location)
{
	struct gadget_header header = {};
	struct packet packet = {};
	struct sock *sk = skb->sk;
	struct event *event;
	bool sends = sk;

	if (!sk && tells_receiving_sockets())
		sk = (void *)ctx[3];
	if (sk && !is_whole(sk))
		sk = NULL;
	if (!read_packet(skb, &packet)) {
		if (!sends || !sk || !is_tcp(sk))
			return 0;
		read_endpoints(sk, &packet.sender, &packet.receiver);
		packet.protocol = IPPROTO_TCP;
	}
	if (packet.protocol != IPPROTO_TCP && !param_all)
		return 0;
	if (sk ? !gadget_fill_socket(&header, sk) : !fill_without_socket(&header))
		return 0;
	event = gadget_reserve(&header);
	if (!event)
		return 0;
	event->protocol = packet.protocol;
	event->sender = packet.sender;
	event->receiver = packet.receiver;
	event->bytes = packet.bytes;
	event->flags = packet.flags;
	event->state = sk && packet.protocol == IPPROTO_TCP ? BPF_CORE_READ(sk, __sk_common.skc_state) : TCP_UNKNOWN;
	if (tells_drop_reasons())
		event->reason = text_reason(event, ctx[2]);
	if (has_snprintf())
		event->function = text_function(event, location);
	gadget_send(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
