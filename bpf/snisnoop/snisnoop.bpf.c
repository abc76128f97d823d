// SPDX-License-Identifier: GPL-2.0
/* The first message of TLS, ClientHello, that containers send as a TCP connection begins. What it says is parsed by
 * kinds.py. */
#define TEXT_SHORT 3584 /* what is kept of a hello: with keys against quantum computers one has 1,800 bytes */
#include "packets.h"
#include "quota.h"

#define MOST    TEXT_SHORT
#define BLOCK   256  /* bytes that are copied at once */
#define PIECES  4096 /* hellos at once that have come in part; of a further one only the first part is seen */
#define QUOTA   1024 /* hellos of one container among these */
#define RECORDS 16   /* TLS records that one hello may span */

#define TLS_HEADER    5 /* a record's type, version and length. RFC 8446, 5.1 */
#define TLS_HANDSHAKE 22
#define TLS_MAJOR     3
#define TCP_SYN       2 /* a flag of a segment */
#define HELLO_HEADER  4 /* type, length of three bytes. RFC 8446, 4 */
#define HELLO_TYPE    1
#define HELLO_KNOWN   (TLS_HEADER + 1) /* bytes that tell whether data is a hello */

/* Records with a hello. Its parts have kinds of their own: kinds.py. */
typedef struct gadget_slice gadget_tls_name;
typedef struct gadget_slice gadget_tls_alpn;
typedef struct gadget_slice gadget_tls_version;
typedef struct gadget_slice gadget_tls_ech;

struct tls_state {
	__u16 offset;
	__u16 length;
	bool cut; /* more was sent than is kept */
};
typedef struct tls_state gadget_tls_state;

struct event {
	struct gadget_header header;
	gadget_endpoint src DOC("this end");
	gadget_endpoint dst DOC("the other end");
	gadget_tls_name name DOC("the server's name as the client gives it (SNI); empty if it gives none");
	gadget_tls_alpn alpn DOC("the protocols that the client offers, such as h2 (ALPN)");
	gadget_tls_version version DOC("the highest version of TLS that the client offers");
	gadget_tls_ech ech DOC("whether there is an encrypted hello in it (ECH): name is then a public name");
	gadget_tls_state state DOC("whole, or why less than the whole hello could be read: malformed, too long, "
				   "unfinished");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_RESERVED();

/* A hello that has come in part. */
struct hello {
	struct gadget_header header;
	gadget_endpoint src, dst;
	__u32 first;                 /* where it begins in what the socket sends */
	__u32 length;                /* of the data, in bytes */
	__u32 record;                /* where in the data the record begins that is read next */
	__u32 before;                /* bytes of the hello in the records before it */
	__u8 records;                /* how many these are */
	__u8 head[2 * HELLO_HEADER]; /* its header, and what may be written behind that: see is_ready() */
	bool cut;
	__u8 data[MOST + BLOCK];
};
_Static_assert(sizeof(struct hello) + 64 <= 4096, "an entry of the table fits into a page");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PIECES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* cookie of the socket */
	__type(value, struct hello);
} hellos SEC(".maps");

static const struct hello no_hello;

/* The state of a socket that began with a hello. It may send its first bytes again. */
struct known {
	__u32 collecting; /* the hello is in the table above */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct known);
} sockets SEC(".maps");

/* A segment with data. */
struct segment {
	struct packet_ends ends;
	__u32 at;     /* where its data begins in what the socket sends */
	__u32 length; /* of the data, in bytes */
};

/* Whether so many bytes begin with a hello, or may. */
static __always_inline bool begins_hello(const __u8 *bytes, __u32 length)
{
	return bytes[0] == TLS_HANDSHAKE && (length < 2 || bytes[1] == TLS_MAJOR) &&
	       (length < HELLO_KNOWN || bytes[TLS_HEADER] == HELLO_TYPE);
}

static __always_inline struct event *make(struct gadget_header *header, const gadget_endpoint *src,
					  const gadget_endpoint *dst)
{
	struct event *event;

	header->timestamp = bpf_ktime_get_boot_ns();
	event = gadget_reserve(header);
	if (event) {
		event->src = *src;
		event->dst = *dst;
	}
	return event;
}

static __always_inline void send(struct event *event, __u32 length, bool cut)
{
	event->header.text_length = event->name.length = length;
	event->alpn = event->version = event->ech = event->name;
	event->state.length = length;
	event->state.cut = cut;
	gadget_send(event);
}

/* Send a hello that lies in one segment, or what the segment has of it. */
static __noinline int send_from(struct __sk_buff *skb, struct segment *segment, struct gadget_header *header,
				__u32 length)
{
	struct event *event;

	if (!segment || !header)
		return 0;
	event = make(header, &segment->ends.own, &segment->ends.peer);
	if (!event)
		return 0;
	length = at_most(length - 1, MOST - 1) + 1;
	if (bpf_skb_load_bytes(skb, segment->ends.payload, event->text, length))
		length = 0;
	send(event, length, segment->length > MOST);
	return 0;
}

/* Send a hello of the table, and forget it. */
static __noinline int send_collected(struct hello *hello, __u64 cookie)
{
	__u64 cgroup_id;
	struct event *event;
	__u32 length;

	if (!hello)
		return 0;
	cgroup_id = hello->header.cgroup_id;
	if (hello->length >= HELLO_KNOWN) {
		event = make(&hello->header, &hello->src, &hello->dst);
		if (event) {
			length = at_most(hello->length - 1, MOST - 1) + 1;
			bpf_probe_read_kernel(event->text, length, hello->data);
			send(event, length, hello->cut);
		}
	}
	if (!bpf_map_delete_elem(&hellos, &cookie))
		quota_give(cgroup_id);
	return 0;
}

/* Add data of a packet to a hello. */
static __noinline int append(struct __sk_buff *skb, struct hello *hello, __u32 from, __u32 left)
{
	__u32 at, size;

	if (!hello)
		return 0;
	for (int i = 0; i <= MOST / BLOCK; i++) {
		at = hello->length;
		if (!left || at >= MOST)
			break;
		size = at_most(left - 1, BLOCK - 1) + 1;
		if (bpf_skb_load_bytes(skb, from, hello->data + at_most(at, MOST - 1), size))
			break;
		from += size;
		left -= size;
		hello->length = at + size;
	}
	if (hello->length > MOST)
		hello->length = MOST;
	return 0;
}

/* Read the headers of the records that are there. Whether the hello is whole, or cannot become so. */
static __noinline int is_ready(struct hello *hello)
{
	__u32 at, length, here, need;
	const __u8 *record;

	if (!hello)
		return 0;
	for (int i = 0; i < RECORDS; i++) {
		at = hello->record;
		if (at + TLS_HEADER >= hello->length)
			goto full;
		record = hello->data + at_most(at, MOST - 1);
		length = record[3] << 8 | record[4];
		if (record[0] != TLS_HANDSHAKE || record[1] != TLS_MAJOR || !length)
			return 1; /* malformed, as kinds.py finds, too */
		here = hello->length - at - TLS_HEADER;
		if (here > length)
			here = length;
		if (hello->before < HELLO_HEADER) { /* what is not this record's is overwritten by the next one */
			for (int j = 0; j < HELLO_HEADER; j++)
				hello->head[(hello->before + j) & (sizeof(hello->head) - 1)] = record[TLS_HEADER + j];
		}
		if (hello->before + here >= HELLO_HEADER) {
			need = HELLO_HEADER + (hello->head[1] << 16 | hello->head[2] << 8 | hello->head[3]);
			if (need <= hello->before + here) {
				hello->length = at + TLS_HEADER + need - hello->before;
				return 1;
			}
		}
		if (here < length)
			goto full;
		if (++hello->records == RECORDS) {
			hello->cut = true;
			return 1;
		}
		hello->before += length;
		hello->record = at + TLS_HEADER + length;
	}
full:
	hello->cut = hello->length >= MOST;
	return hello->cut;
}

/* Put a hello into the table. NULL if there is no room. */
static __always_inline struct hello *collect(const struct segment *segment, const struct gadget_header *header,
					     __u64 cookie)
{
	struct hello *hello;

	if (!quota_take(header->cgroup_id, QUOTA))
		return NULL;
	if (bpf_map_update_elem(&hellos, &cookie, &no_hello, BPF_NOEXIST)) {
		quota_give(header->cgroup_id);
		return NULL;
	}
	hello = bpf_map_lookup_elem(&hellos, &cookie);
	if (!hello)
		return NULL;
	hello->header = *header;
	hello->src = segment->ends.own;
	hello->dst = segment->ends.peer;
	hello->first = segment->at;
	return hello;
}

/* Look at the first data of a socket. A hello that is whole is sent; one that is not goes on. */
static __always_inline void begin(struct __sk_buff *skb, struct bpf_sock *sk, struct segment *segment)
{
	__u8 bytes[TLS_HEADER + HELLO_HEADER] = {};
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct gadget_header header = {};
	struct hello *hello;
	struct known *known;
	__u32 length, need;

	length = at_most(segment->length - 1, sizeof(bytes) - 1) + 1;
	if (bpf_skb_load_bytes(skb, segment->ends.payload, bytes, length) || !begins_hello(bytes, length))
		return;
	if (!gadget_fill_packet(&header, skb, true))
		return;
	known = bpf_sk_storage_get(&sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	need = HELLO_HEADER + (bytes[6] << 16 | bytes[7] << 8 | bytes[8]);
	if (length == sizeof(bytes) && need <= (bytes[3] << 8 | bytes[4]) && TLS_HEADER + need <= segment->length &&
	    TLS_HEADER + need <= MOST) {
		send_from(skb, segment, &header, TLS_HEADER + need);
		return;
	}
	hello = known ? collect(segment, &header, cookie) : NULL;
	if (hello)
		known->collecting = true;
	else if (segment->length >= HELLO_KNOWN)
		send_from(skb, segment, &header, segment->length);
	else
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
}

/* Add the data of a segment to the hello of its socket. */
static __always_inline void go_on(struct __sk_buff *skb, struct known *known, struct segment *segment)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct hello *hello = bpf_map_lookup_elem(&hellos, &cookie);
	__u32 there;

	if (!hello) {
		known->collecting = false;
		return;
	}
	there = hello->first + hello->length - segment->at; /* bytes that were sent before */
	if ((__s32)there >= 0) {
		if (there >= segment->length)
			return;
		append(skb, hello, segment->ends.payload + there, segment->length - there);
		if (!begins_hello(hello->data, hello->length))
			hello->length = 0; /* it only looked like one */
		else if (!is_ready(hello))
			return;
	} /* else something between was not seen */
	known->collecting = false;
	send_collected(hello, cookie);
}

/* Find the data of a packet of TCP, and where it lies in what the socket sends. False if it has none. */
static __always_inline bool find(struct __sk_buff *skb, struct bpf_tcp_sock *tcp, struct segment *segment)
{
	__u32 sequence;
	__u8 flags;

	if (!read_packet_ends(skb, true, &segment->ends) || skb->len <= segment->ends.payload)
		return false;
	if (bpf_skb_load_bytes(skb, segment->ends.transport + 4, &sequence, sizeof(sequence)) ||
	    bpf_skb_load_bytes(skb, segment->ends.transport + 13, &flags, sizeof(flags)))
		return false;
	/* its own SYN counts as a byte that is acknowledged, but not that of a socket that accepted */
	segment->at = bpf_ntohl(sequence) + (flags & TCP_SYN ? 1 : 0) - (tcp->snd_una - (__u32)tcp->bytes_acked);
	segment->length = skb->len - segment->ends.payload;
	return true;
}

SEC("cgroup_skb/egress")
int segment_left(struct __sk_buff *skb)
{
	struct segment segment = {};
	struct bpf_tcp_sock *tcp;
	struct known *known;
	struct bpf_sock *sk;

	if (packet_protocol(skb) != IPPROTO_TCP)
		return 1;
	sk = skb->sk;
	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	tcp = bpf_tcp_sock(sk);
	if (!tcp || tcp->bytes_acked > MOST + 1 || !packet_may_have(skb, 1) || !find(skb, tcp, &segment))
		return 1;
	if (segment.at <= 1 && !bpf_sk_storage_get(&sockets, sk, NULL, 0))
		begin(skb, sk, &segment);
	known = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (known && known->collecting)
		go_on(skb, known, &segment);
	return 1;
}

/* A connection that ends before its hello is whole. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(state_changed, const struct sock *sk, const int old, const int new)
{
	__u64 cookie;

	if (new != TCP_CLOSE)
		return 0;
	cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (cookie)
		send_collected(bpf_map_lookup_elem(&hellos, &cookie), cookie);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
