/* SPDX-License-Identifier: GPL-2.0 */
/* The settings that every gadget has. The kernel applies them before an event costs anything. */
#pragma once

#include "containers.h"
#include "drift.h"
#include "gadget.h"

PARAM(gadget_pid, pid, 0, "only this process");
PARAM(gadget_uid, uid, ANY_UID, "only this user, as the host sees it");
PARAM(gadget_comm, comm, "", "only threads with this name");

PARAM(bool, host, false, "also processes outside containers");

/* The decisions of this run, by container: 1 chosen, 0 not. A container that is absent is not decided yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u64);
} chosen SEC(".maps");

/* Whether the current thread's container is chosen, or not decided yet. cgroup_id becomes the id of the container's
 * cgroup; outside containers, of the thread's own. */
static __always_inline bool cgroup_chosen(__u64 *cgroup_id)
{
	__u64 *decision;

	*cgroup_id = bpf_get_current_cgroup_id();
	switch (find_container(current_cgroup(), cgroup_id)) {
	case OUTSIDE:
		return param_host;
	case INSIDE:
		decision = bpf_map_lookup_elem(&chosen, cgroup_id);
		return !decision || *decision;
	default:
		return true;
	}
}

/* Whether a thread of this name is chosen (--comm). */
static __always_inline bool comm_chosen(const char *comm)
{
	if (!param_comm[0])
		return true;
	for (int i = 0; i < sizeof(gadget_comm); i++) {
		if (comm[i] != param_comm[i])
			return false;
		if (!comm[i])
			return true;
	}
	return true;
}

/* Fill the header of an event for the current thread. False if the user did not choose the thread: send nothing then.
 */
static __always_inline bool gadget_fill(struct gadget_header *header)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u64 owner = bpf_get_current_uid_gid();
	__u64 cgroup_id;

	if (param_pid && param_pid != id >> 32)
		return false;
	if (param_uid != ANY_UID && param_uid != (__u32)owner)
		return false;
	if (!cgroup_chosen(&cgroup_id))
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
