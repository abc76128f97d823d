// SPDX-License-Identifier: GPL-2.0
/* The kernel smooths the round-trip time of each TCP connection. Whenever a packet arrives on one, it is counted once.
 */
#include "histogram.h"
#include "owner.h"

#define ENTRIES 4096 /* containers, or addresses with --addresses, that packets came to in an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_endpoint dst DOC("with --addresses: the address at the other end");
} __attribute__((packed, aligned(4))); /* padding is not the same in equal keys */

struct value {
	gadget_histogram rtt DOC("smoothed round-trip time of the connection, once for each packet that arrived");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

PARAM(bool, addresses, false, "a histogram for each address at the other end, not for each container");

SEC("tp_btf/tcp_probe")
int BPF_PROG(packet_came, struct sock *sk)
{
	__u32 srtt = BPF_CORE_READ((const struct tcp_sock *)sk, srtt_us) >> 3;
	struct gadget_header header;
	gadget_endpoint own_end = {};
	struct value *value;
	struct key key = {};

	if (!srtt || !gadget_fill_socket(&header, sk)) /* nothing was answered yet */
		return 0;
	key.cgroup_id = header.cgroup_id;
	if (param_addresses) {
		read_endpoints(sk, &own_end, &key.dst);
		key.dst.port = 0;
	}
	value = gadget_row(&key);
	if (value)
		gadget_histogram_add(value->rtt, srtt * 1000ULL);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
