/* SPDX-License-Identifier: GPL-2.0 */
/* The settings that every gadget has, and what the user chose by them. Nothing here asks who runs now: filter.h does,
 * for programs that run in the process they are about, and packets.h does for those that do not. */
#pragma once

#include "chosen.h"
#include "containers.h"
#include "drift.h"
#include "gadget.h"

PARAM(gadget_pid, pid, 0, "only this process");
PARAM(gadget_uid, uid, ANY_UID, "only this user, as the host sees it");
PARAM(gadget_comm, comm, "", "only threads with this name");

PARAM(bool, host, false, "also processes outside containers");

/* Whether a place is chosen, or not decided yet. cgroup_id is the result of find_container(). */
static __always_inline bool container_chosen(enum whereabouts where, __u64 cgroup_id)
{
	__u64 *decision;

	switch (where) {
	case OUTSIDE:
		return param_host;
	case INSIDE:
		decision = bpf_map_lookup_elem(&chosen, &cgroup_id);
		return !decision || *decision;
	default:
		return true;
	}
}

/* Whether a cgroup is chosen, or not decided yet. *cgroup_id is its id, and becomes that of the container's cgroup. */
static __always_inline bool cgroup_chosen(struct cgroup *cgroup, __u64 *cgroup_id)
{
	enum whereabouts where = find_container(cgroup, cgroup_id);

	return container_chosen(where, *cgroup_id);
}

/* Whether a process of this id and user is chosen (--pid, --uid). */
static __always_inline bool process_chosen(__u32 pid, __u32 uid)
{
	return (!param_pid || param_pid == pid) && (param_uid == ANY_UID || param_uid == uid);
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
