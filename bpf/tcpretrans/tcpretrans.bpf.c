// SPDX-License-Identifier: GPL-2.0
/* Segments of TCP as they are sent again, and why. The hook is in the midst of a timer or of an ACK's arrival, so the
 * process that runs has nothing to do with it. */
#define TEXT_SHORT 0
#include "owner.h"
#include "sockets.h"

/* linux/tcp.h, enum tcp_ca_state */
#define CA_RECOVERY 3
#define CA_LOSS     4

/* net/tcp.h, TCPHDR_… */
#define TCP_FIN 1
#define TCP_SYN 2

/* net/inet_connection_sock.h */
#define TIMER_NONE       0
#define TIMER_LOSS_PROBE 5

enum retransmit {
	RETRANSMIT_OTHER,
	RETRANSMIT_RTO,
	RETRANSMIT_FAST,
	RETRANSMIT_TLP,
	RETRANSMIT_LOSS,
	RETRANSMIT_SYN_ACK,
};
typedef enum retransmit gadget_retransmit_words;

struct event {
	struct gadget_header header;
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_tcp_state_words state DOC("state of the connection");
	gadget_retransmit_words reason DOC("why it is sent again");
	gadget_errno error DOC("why it could not be sent again; none if it was");
	__u32 bytes DOC("bytes of data in it; of a SYN or FIN alone none");
	__u32 timeouts DOC("timeouts in a row, since the peer acknowledged something new");
	__u32 total DOC("segments that the connection has sent again, with this one");
	gadget_duration srtt DOC("smoothed round-trip time, in nanoseconds; none before the first answer");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

/* The timer that runs out is taken off before a timeout's segment is sent, and after a probe's. A segment that an ACK
 * makes go is sent with some timer on. */
static __always_inline enum retransmit kind_of(const struct sock *sk)
{
	const struct inet_connection_sock *connection = (const void *)sk;
	__u8 state = BPF_CORE_READ_BITFIELD_PROBED(connection, icsk_ca_state);
	__u8 timer = BPF_CORE_READ(connection, icsk_pending);

	if (state == CA_LOSS)
		return timer == TIMER_NONE ? RETRANSMIT_RTO : RETRANSMIT_LOSS;
	if (state == CA_RECOVERY)
		return RETRANSMIT_FAST;
	return timer == TIMER_LOSS_PROBE ? RETRANSMIT_TLP : RETRANSMIT_OTHER;
}

/* The bytes of data in a segment: a SYN and a FIN take a number each. */
static __always_inline __u32 data_of(const struct tcp_skb_cb *segment)
{
	__u16 flags = BPF_CORE_READ(segment, tcp_flags);

	return BPF_CORE_READ(segment, end_seq) - BPF_CORE_READ(segment, seq) - !!(flags & TCP_SYN) -
	       !!(flags & TCP_FIN);
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(sent_again, struct sock *sk, struct sk_buff *skb)
{
	const struct tcp_skb_cb *segment = (const void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	const struct tcp_sock *tcp = (const void *)sk;
	struct gadget_header header = {};
	struct event *event;
	__u32 srtt;

	if (!is_ip(sk) || !gadget_fill_socket(&header, sk))
		return 0;
	event = gadget_reserve(&header);
	if (!event)
		return 0;
	read_endpoints(sk, &event->src, &event->dst);
	event->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	event->reason = kind_of(sk);
	event->error = tells_failed_retransmits() ? -(int)ctx[2] : 0;
	event->bytes = data_of(segment);
	event->timeouts = BPF_CORE_READ((const struct inet_connection_sock *)sk, icsk_retransmits);
	event->total = BPF_CORE_READ(tcp, total_retrans);
	srtt = BPF_CORE_READ(tcp, srtt_us) >> 3;
	event->srtt = srtt ? srtt * 1000ULL : DURATION_UNKNOWN;
	gadget_send(event);
	return 0;
}

/* A SYN-ACK is sent again. sk is the listening socket. */
SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(answered_again, struct sock *sk, struct request_sock *request)
{
	struct gadget_header header = {};
	struct event *event;

	if (!gadget_fill_socket(&header, sk))
		return 0;
	event = gadget_reserve(&header);
	if (!event)
		return 0;
	read_request_endpoints(request, &event->src, &event->dst);
	event->state = TCP_SYN_RECV;
	event->reason = RETRANSMIT_SYN_ACK;
	event->srtt = DURATION_UNKNOWN;
	gadget_send(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
