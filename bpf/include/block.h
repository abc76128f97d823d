/* SPDX-License-Identifier: GPL-2.0 */
/* Requests to block devices, each from when it is asked for to when it is done. A request is a bio. The kernel tells
 * when one is asked for, in the process that does it, and when it is done, in whatever process the interrupt came to. A
 * gadget that includes this says what becomes of those that are done. */
#pragma once

#include "table.h"
#include "quota.h"

#define AT_ONCE    16384 /* unfinished requests at once; a further one counts as lost */
#define QUOTA      4096  /* requests of one container among these */
#define MERGED     256   /* bios that a driver gets at once; each has a segment, and drivers take fewer */
#define OP_MASK    255   /* linux/blk_types.h, REQ_OP_BITS */
#define PF_KTHREAD 0x00200000

/* linux/blk_types.h, enum req_op */
enum io_operation {
	OPERATION_READ,
	OPERATION_WRITE,
	OPERATION_FLUSH,
	OPERATION_DISCARD,
	OPERATION_OTHER,
};
typedef enum io_operation gadget_operation_words;

/* What is known of a request when it is asked for. */
struct asked {
	__u64 cgroup_id, time, bytes;
	gadget_pid pid;
	gadget_operation_words operation;
	gadget_comm comm; /* of the process */
	gadget_name device;
};

/* A request is done, and took so many nanoseconds: the gadget counts it. */
static __always_inline void count_request(const struct asked *asked, __u64 took, bool failed);

/* By the address of their bio, the requests that are not done yet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AT_ONCE);
	__type(key, __u64);
	__type(value, struct asked);
} requests SEC(".maps");

static __always_inline struct gendisk *disk_of(const struct bio *bio)
{
	const struct bio___before_5_12 *older = (const void *)bio;

	if (bpf_core_field_exists(bio->bi_bdev))
		return BPF_CORE_READ(bio, bi_bdev, bd_disk);
	return BPF_CORE_READ(older, bi_disk);
}

/* Fill the header for who asks. Threads of the kernel write what containers have written to memory before: then the
 * container is the one that the request is charged to, where cgroup2 has the controller io. */
static __always_inline bool fill(struct gadget_header *header, struct task_struct *task, const struct bio *bio)
{
	struct cgroup *cgroup = NULL;
	__u64 id;

	if (TASK_READ(task, flags) & PF_KTHREAD && bpf_core_field_exists(bio->bi_blkg))
		cgroup = BPF_CORE_READ(bio, bi_blkg, blkcg, css.cgroup);
	if (!cgroup || BPF_CORE_READ(cgroup, root, hierarchy_id)) /* of cgroup2 it is 0 */
		return gadget_fill(header);
	id = BPF_CORE_READ(cgroup, kn, id);
	return process_chosen(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid()) &&
	       cgroup_chosen(cgroup, &id) && fill_current(header, id);
}

/* The bio among the arguments of block_bio_queue. */
static __always_inline __u64 bio_asked(unsigned long long *ctx)
{
	__u64 bio = ctx[0];

	if (tells_queue_of_bio()) {
		bio = ctx[1];
		asm volatile("" : "+r"(bio)); /* clang must not choose between two addresses: the verifier forbids it */
	}
	return bio;
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(asked)
{
	__u64 address = bio_asked(ctx);
	const struct bio *bio = (const void *)address;
	struct task_struct *task = current_task();
	struct gadget_header header;
	struct asked asked = {}, *stale;
	__u32 operation;

	if (!fill(&header, task, bio))
		return 0;
	operation = BPF_CORE_READ(bio, bi_opf) & OP_MASK;
	asked.cgroup_id = header.cgroup_id;
	asked.time = header.timestamp;
	asked.bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
	asked.pid = header.pid;
	asked.operation = operation < OPERATION_OTHER ? operation : OPERATION_OTHER;
	BPF_CORE_READ_STR_INTO(&asked.comm, task, group_leader, comm);
	BPF_CORE_READ_STR_INTO(&asked.device, disk_of(bio), disk_name);
	stale = bpf_map_lookup_elem(&requests, &address);
	if (stale)
		quota_give(stale->cgroup_id);
	if (!quota_take(header.cgroup_id, QUOTA)) {
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
		if (stale)
			bpf_map_delete_elem(&requests, &address);
	} else if (bpf_map_update_elem(&requests, &address, &asked, BPF_ANY)) {
		gadget_lost(LOSS_TOO_MANY_AT_ONCE, header.cgroup_id);
		quota_give(header.cgroup_id);
	}
	return 0;
}

/* Count a request that is done, if it is ours. */
static __noinline int finish(const struct bio *bio, bool failed)
{
	__u64 address = (__u64)bio;
	struct asked *asked = bpf_map_lookup_elem(&requests, &address);

	if (!asked)
		return 0;
	count_request(asked, bpf_ktime_get_boot_ns() - asked->time, failed);
	quota_give(asked->cgroup_id);
	bpf_map_delete_elem(&requests, &address);
	return 0;
}

/* A driver has done so many bytes of what it was asked for at once: the bios that end within them are done. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(driver_done, struct request *request, int error, unsigned int bytes)
{
	const struct bio *bio = BPF_CORE_READ(request, bio);

	for (int i = 0; i < MERGED && bio; i++) {
		unsigned int size = BPF_CORE_READ(bio, bi_iter.bi_size);

		if (size > bytes)
			break;
		bytes -= size;
		finish(bio, error);
		bio = BPF_CORE_READ(bio, bi_next);
	}
	return 0;
}

/* A device without requests of its own, as one on other disks. */
SEC("tp_btf/block_bio_complete")
int BPF_PROG(done, struct request_queue *queue, const struct bio *bio)
{
	return finish(bio, BPF_CORE_READ(bio, bi_status));
}
