// SPDX-License-Identifier: GPL-2.0
/* Questions and answers of DNS over UDP, as they leave and enter containers. What they say is parsed by kinds.py. */
#define TEXT_SHORT 512 /* what is kept of a message; longer ones came with EDNS only: RFC 6891 */
#include "packets.h"

#define QUESTIONS  16384 /* at once that wait for an answer; of the others, the latency is not known */
#define DNS_HEADER 12    /* RFC 1035, 4.1.1 */
#define DNS_ANSWER 0x80
#define DNS_OPCODE 0x78 /* 0 for questions and their answers */
#define DNS_RCODE  0x0f

PARAM(__u16, port, 53, "the servers' port");

enum message {
	MESSAGE_QUESTION,
	MESSAGE_ANSWER,
};
typedef enum message gadget_message_words;

/* IANA, DNS RCODEs. */
enum rcode {
	NOERROR,
	FORMERR,
	SERVFAIL,
	NXDOMAIN,
	NOTIMP,
	REFUSED,
	YXDOMAIN,
	YXRRSET,
	NXRRSET,
	NOTAUTH,
	NOTZONE,
	NONE = 255, /* of a question; kinds.py */
};
typedef enum rcode gadget_dns_rcode;

/* A message behind its id. Its parts have kinds of their own: kinds.py. */
typedef struct gadget_slice gadget_dns_name;
typedef struct gadget_slice gadget_dns_type;
typedef struct gadget_slice gadget_dns_addresses;

struct event {
	struct gadget_header header;
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_message_words message DOC("question or answer");
	gadget_dns_name name DOC("the name that is asked for");
	gadget_dns_type type DOC("what is asked for, such as A or AAAA");
	gadget_dns_rcode rcode DOC("how the server answers; none of a question");
	gadget_dns_addresses addresses DOC("the addresses in an answer; … if there may be more");
	gadget_duration latency DOC("of an answer, how long after the question at this end, in nanoseconds");
	__u16 id DOC("the message's id");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

/* A question, at one end. */
struct question {
	__u64 cookie; /* of the socket */
	gadget_endpoint peer;
	__u16 id;
	__u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, QUESTIONS);
	__type(key, struct question);
	__type(value, __u64); /* when it was asked */
} questions SEC(".maps");

static __always_inline __u64 latency_of(struct __sk_buff *skb, const gadget_endpoint *peer, __u16 id, bool answers)
{
	struct question question = {.cookie = bpf_get_socket_cookie(skb), .id = id};
	__u64 now = bpf_ktime_get_boot_ns(), *asked, latency;

	__builtin_memcpy(question.peer.address, peer->address, sizeof(peer->address));
	question.peer.port = peer->port;
	if (!answers) {
		bpf_map_update_elem(&questions, &question, &now, BPF_ANY);
		return DURATION_UNKNOWN;
	}
	asked = bpf_map_lookup_elem(&questions, &question);
	if (!asked)
		return DURATION_UNKNOWN;
	latency = now - *asked;
	bpf_map_delete_elem(&questions, &question);
	return latency;
}

static __always_inline int passed(struct __sk_buff *skb, bool out)
{
	struct gadget_header header = {};
	struct packet_ends ends = {};
	struct event *event;
	__u8 dns[4]; /* id, flags */
	bool answers;
	__u16 id;

	if (packet_protocol(skb) != IPPROTO_UDP || !read_packet_ends(skb, out, &ends))
		return 1;
	if (ends.own.port != param_port && ends.peer.port != param_port)
		return 1;
	if (skb->len < ends.payload + DNS_HEADER || bpf_skb_load_bytes(skb, ends.payload, dns, sizeof(dns)))
		return 1;
	if (dns[2] & DNS_OPCODE || !gadget_fill_packet(&header, skb, out))
		return 1;
	event = gadget_reserve(&header);
	if (!event)
		return 1;
	id = dns[0] << 8 | dns[1];
	answers = dns[2] & DNS_ANSWER;
	event->src = ends.own;
	event->dst = ends.peer;
	event->message = answers ? MESSAGE_ANSWER : MESSAGE_QUESTION;
	event->rcode = answers ? dns[3] & DNS_RCODE : NONE;
	event->id = id;
	event->name = text_packet(&event->header, event->text, skb, ends.payload + sizeof(id), TEXT_SHORT);
	event->type = event->name;
	event->addresses = event->name;
	event->latency = latency_of(skb, &ends.peer, id, answers);
	gadget_send(event);
	return 1;
}

SEC("cgroup_skb/egress")
int message_left(struct __sk_buff *skb)
{
	return passed(skb, true);
}

SEC("cgroup_skb/ingress")
int message_came(struct __sk_buff *skb)
{
	return passed(skb, false);
}

char LICENSE[] SEC("license") = "GPL";
