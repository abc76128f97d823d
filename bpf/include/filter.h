/* SPDX-License-Identifier: GPL-2.0 */
/* What the user chose, for programs that run in the thread that they are about: most hooks, and samples. A program that
 * sees packets runs in whatever thread the packet interrupted: see packets.h. */
#pragma once

#include "choice.h"

/* Fill the header of an event for the current thread. False if the user did not choose the thread: send nothing then.
 */
static __always_inline bool gadget_fill(struct gadget_header *header)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 owner = bpf_get_current_uid_gid();
	__u64 cgroup_id;

	if (!process_chosen(id >> 32, owner))
		return false;
	cgroup_id = bpf_get_current_cgroup_id();
	if (!cgroup_chosen(current_cgroup(), &cgroup_id))
		return false;
	bpf_get_current_comm(header->comm, sizeof(header->comm));
	if (!comm_chosen(header->comm))
		return false;
	header->timestamp = bpf_ktime_get_boot_ns();
	header->cgroup_id = cgroup_id;
	header->pid = id >> 32;
	header->tid = id;
	header->uid = owner;
	header->gid = owner >> 32;
	header->text_length = 0;
	return true;
}
