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
	gadget_pid hpid DOC("process id of who has the address already, as the host sees it; none if it is not known");
	gadget_comm hcomm DOC("name of who has the address already; ? if no process that is known has it");
	gadget_container holder DOC("container of who has the address already; none outside containers");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only binds that failed");

SOCKET_CALL(BIND);

#define MOST_HELD    16384 /* keys, two for each address: some 2 MiB; of more the oldest are not known any more */
#define MOST_OWN     4096  /* of one container, so that it does not push out what others have */
#define MOST_AT_ONCE 16    /* of one container that are noted at the same time */

/* An address that a socket has; or, with any, the last one that a socket has got at a port. */
struct address {
	__u64 net;
	__u8 ip[16];
	__u32 port;
	__u16 protocol;
	bool any, unused;
};

/* Who has an address. Nobody says when a socket gives its address back, so each entry is looked into before it counts:
 * sockets and tasks are only read, and may be others meanwhile. */
struct holder {
	struct sock *sk;
	struct task_struct *task;
	__u64 container; /* of the task; that of the host is any cgroup of its own */
	__s32 fd;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MOST_HELD);
	__type(key, struct address);
	__type(value, struct holder);
} holders SEC(".maps");

/* The keys of each container, by the order in which it got them. */
struct own_key {
	__u64 container, at;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MOST_HELD);
	__type(key, struct own_key);
	__type(value, struct address);
} own_keys SEC(".maps");

/* How many keys a container has got so far. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} counts SEC(".maps");

/* The address that a socket has, as a key; the port is 0 if it has none. */
static __always_inline struct address address_of(const struct sock *sk)
{
	struct address address = {};
	gadget_endpoint own, other;

	read_endpoints(sk, &own, &other);
	address.net = (__u64)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	__builtin_memcpy(address.ip, own.address, sizeof(address.ip));
	address.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	address.protocol = BPF_CORE_READ(sk, sk_protocol);
	return address;
}

/* Note a new key of a container, and forget its oldest if it has MOST_OWN. False if too many are noted at once.
 *
 * Each number is taken once: nothing takes the place of an entry that is there. Linux 5.10 has no atomics that return a
 * value. */
static __always_inline bool make_room(const struct address *address, __u64 container)
{
	struct own_key key = {.container = container};
	__u64 none = 0, *count;
	struct address *oldest;
	struct holder *held;
	bool taken = false;

	bpf_map_update_elem(&counts, &container, &none, BPF_NOEXIST);
	count = bpf_map_lookup_elem(&counts, &container);
	if (!count)
		return false;
	key.at = *(volatile __u64 *)count;
	for (int tries = 0; tries < MOST_AT_ONCE && !taken; tries++, key.at++)
		taken = !bpf_map_update_elem(&own_keys, &key, address, BPF_NOEXIST);
	__sync_fetch_and_add(count, 1);
	if (!taken)
		return false;
	key.at -= MOST_OWN + 1;
	oldest = bpf_map_lookup_elem(&own_keys, &key);
	if (!oldest)
		return true;
	held = bpf_map_lookup_elem(&holders, oldest);
	if (held && held->container == container)
		bpf_map_delete_elem(&holders, oldest);
	bpf_map_delete_elem(&own_keys, &key);
	return true;
}

static __always_inline void keep(const struct address *address, const struct holder *holder, __u64 flags)
{
	struct holder *known = bpf_map_lookup_elem(&holders, address);

	if (known && flags == BPF_NOEXIST)
		return;
	if ((known && known->container == holder->container) || make_room(address, holder->container))
		bpf_map_update_elem(&holders, address, holder, flags);
}

/* Remember who has a socket's address. */
static __always_inline void hold(struct sock *sk, struct task_struct *task, int fd, __u64 flags)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	struct holder holder = {
		.sk = sk,
		.task = BPF_CORE_READ(task, group_leader),
		.container = BPF_CORE_READ(cgroup, kn, id),
		.fd = fd,
	};
	struct address address = address_of(sk);

	if (!address.port)
		return;
	find_container(cgroup, &holder.container);
	keep(&address, &holder, flags);
	__builtin_memset(address.ip, 0, sizeof(address.ip));
	address.any = true;
	keep(&address, &holder, flags);
}

static __always_inline bool is_v6only(const struct sock *sk)
{
	return socket_options(sk) & IPV6_V6ONLY;
}

static __always_inline bool is_ipv4_key(const struct address *address)
{
	return is_ipv4((const gadget_endpoint *)address->ip);
}

/* Whether an address is all of IPv4 or of IPv6. */
static __always_inline bool is_wild(const struct address *address)
{
	const __u32 *words = (const void *)address->ip;

	return !words[3] && (is_ipv4_key(address) || (!words[0] && !words[1] && !words[2]));
}

/* Whether a socket keeps another one from an address. */
static __always_inline bool is_in_the_way(const struct sock *sk, const struct sock *other, const struct address *asked)
{
	struct address own = address_of(sk);
	const __u64 *has = (const void *)own.ip, *wants = (const void *)asked->ip;
	bool ipv4 = is_ipv4_key(&own);

	if (own.net != asked->net || own.port != asked->port || own.protocol != asked->protocol)
		return false; /* it has been closed */
	if (ipv4 == is_ipv4_key(asked))
		return is_wild(&own) || is_wild(asked) || (has[0] == wants[0] && has[1] == wants[1]);
	return ipv4 ? is_wild(asked) && !is_v6only(other) : is_wild(&own) && !is_v6only(sk);
}

/* Which keys are looked up for an address that is in use. */
enum { AS_ASKED, ALL_IPV4, ALL_IPV6, ANY_AT_PORT, LOOKED_UP };

/* Find who keeps a socket from the address that it asked for. False if nobody knows. */
static __always_inline bool find_holder(struct holder *found, const struct sock *sk, const gadget_endpoint *endpoint)
{
	struct address key = address_of(sk), asked;
	struct holder *known;

	__builtin_memcpy(key.ip, endpoint->address, sizeof(key.ip));
	key.port = endpoint->port;
	asked = key;
	for (int which = AS_ASKED; which < LOOKED_UP; which++) {
		if (which != AS_ASKED)
			__builtin_memset(key.ip, 0, sizeof(key.ip));
		if (which == ALL_IPV4)
			set_ipv4((gadget_endpoint *)key.ip, 0);
		key.any = which == ANY_AT_PORT;
		known = bpf_map_lookup_elem(&holders, &key);
		if (!known)
			continue;
		*found = *known;
		if (is_in_the_way(found->sk, sk, &asked))
			return true;
	}
	return false;
}

/* Tell who keeps a socket from the address that it asked for: ? if no process that is known does. */
static __always_inline void tell_holder(struct event *event, const struct sock *sk, const gadget_endpoint *endpoint)
{
	struct gadget_header other;
	bool thread, container;
	struct holder holder;
	struct cgroup *cgroup;
	struct sock *held;

	event->hcomm[0] = '?';
	if (!find_holder(&holder, sk, endpoint))
		return;
	if (socket_of_task(holder.task, holder.fd) == holder.sk) {
		fill_for(&other, holder.task, &thread, &container);
		event->hpid = other.pid;
		__builtin_memcpy(event->hcomm, other.comm, sizeof(event->hcomm));
		event->holder = other.cgroup_id;
		return;
	}
	/* another process has the socket by now; its container is that of who made it */
	held = holder.sk;
	cgroup = BPF_CORE_READ(held, sk_cgrp_data.cgroup);
	event->holder = BPF_CORE_READ(cgroup, kn, id);
	cgroup_chosen(cgroup, &event->holder);
}

/* Sockets that are there already. One that listens comes before the connections that it has accepted. */
SEC("iter/task_file")
int older(struct bpf_iter__task_file *found)
{
	struct sock *sk = socket_found(found);
	struct task_struct *task = found->task;

	if (sk && task)
		hold(sk, task, found->fd,
		     BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN ? BPF_ANY : BPF_NOEXIST);
	return 0;
}

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
	sk = result == -EBADF || result == -ENOTSOCK ? NULL : socket_of(args.a0);
	if (result >= 0 && sk && is_ip(sk))
		hold(sk, current_task(), args.a0, BPF_ANY);
	if (param_failed && result >= 0)
		return 0;
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
	event->hpid = 0;
	__builtin_memset(event->hcomm, 0, sizeof(event->hcomm));
	event->holder = 0;
	if (sk && result == -EADDRINUSE)
		tell_holder(event, sk, &asked);
	if (sk && result >= 0)
		read_endpoints(sk, &event->address, &other);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
