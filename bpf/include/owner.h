/* SPDX-License-Identifier: GPL-2.0 */
/* Whose a socket is: the process that made it, or the last one that connected, sent or received by it. The kernel keeps
 * that with the socket and frees it with the socket. A connection that is accepted begins with the owner of the socket
 * that listened. A socket that is older than these programs has no owner until it is used; one that is connected
 * already gets one when it sends UDP. */
#pragma once

#include <linux/in.h>

#include "choice.h"
#include "sockets.h"

#ifndef KEPT_WITH_OWNER
#define KEPT_WITH_OWNER /* members that a gadget keeps with a socket, too */
#endif

struct socket_owner {
	__u32 pid, tid, uid, gid; /* pid is 0 if it is not known */
	gadget_comm comm;
	KEPT_WITH_OWNER
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct socket_owner);
} owners SEC(".maps");

/* The current task. Programs for packets and sockets may not call the helpers that tell of it, so it is read. */
static __always_inline struct task_struct *task_here(void)
{
	return (void *)bpf_get_current_task();
}

/* The cgroup of a task, and its id. */
static __always_inline struct cgroup *cgroup_of(struct task_struct *task, __u64 *id)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	*id = BPF_CORE_READ(cgroup, kn, id);
	return cgroup;
}

/* Make a task the owner of a socket. */
static __always_inline void set_owner(struct socket_owner *owner, struct task_struct *task)
{
	__u32 tid;

	if (!owner)
		return;
	tid = BPF_CORE_READ(task, pid);
	owner->pid = BPF_CORE_READ(task, tgid);
	owner->tid = tid;
	owner->uid = BPF_CORE_READ(task, cred, uid.val);
	owner->gid = BPF_CORE_READ(task, cred, gid.val);
	BPF_CORE_READ_INTO(&owner->comm, task, comm);
}

/* set_owner() by plain loads, which cost a tenth, for programs at tracepoints. task is what current_task() returned. */
static __always_inline void load_owner(struct socket_owner *owner, struct task_struct *task)
{
	owner->pid = task->tgid;
	owner->tid = task->pid;
	owner->uid = task->cred->uid.val;
	owner->gid = task->cred->gid.val;
	__builtin_memcpy(&owner->comm, &task->comm, sizeof(owner->comm));
}

/* Make the current process the owner of a socket, if the user chose its container. */
#define own(socket)                                                                                              \
	({                                                                                                       \
		struct task_struct *task = task_here();                                                          \
		__u64 id;                                                                                        \
		struct cgroup *cgroup = cgroup_of(task, &id);                                                    \
		if (cgroup_chosen(cgroup, &id))                                                                  \
			set_owner(bpf_sk_storage_get(&owners, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE), task); \
		1; /* go on */                                                                                   \
	})

/* Whether the programs here note owners of sockets of a protocol. A gadget that does so for TCP as connections begin
 * defines OWNS_TCP. */
static __always_inline bool noted_here(__u32 protocol)
{
#ifdef OWNS_TCP
	return protocol != IPPROTO_TCP;
#else
	return true;
#endif
}

/* Fill the header of an event for a process. Without a known process pid and tid are 0, uid and gid -1, and
 * comm is empty. The header has its cgroup_id already. False if the user did not choose the process. */
static __always_inline bool fill_owner(struct gadget_header *header, const struct socket_owner *known)
{
	header->pid = header->tid = 0;
	header->uid = header->gid = ANY_UID;
	__builtin_memset(header->comm, 0, sizeof(header->comm));
	if (known && known->pid) {
		header->pid = known->pid;
		header->tid = known->tid;
		header->uid = known->uid;
		header->gid = known->gid;
		__builtin_memcpy(header->comm, known->comm, sizeof(header->comm));
	}
	header->timestamp = bpf_ktime_get_boot_ns();
	header->text_length = 0;
	return process_chosen(header->pid, header->uid) && comm_chosen(header->comm);
}

/* Fill the header of an event for a socket, whoever runs. sk is an argument of the program's tracepoint. The container
 * is that of the process that made the socket; the process is the socket's owner, as for packets. False if the user did
 * not choose it: send nothing then. */
static __always_inline bool gadget_fill_socket(struct gadget_header *header, struct sock *sk)
{
	struct cgroup *cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	header->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	if (!cgroup_chosen(cgroup, &header->cgroup_id))
		return false;
	return fill_owner(header, has_socket_of_file() ? bpf_sk_storage_get(&owners, sk, NULL, 0) : NULL);
}

SEC("cgroup/sock_create")
int own_created(struct bpf_sock *sk)
{
	return !noted_here(sk->protocol) || own(sk);
}

#define OWN(when)                                                      \
	SEC("cgroup/" #when)                                           \
	int own_##when(struct bpf_sock_addr *asked)                    \
	{                                                              \
		return !noted_here(asked->protocol) || own(asked->sk); \
	}

OWN(connect4)
OWN(connect6)
OWN(sendmsg4) /* UDP that names its receiver */
OWN(sendmsg6)
OWN(recvmsg4)
OWN(recvmsg6)

/* A socket that is there already. */
SEC("iter/task_file")
int own_older(struct bpf_iter__task_file *found)
{
	struct sock *sk = socket_found(found);
	struct task_struct *task = found->task;
	struct socket_owner *owner;
	struct cgroup *cgroup;
	__u64 id;

	if (!sk || !task)
		return 0;
	cgroup = cgroup_of(task, &id);
	if (!cgroup_chosen(cgroup, &id))
		return 0;
	owner = bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (owner && !owner->pid) /* nobody has used it meanwhile */
		set_owner(owner, task);
	return 0;
}
