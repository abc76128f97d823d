// SPDX-License-Identifier: GPL-2.0
/* Packets that the kernel drops, and why. */
#define TEXT_SHORT 128
#include "drops.h"
#include "owner.h"

PARAM(bool, all, false, "also packets of other protocols than TCP");

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

/* Append the name of the function that dropped the packet. */
static __always_inline gadget_text text_function(struct event *event, void *location)
{
	gadget_text slice = {.offset = WORD_MAX};
	__u64 argument = (__u64)location;
	long length = bpf_snprintf(event->text + WORD_MAX, WORD_MAX, "%ps", &argument, sizeof(argument));

	if (length > 1)
		slice.length = at_most(length, WORD_MAX) - 1;
	return slice;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(dropped, struct sk_buff *skb, void *location)
{
	struct gadget_header header = {};
	struct dropped_packet packet = {};
	struct sock *sk = skb->sk;
	struct event *event;
	bool sends = sk;

	if (!sk && tells_receiving_sockets())
		sk = (void *)ctx[3];
	if (sk && !is_whole(sk))
		sk = NULL;
	if (!read_dropped(skb, &packet)) {
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
	event->header.text_length = TEXT_SHORT;
	if (tells_drop_reasons())
		event->reason = text_reason(event->text, ctx[2]);
	if (has_snprintf())
		event->function = text_function(event, location);
	gadget_send(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
