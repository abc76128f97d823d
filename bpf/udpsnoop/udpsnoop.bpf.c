// SPDX-License-Identifier: GPL-2.0
/* Conversations over UDP, as they begin and end. */
#define TEXT_SHORT 0
#include "conversations.h"

enum operation {
	OPERATION_BEGIN,
	OPERATION_END,
};
typedef enum operation gadget_operation_words;

enum reason {
	REASON_NONE = END_NONE,
	REASON_CLOSED = END_CLOSED,
	REASON_SILENT = END_SILENT,
};
typedef enum reason gadget_reason_words;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("begin or end");
	gadget_role_words role DOC("client if this end spoke first, else server");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_reason_words reason DOC("why it ended: the socket was closed, or both were silent; none of a begin");
	__u64 sent DOC("bytes of data sent");
	__u64 received DOC("bytes of data received");
	__u64 packets_sent DOC("datagrams sent");
	__u64 packets_received DOC("datagrams received");
	gadget_duration duration DOC("of an end, from the first datagram to the last one, in nanoseconds");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

static __always_inline bool wants_conversation(const struct packet_ends *ends)
{
	return true;
}

static __always_inline void tell_conversation(const struct conversation *from, const gadget_endpoint *peer, __u64 now,
					      enum conversation_end why)
{
	struct gadget_header header = from->header;
	struct event *event;

	header.timestamp = now;
	event = gadget_reserve(&header);
	if (!event)
		return;
	event->operation = why ? OPERATION_END : OPERATION_BEGIN;
	event->role = from->out ? ROLE_CLIENT : ROLE_SERVER;
	event->reason = (enum reason)why;
	event->src = from->src;
	event->dst = *peer;
	event->received = from->bytes[0];
	event->sent = from->bytes[1];
	event->packets_received = from->packets[0];
	event->packets_sent = from->packets[1];
	event->duration = why ? from->last - from->header.timestamp : DURATION_UNKNOWN;
	gadget_send(event);
}

SEC("cgroup_skb/egress")
int datagram_left(struct __sk_buff *skb)
{
	return datagram_passed(skb, true);
}

SEC("cgroup_skb/ingress")
int datagram_came(struct __sk_buff *skb)
{
	return datagram_passed(skb, false);
}

char LICENSE[] SEC("license") = "GPL";
