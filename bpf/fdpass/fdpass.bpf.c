// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 128
#include "files.h"
#include "filter.h"
#include "sockets.h"
#include "text.h"

#define AF_UNIX    1
#define SOL_SOCKET 1
#define SCM_RIGHTS 1
#define MESSAGES   16  /* messages that are read of one sendmmsg or recvmmsg; further ones count as lost */
#define CONTROLS   8   /* control messages that are read of one message; further ones count as lost */
#define FILES      253 /* SCM_MAX_FD of net/scm.h: in a message */

enum pass_operation {
	OPERATION_SEND,
	OPERATION_RECEIVE,
};
typedef enum pass_operation gadget_operation_words;

struct event {
	struct gadget_header header;
	gadget_operation_words operation DOC("whether the process sent or received it");
	__s32 fd DOC("the descriptor, as this process has it");
	__s32 socket DOC("the descriptor of the socket that it passed through");
	gadget_type_words type DOC("type of the file; gone if another thread has closed it meanwhile");
	__u64 inode DOC("inode number of the file: the same at both ends");
	gadget_pid peer_pid DOC("process id of the other end, when the two were connected; 0 if that is not known");
	gadget_comm peer_comm DOC("name of the process at the other end, if it still runs");
	gadget_container peer DOC("container of the process at the other end, if it still runs");
	gadget_path path
		DOC("the file, as the kernel names it; none if it has no name, as a pipe; of a socket its protocol");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

/* The message that is being looked at. */
struct message {
	enum pass_operation operation;
	int socket;
	__u32 files_left; /* so that a process which changes the message meanwhile is not looked at for long */
	__u32 peer_pid;
	__u64 peer;
	char peer_comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct message);
} current_message SEC(".maps");

static __always_inline void lose_rest(void)
{
	struct gadget_header header;

	if (gadget_fill(&header))
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
}

/* Send an event about a file of the current message. 1 if it can have no more. The verifier looks at a function that is
 * not static only once. */
__noinline int tell_file(int fd)
{
	__u32 zero = 0;
	struct message *message = bpf_map_lookup_elem(&current_message, &zero);
	struct event *event = bpf_map_lookup_elem(&scratch, &zero);
	struct file *file;

	if (!event || !message || !message->files_left || !gadget_fill(&event->header))
		return 1;
	message->files_left--;
	file = file_of(current_task(), fd);
	event->operation = message->operation;
	event->fd = fd;
	event->socket = message->socket;
	event->type = type_of(file);
	event->inode = file ? BPF_CORE_READ(file, f_inode, i_ino) : 0;
	event->peer_pid = message->peer_pid;
	__builtin_memcpy(event->peer_comm, message->peer_comm, sizeof(event->peer_comm));
	event->peer = message->peer;
	event->path = (gadget_path){.as_given = true}; /* none */
	if (file && BPF_CORE_READ(file, f_path.dentry, d_name.len))
		event->path = text_path(&event->header, event->text, __builtin_preserve_access_index(&file->f_path));
	gadget_submit(event);
	return 0;
}

/* Send events about the descriptors of a control message. 1 if the message can have no more. */
__noinline int tell_files(__u64 from, __u64 files)
{
	int fd;

	for (int i = 0; i < FILES && i < files; i++)
		if (!bpf_probe_read_user(&fd, sizeof(fd), (void *)(from + i * sizeof(fd))) && tell_file(fd))
			return 1;
	return 0;
}

/* Look for descriptors in a message. word is the size of a pointer of the program. */
__noinline int look_into(__u64 header, __u32 word)
{
	/* name, its length, two members for the buffers, then control messages and their length */
	__u64 at = read_word(header, 4, word), end = at + read_word(header, 5, word);
	__u32 head = word + 8, kind[2];
	__u64 length;

	for (int controls = 0; controls < CONTROLS; controls++) {
		if (!at || at + head > end)
			return 0;
		length = read_word(at, 0, word);
		if (length < head || length > end - at || bpf_probe_read_user(kind, sizeof(kind), (void *)(at + word)))
			return 0;
		if (kind[0] == SOL_SOCKET && kind[1] == SCM_RIGHTS &&
		    tell_files(at + head, (length - head) / sizeof(int)))
			return 0;
		at += (length + word - 1) & ~((__u64)word - 1);
	}
	if (at + head <= end)
		lose_rest();
	return 0;
}

/* Who is at the other end of a socket, as far as the kernel keeps it. */
static __always_inline void read_peer(struct message *message, struct sock *sk)
{
	struct pid *pid = BPF_CORE_READ(sk, sk_peer_pid);
	struct hlist_node *first;
	struct task_struct *task;
	struct cgroup *cgroup;

	message->peer_pid = message->peer = 0;
	__builtin_memset(message->peer_comm, 0, sizeof(message->peer_comm));
	if (!pid)
		return;
	message->peer_pid = BPF_CORE_READ(pid, numbers[0].nr);
	first = BPF_CORE_READ(pid, tasks[1].first);
	if (!first)
		return; /* it is gone */
	task = (void *)first - bpf_core_field_offset(struct task_struct, pid_links) - sizeof(struct hlist_node);
	BPF_CORE_READ_STR_INTO(&message->peer_comm, task, comm);
	cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	message->peer = BPF_CORE_READ(cgroup, kn, id);
	find_container(cgroup, &message->peer);
}

struct known {
	bool ours, receives, many;
};

CALLS(struct known) = {
	KNOWN_BOTH(SENDMSG, {true, false, false}),     KNOWN_BOTH(RECVMSG, {true, true, false}),
	KNOWN_BOTH(SENDMMSG, {true, false, true}),     KNOWN_BOTH(RECVMMSG, {true, true, true}),
	KNOWN_32(RECVMMSG_TIME64, {true, true, true}),
};

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs), word = number & COMPAT_FLAG ? 4 : 8;
	struct known known = known_call(number);
	struct syscall_args args;
	struct message *message;
	struct sock *sk;
	__u64 size;

	if (!known.ours || result < 0 || (known.many && !result))
		return 0;
	args = syscall_arguments(regs, number);
	sk = socket_of(args.a0);
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX)
		return 0;
	message = bpf_map_lookup_elem(&current_message, &zero);
	if (!message)
		return 0;
	if (!known.many && !read_word(args.a1, 5, word))
		return 0; /* no control messages, as with most */
	message->operation = known.receives ? OPERATION_RECEIVE : OPERATION_SEND;
	message->socket = args.a0;
	message->files_left = FILES;
	read_peer(message, sk);
	if (!known.many)
		return look_into(args.a1, word);
	size = word * 8; /* struct mmsghdr: seven words, and the length of the message */
	for (int i = 0; i < MESSAGES && i < result; i++) {
		message->files_left = FILES;
		look_into(args.a1 + i * size, word);
	}
	if (result > MESSAGES)
		lose_rest();
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
