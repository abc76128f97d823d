// SPDX-License-Identifier: GPL-2.0
/* Questions and answers of DNS over UDP and TCP, as they leave and enter containers, and questions that nobody answers.
 * What they say is parsed by kinds.py. */
#define TEXT_SHORT 512 /* bytes: what is kept of a message; longer ones came with EDNS and TCP only: RFC 6891 */
#include "packets.h"
#include "quota.h"

#define QUESTIONS \
	16384 /* questions that wait for an answer at once; a further one is not followed, and counts as lost */
#define QUOTA        4096  /* questions of one container among these */
#define STREAMS      16384 /* directions of TCP connections that are followed at once */
#define MOST         8     /* messages that are read of one packet */
#define DNS_HEADER   12    /* RFC 1035, 4.1.1 */
#define DNS_ANSWER   0x80
#define DNS_OPCODE   0x78 /* 0 for questions and their answers */
#define DNS_ZERO     0x40
#define DNS_RCODE    0x0f
#define DNS_POINTER  0xc0 /* in place of a label length: the rest of the name is elsewhere in the message */
#define DNS_LABEL    0x3f /* the longest one */
#define DNS_LABELS   128  /* labels that a name may have */
#define DNS_OPT      41   /* the record of EDNS: RFC 6891, 6.1.3 */
#define DNS_RECORDS  64   /* records of an answer that are searched for the EDNS record */
#define DNS_QUESTION (DNS_HEADER + 255 + 4) /* bytes with the longest name, type and class */
#define CLOCK_BOOT   7                      /* linux/time.h, CLOCK_BOOTTIME */

#define NO_ANSWER_AFTER 5000000000 /* nanoseconds, after which glibc asks again */

PARAM(__u16, port, 53, "the servers' port");
PARAM(bool, failed, false, "only answers that are not NOERROR, and questions without an answer");
PARAM(gadget_duration, slow, 0,
      "only answers that took so long or longer (100ms), and questions without an answer; with --failed, both");

enum message {
	MESSAGE_QUESTION,
	MESSAGE_ANSWER,
	MESSAGE_NO_ANSWER,
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
	BADVERS = 16, /* from here on the upper bits are in a record of EDNS */
	BADKEY,
	BADTIME,
	BADMODE,
	BADNAME,
	BADALG,
	BADTRUNC,
	BADCOOKIE,
	NONE = 65535, /* of a question; kinds.py */
};
typedef enum rcode gadget_dns_rcode;

/* A message, with its whole length in place of its id. Its parts have kinds of their own: kinds.py. */
typedef struct gadget_slice gadget_dns_name;
typedef struct gadget_slice gadget_dns_type;
typedef struct gadget_slice gadget_dns_addresses;
typedef struct gadget_slice gadget_dns_cnames;

struct event {
	struct gadget_header header;
	gadget_protocol_words protocol DOC("udp or tcp");
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_endpoint server DOC("the end that is asked");
	gadget_message_words message DOC("question, answer, or no answer");
	gadget_dns_name name DOC("the name that is asked for");
	gadget_dns_type type DOC("what is asked for, such as A or AAAA; malformed if the question makes no sense");
	gadget_dns_rcode rcode DOC("how the server answers; none of a question");
	gadget_dns_addresses addresses
		DOC("the addresses in an answer; … if there may be more, malformed if what follows makes no sense");
	gadget_dns_cnames cnames DOC("the names in an answer that the name stands for");
	gadget_duration
		latency DOC("of an answer, how long after the question at this end, in nanoseconds; of no answer, "
			    "how long it was waited for");
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

/* A question that waits for its answer. */
struct asked {
#ifdef TIMERS
	struct bpf_timer timer;
#endif
	struct gadget_header header;
	gadget_endpoint src, dst, server;
	__u32 length; /* of the text */
	__u8 protocol;
	bool answered;
	char text[DNS_QUESTION + 3];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, QUESTIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct question);
	__type(value, struct asked);
} questions SEC(".maps");

static const struct asked nothing_asked;

/* Where the last question with an id went that a socket sent which is connected to nobody. NAT of the same network may
 * have rewritten that, but not the sender of the answer as the socket gets it. */
struct unbound {
	__u64 cookie; /* of the socket */
	__u64 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, QUESTIONS);
	__type(key, struct unbound);
	__type(value, gadget_endpoint);
} rewritten SEC(".maps");

static __always_inline void forget(void *map, const struct question *question, __u64 cgroup_id)
{
	if (!bpf_map_delete_elem(map, question))
		quota_give(cgroup_id);
}

#ifdef TIMERS
static int not_answered(void *map, struct question *question, struct asked *asked)
{
	struct gadget_header header = asked->header;
	struct event *event;

	if (!asked->answered) {
		header.timestamp = bpf_ktime_get_boot_ns();
		event = gadget_reserve(&header);
		if (event) {
			bpf_probe_read_kernel(event->text, sizeof(asked->text), asked->text);
			event->header.text_length = event->name.length = at_most(asked->length, sizeof(asked->text));
			event->type = event->name;
			event->protocol = asked->protocol;
			event->src = asked->src;
			event->dst = asked->dst;
			event->server = asked->server;
			event->message = MESSAGE_NO_ANSWER;
			event->rcode = NONE;
			event->latency = header.timestamp - asked->header.timestamp;
			event->id = question->id;
			gadget_send(event);
		}
	}
	forget(map, question, header.cgroup_id);
	return 0;
}

static __always_inline void begin_to_wait(struct asked *asked)
{
	if (bpf_timer_init(&asked->timer, &questions, CLOCK_BOOT))
		return;
	bpf_timer_set_callback(&asked->timer, not_answered);
	bpf_timer_start(&asked->timer, NO_ANSWER_AFTER, 0);
}
#else
static __always_inline void begin_to_wait(struct asked *asked)
{
}
#endif

/* A message in a packet. */
struct place {
	struct gadget_header header;
	struct packet_ends ends;
	struct question question;
	__u32 at, length; /* of what the packet has of it, behind its id */
	__u16 whole;      /* of it all */
	bool out, answers;
	bool connected; /* the ends are the socket's; of a packet that leaves */
	__u16 rcode;
};

static __always_inline const gadget_endpoint *server_of(const struct place *place)
{
	return place->answers == place->out ? &place->ends.own : &place->ends.peer;
}

/* Copy a message as kinds.py reads it, at most so many bytes. Returns how many they are. */
static __always_inline __u32 copy_message(struct __sk_buff *skb, const struct place *place, char *text, __u32 limit)
{
	__u32 length = at_most(place->length - 1, limit - sizeof(__u16) - 1) + 1;

	text[0] = place->whole >> 8;
	text[1] = place->whole & 0xff;
	return bpf_skb_load_bytes(skb, place->at, text + sizeof(__u16), length) ? 0 : length + sizeof(__u16);
}

/* Follow a question. One with the same id, while it waits, is the same question, asked again. */
static __always_inline void follow(struct __sk_buff *skb, struct place *place)
{
	__u64 cgroup_id = place->header.cgroup_id;
	struct asked *asked;

	if (place->out && !place->connected) {
		struct unbound unbound = {.cookie = place->question.cookie, .id = place->question.id};

		bpf_map_update_elem(&rewritten, &unbound, &place->question.peer, BPF_ANY);
	}
	if (bpf_map_lookup_elem(&questions, &place->question))
		return;
	if (!quota_take(cgroup_id, QUOTA)) {
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, cgroup_id);
		return;
	}
	if (bpf_map_update_elem(&questions, &place->question, &nothing_asked, BPF_NOEXIST)) {
		quota_give(cgroup_id);
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, cgroup_id);
		return;
	}
	asked = bpf_map_lookup_elem(&questions, &place->question);
	if (!asked)
		return;
	asked->header = place->header;
	asked->src = place->ends.own;
	asked->dst = place->ends.peer;
	asked->server = *server_of(place);
	asked->protocol = place->ends.protocol;
	asked->length = copy_message(skb, place, asked->text, DNS_QUESTION);
	begin_to_wait(asked);
}

/* How long ago a question was asked that is answered now. */
static __always_inline __u64 latency_of(struct place *place)
{
	struct question *question = &place->question;
	struct asked *asked = bpf_map_lookup_elem(&questions, question);
	__u64 latency, cgroup_id;
	gadget_endpoint *peer;

	if (!asked && !place->out) {
		struct unbound unbound = {.cookie = question->cookie, .id = question->id};

		peer = bpf_map_lookup_elem(&rewritten, &unbound);
		if (!peer)
			return DURATION_UNKNOWN;
		question->peer = *peer;
		asked = bpf_map_lookup_elem(&questions, question);
	}
	if (!asked)
		return DURATION_UNKNOWN;
	asked->answered = true;
	latency = bpf_ktime_get_boot_ns() - asked->header.timestamp;
	cgroup_id = asked->header.cgroup_id;
	forget(&questions, question, cgroup_id);
	return latency;
}

/* Whether the user wants to see a message. */
static __always_inline bool message_chosen(const struct place *place, __u64 latency)
{
	if (!param_failed && !param_slow)
		return true;
	if (!place->answers)
		return false;
	return (param_failed && place->rcode) || (param_slow && latency != DURATION_UNKNOWN && latency >= param_slow);
}

/* Look at a message, which has more than its header in this packet. */
static __noinline int look(struct __sk_buff *skb, struct place *place)
{
	__u64 latency = DURATION_UNKNOWN;
	struct event *event;
	__u32 length;

	if (!place)
		return 0;
	if (place->answers)
		latency = latency_of(place);
	else
		follow(skb, place);
	if (!message_chosen(place, latency))
		return 0;
	event = gadget_reserve(&place->header);
	if (!event)
		return 0;
	event->protocol = place->ends.protocol;
	event->src = place->ends.own;
	event->dst = place->ends.peer;
	event->server = *server_of(place);
	event->message = place->answers ? MESSAGE_ANSWER : MESSAGE_QUESTION;
	event->rcode = place->answers ? place->rcode : NONE;
	event->id = place->question.id;
	event->latency = latency;
	length = copy_message(skb, place, event->text, TEXT_SHORT);
	event->header.text_length = event->name.length = length;
	event->type = event->addresses = event->cnames = event->name;
	gadget_send(event);
	return 0;
}

/* Where a name that is at an offset of a packet ends there; 0 if it is none. The verifier looks at a function that is
 * not static only once. */
__noinline int behind_name(struct __sk_buff *skb, __u32 at)
{
	__u8 size;

	for (int i = 0; i < DNS_LABELS; i++) {
		if (bpf_skb_load_bytes(skb, at, &size, sizeof(size)))
			return 0;
		if (!size)
			return at + 1;
		if (size >= DNS_POINTER)
			return at + 2;
		if (size > DNS_LABEL)
			return 0;
		at += 1 + size;
	}
	return 0;
}

/* The upper bits of an answer's code; 0 if the packet does not have them. */
__noinline int extended_rcode(struct __sk_buff *skb, __u32 at, __u32 length)
{
	struct {
		__be16 id, flags, questions, answers, authorities, additional;
	} header;
	struct {
		__be16 type, class;
		__u8 rcode, version;
		__be16 flags, length;
	} record;
	__u32 end = at + length, others, all;

	if (bpf_skb_load_bytes(skb, at, &header, sizeof(header)) || header.questions != bpf_htons(1) ||
	    !header.additional)
		return 0;
	others = bpf_ntohs(header.answers) + bpf_ntohs(header.authorities);
	all = others + bpf_ntohs(header.additional);
	at = behind_name(skb, at + sizeof(header));
	if (!at)
		return 0;
	at += 4; /* type and class of the question */
	for (int i = 0; i < DNS_RECORDS && i < all; i++) {
		at = behind_name(skb, at);
		if (!at || at + sizeof(record) > end || bpf_skb_load_bytes(skb, at, &record, sizeof(record)))
			return 0;
		if (i >= others && record.type == bpf_htons(DNS_OPT))
			return record.rcode;
		at += sizeof(record) + bpf_ntohs(record.length);
	}
	return 0;
}

/* Find a message at an offset of a packet, of which the packet has so many bytes. False if it is none; strict: if it is
 * no plain question or answer, either. */
static __always_inline bool find(struct __sk_buff *skb, struct place *place, __u32 at, __u32 length, bool strict)
{
	__u8 dns[6]; /* id, flags, number of questions */

	if (length < DNS_HEADER || bpf_skb_load_bytes(skb, at, dns, sizeof(dns)) || dns[2] & DNS_OPCODE)
		return false;
	if (strict && (dns[3] & DNS_ZERO || dns[4] || dns[5] != 1))
		return false;
	place->question.id = dns[0] << 8 | dns[1];
	place->answers = dns[2] & DNS_ANSWER;
	place->rcode = dns[3] & DNS_RCODE;
	if (place->answers)
		place->rcode |= (extended_rcode(skb, at, length) & 0xff) << 4;
	place->at = at + sizeof(__u16);
	place->length = length - sizeof(__u16);
	return true;
}

/* One direction of a TCP connection: a length of two bytes is before each message. */
struct direction {
	__u64 cookie; /* of the socket */
	__u64 out;
};

struct stream {
	__u32 next;   /* sequence number of what is to be read next */
	__u16 length; /* of the message there, if its length was read already; else 0 */
	__u16 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, STREAMS);
	__type(key, struct direction);
	__type(value, struct stream);
} streams SEC(".maps");

/* Look at the messages of a TCP segment. Where the first one of a connection begins is not known if it is older than
 * this program, so a segment is tried. */
static __always_inline void read_segment(struct __sk_buff *skb, struct place *place)
{
	struct direction direction = {.cookie = place->question.cookie, .out = place->out};
	__u32 sequence, at = 0, size = skb->len - place->ends.payload;
	struct stream stream = {}, *known = bpf_map_lookup_elem(&streams, &direction);
	bool sure = false;
	__be16 length;

	if (bpf_skb_load_bytes(skb, place->ends.transport + 4, &sequence, sizeof(sequence)))
		return;
	sequence = bpf_ntohl(sequence);
	if (known && (__s32)(known->next - sequence) >= 0) {
		stream = *known;
		at = stream.next - sequence;
		sure = true;
	}
	for (int i = 0; i < MOST && at < size; i++) {
		if (!stream.length) {
			if (at + sizeof(length) > size ||
			    bpf_skb_load_bytes(skb, place->ends.payload + at, &length, sizeof(length)))
				break;
			stream.length = bpf_ntohs(length);
			at += sizeof(length);
			if (stream.length < DNS_HEADER || (!sure && size > sizeof(length) && size < DNS_HEADER))
				goto lost;
		}
		if (at >= size)
			break;
		place->whole = stream.length;
		if (find(skb, place, place->ends.payload + at, at_most(size - at, stream.length), !sure))
			look(skb, place);
		else if (!sure)
			goto lost;
		sure = true;
		at += stream.length;
		stream.length = 0;
	}
	stream.next = sequence + at;
	bpf_map_update_elem(&streams, &direction, &stream, BPF_ANY);
	return;
lost:
	bpf_map_delete_elem(&streams, &direction);
}

/* The socket of a packet that leaves, if it is connected. Its ends are those that the process knows and that packets
 * which come have: NAT may have rewritten those of this packet, such as a service's address to a pod's. */
static __always_inline struct bpf_sock *connected_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	return sk && sk->dst_port ? sk : NULL;
}

static __always_inline void read_socket_ends(struct bpf_sock *sk, struct packet_ends *ends)
{
	__u32 *own = (void *)ends->own.address, *peer = (void *)ends->peer.address;

	if (sk->family == AF_INET) {
		set_ipv4(&ends->own, sk->src_ip4);
		set_ipv4(&ends->peer, sk->dst_ip4);
	} else {
		own[0] = sk->src_ip6[0];
		own[1] = sk->src_ip6[1];
		own[2] = sk->src_ip6[2];
		own[3] = sk->src_ip6[3];
		peer[0] = sk->dst_ip6[0];
		peer[1] = sk->dst_ip6[1];
		peer[2] = sk->dst_ip6[2];
		peer[3] = sk->dst_ip6[3];
	}
	ends->own.port = sk->src_port;
	ends->peer.port = bpf_ntohs(sk->dst_port);
}

static __always_inline int passed(struct __sk_buff *skb, bool out)
{
	__u8 protocol = packet_protocol(skb);
	struct bpf_sock *sk = NULL;
	struct place place = {.out = out};

	if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
		return 1;
	if (out)
		sk = connected_socket(skb);
	if (!packet_has_port(skb, param_port) && !(sk && sk->dst_port == bpf_htons(param_port)))
		return 1;
	if (!read_packet_ends(skb, out, &place.ends))
		return 1;
	if (sk) {
		read_socket_ends(sk, &place.ends);
		place.connected = true;
	}
	if (place.ends.own.port != param_port && place.ends.peer.port != param_port)
		return 1;
	if (skb->len <= place.ends.payload || !gadget_fill_packet(&place.header, skb, out))
		return 1;
	place.question.cookie = bpf_get_socket_cookie(skb);
	__builtin_memcpy(place.question.peer.address, place.ends.peer.address, sizeof(place.question.peer.address));
	place.question.peer.port = place.ends.peer.port;
	place.whole = skb->len - place.ends.payload;
	if (protocol == IPPROTO_TCP)
		read_segment(skb, &place);
	else if (find(skb, &place, place.ends.payload, place.whole, false))
		look(skb, &place);
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
