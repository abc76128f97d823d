// SPDX-License-Identifier: GPL-2.0
#include "block.h"

#define ENTRIES 8192 /* processes, times devices and operations of an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_pid
		pid DOC("process that asked, as the host sees it; a thread of the kernel's for what is written later");
	gadget_operation_words operation DOC("read, write, flush, discard or other");
	gadget_comm comm DOC("name of the process");
	gadget_name device DOC("the disk, as a whole");
};

struct value {
	__u64 requests DOC("requests that were done in the interval");
	__u64 errors DOC("of these, how many failed");
	gadget_size bytes DOC("how many bytes they were about");
	gadget_duration time DOC("how long they took together, from when they were asked for, in nanoseconds");
	gadget_longest_duration longest DOC("how long the longest of them took, in nanoseconds");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

static __always_inline void count_request(const struct asked *asked, __u64 took, bool failed)
{
	struct value *value;
	struct key key = {};

	key.cgroup_id = asked->cgroup_id;
	key.pid = asked->pid;
	key.operation = asked->operation;
	__builtin_memcpy(key.comm, asked->comm, sizeof(key.comm));
	__builtin_memcpy(key.device, asked->device, sizeof(key.device));
	value = gadget_row(&key);
	if (!value)
		return;
	__sync_fetch_and_add(&value->requests, 1);
	__sync_fetch_and_add(&value->bytes, asked->bytes);
	__sync_fetch_and_add(&value->time, took);
	if (failed)
		__sync_fetch_and_add(&value->errors, 1);
	if (took > value->longest) /* another CPU may do so, too: of the two longest one stays */
		value->longest = took;
}

char LICENSE[] SEC("license") = "GPL";
