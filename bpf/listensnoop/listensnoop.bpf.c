// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include <asm/errno.h>

#include "filter.h"
#include "sockets.h"

struct event {
	struct gadget_header header;
	gadget_protocol_words protocol DOC("protocol of the socket; unknown if it is none");
	gadget_endpoint address DOC("address and port of the socket");
	gadget_option_flags options DOC("options of the socket that decide what it may share");
	__s32 backlog DOC("how many connections were to wait to be accepted, as the process asked");
	__u32 queue DOC("how many may: no more than net.core.somaxconn; 0 if the call failed");
	gadget_errno error DOC("why the listen failed; none if it succeeded");
	__s32 fd DOC("file descriptor of the socket");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only calls that failed");

SOCKET_CALL(LISTEN);

SEC("tp_btf/sys_exit")
int BPF_PROG(listened, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs);
	struct syscall_args args;
	gadget_endpoint other;
	struct event *event;
	struct sock *sk;

	if (!read_socket_call(regs, number, &args))
		return 0;
	result = syscall_result(regs, number, result);
	if (param_failed && result >= 0)
		return 0;
	sk = result == -EBADF || result == -ENOTSOCK ? NULL : socket_of(args.a0);
	if (sk && !is_ip(sk))
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->fd = args.a0;
	event->backlog = args.a1;
	event->error = syscall_error(result);
	event->protocol = PROTOCOL_UNKNOWN;
	event->address = (gadget_endpoint){};
	event->options = event->queue = 0;
	if (sk) {
		event->protocol = BPF_CORE_READ(sk, sk_protocol);
		event->options = socket_options(sk);
		read_endpoints(sk, &event->address, &other);
		if (result >= 0)
			event->queue = BPF_CORE_READ(sk, sk_max_ack_backlog);
	}
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
