// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include <asm/errno.h>

#include "filter.h"
#include "sockets.h"

struct event {
	struct gadget_header header;
	gadget_protocol_words protocol DOC("protocol of the socket; unknown if it is none");
	gadget_endpoint address
		DOC("address and port that the socket has now; of a bind that failed, those that were asked for");
	gadget_option_flags options DOC("options of the socket that decide what it may share");
	gadget_errno error DOC("why the bind failed; none if it succeeded");
	__s32 fd DOC("file descriptor of the socket");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only binds that failed");

SOCKET_CALL(BIND);

SEC("tp_btf/sys_exit")
int BPF_PROG(bound, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs);
	struct syscall_args args;
	gadget_endpoint asked, other;
	struct event *event;
	struct sock *sk;

	if (!read_socket_call(regs, number, &args))
		return 0;
	result = syscall_result(regs, number, result);
	if (param_failed && result >= 0)
		return 0;
	sk = result == -EBADF || result == -ENOTSOCK ? NULL : socket_of(args.a0);
	if (!read_user_endpoint(&asked, args.a1) && !sk)
		return 0; /* no socket, and no address of IP: perhaps of a Unix domain */
	if (sk && !is_ip(sk))
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->fd = args.a0;
	event->error = syscall_error(result);
	event->protocol = sk ? BPF_CORE_READ(sk, sk_protocol) : PROTOCOL_UNKNOWN;
	event->options = sk ? socket_options(sk) : 0;
	event->address = asked;
	if (sk && result >= 0)
		read_endpoints(sk, &event->address, &other);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
