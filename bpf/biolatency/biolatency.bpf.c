// SPDX-License-Identifier: GPL-2.0
#include "block.h"
#include "histogram.h"

#define ENTRIES 2048 /* containers, times devices and operations of an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	gadget_name device DOC("the disk, as a whole");
	gadget_operation_words operation DOC("read, write, flush, discard or other");
} __attribute__((packed, aligned(4))); /* padding is not the same in equal keys */

struct value {
	gadget_histogram latency DOC("how long requests took that were done in the interval, from when they were asked "
				     "for");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

static __always_inline void count_request(const struct asked *asked, __u64 took, bool failed)
{
	struct value *value;
	struct key key = {};

	key.cgroup_id = asked->cgroup_id;
	key.operation = asked->operation;
	__builtin_memcpy(key.device, asked->device, sizeof(key.device));
	value = gadget_row(&key);
	if (value)
		gadget_histogram_add(value->latency, took);
}

char LICENSE[] SEC("license") = "GPL";
