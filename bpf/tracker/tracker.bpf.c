// SPDX-License-Identifier: GPL-2.0
/* Follows the cgroup2 tree: tells user space of each cgroup as it comes and goes. Cgroups inside a known container are
 * left out, as they are the container's own affair. */
#include "containers.h"

#define CGROUP_PATH_MAX 1024 /* the size of the kernel's own buffer for this tracepoint: kernel/cgroup/cgroup.c */

struct change {
	__u64 timestamp; /* CLOCK_BOOTTIME, nanoseconds */
	__u64 cgroup_id;
	bool removed;
	char path[CGROUP_PATH_MAX];
};
RECORD(change);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} changes SEC(".maps");

/* How many changes found the ring full. When this grows, user space reads the whole tree again. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} changes_lost SEC(".maps");

static __always_inline int tell(__u64 cgroup_id, const char *path, bool removed)
{
	struct change *change = bpf_ringbuf_reserve(&changes, sizeof(*change), 0);
	__u32 zero = 0;
	__u64 *lost;

	if (!change) {
		lost = bpf_map_lookup_elem(&changes_lost, &zero);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return 0;
	}
	change->timestamp = bpf_ktime_get_boot_ns();
	change->cgroup_id = cgroup_id;
	change->removed = removed;
	bpf_probe_read_kernel_str(change->path, sizeof(change->path), path);
	bpf_ringbuf_submit(change, BPF_RB_FORCE_WAKEUP); /* a runtime may delete config.json soon */
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_made, struct cgroup *cgroup, const char *path)
{
	if (cgroup->root->hierarchy_id != 0 ||
	    container_above(cgroup) != CGROUP_OF_HOST) /* of version 1 it is 1 or more */
		return 0;
	return tell(cgroup->kn->id, path, false);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(cgroup_removed, struct cgroup *cgroup, const char *path)
{
	__u64 id = cgroup->kn->id;

	if (cgroup->root->hierarchy_id != 0)
		return 0;
	if (bpf_map_delete_elem(&containers, &id) && container_above(cgroup) != CGROUP_OF_HOST)
		return 0;
	return tell(id, path, true);
}

char LICENSE[] SEC("license") = "GPL";
