/* SPDX-License-Identifier: GPL-2.0 */
/* Where kernels differ. Each entry asks the BTF of the running kernel what it has, never its version. */
#pragma once

#include "kernel.h"

/* Whether the verifier knows the type of the current task, so that plain loads can read it: kernel commit 3ca1032ab7ab
 * (5.11) added bpf_get_current_task_btf. Before it only bpf_probe_read_kernel can read the task. */
static __always_inline bool task_has_type(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

/* The current task. Read its members by TASK_READ. */
static __always_inline struct task_struct *current_task(void)
{
	return task_has_type() ? bpf_get_current_task_btf() : (void *)bpf_get_current_task();
}

/* A member of the task that current_task() returned: by a plain load if the kernel allows it. */
#define TASK_READ(task, member) (task_has_type() ? (task)->member : BPF_CORE_READ(task, member))

/* The current task's cgroup in cgroup2. */
static __always_inline struct cgroup *current_cgroup(void)
{
	struct task_struct *task = current_task();

	return task_has_type() ? task->cgroups->dfl_cgrp : BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

/* What a task does, or waits for: kernel commit 2f064a59a11f (5.14) renamed the member. */
static __always_inline __u32 state_of(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return BPF_CORE_READ(task, __state);
	return BPF_CORE_READ((struct task_struct___before_5_14 *)task, state);
}

/* Whether a program may read the registers of a task: kernel commit dd6e10fbd9fb (5.15) added bpf_task_pt_regs. */
static __always_inline bool has_task_registers(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs);
}

/* Whether a program may ask for the socket of a file: kernel commit 4f19cab76136 (5.11) added
 * bpf_sock_from_file. The same release gave tracing programs the storage of sockets. */
static __always_inline bool has_socket_of_file(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_sock_from_file);
}

/* Whether the tracepoint tcp_retransmit_skb also tells of segments that could not be sent, and why, as a third argument
 * (between 6.12 and 6.18). */
static __always_inline bool tells_failed_retransmits(void)
{
	return bpf_core_field_exists(((struct trace_event_raw_tcp_retransmit_skb *)0)->err);
}

/* Whether the tracepoint kfree_skb tells why a packet is dropped, as a third argument: kernel commit c504e5c2f964
 * (5.17). */
static __always_inline bool tells_drop_reasons(void)
{
	return bpf_core_field_exists(((struct trace_event_raw_kfree_skb *)0)->reason);
}

/* Whether the tracepoint kfree_skb tells which socket was to receive the packet, as a fourth argument: kernel commit
 * c53795d48ee8 (6.11). */
static __always_inline bool tells_receiving_sockets(void)
{
	return bpf_core_field_exists(((struct trace_event_raw_kfree_skb *)0)->rx_sk);
}

/* Whether a program may print the name of a function: kernel commit 7b15523a989b (5.13) added bpf_snprintf. */
static __always_inline bool has_snprintf(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_snprintf);
}

/* Whether the tracepoint block_bio_queue passes the request queue before the bio: up to kernel commit e8a676d61c07
 * (5.11). Partitions became block devices in the same release. */
static __always_inline bool tells_queue_of_bio(void)
{
	return !bpf_core_field_exists(((struct block_device *)0)->bd_start_sect);
}

struct trace_event_raw_mark_victim {
	__u32 uid;
} __attribute__((preserve_access_index));

/* Whether mark_victim passes the victim's task and records its user; before kernel commit 72ba14deb40a (6.10) it passes
 * the victim's number. */
static __always_inline bool victim_mark_has_task(void)
{
	return bpf_core_field_exists(struct trace_event_raw_mark_victim, uid);
}

/* bpf_probe_read_user_str, but the length of an empty string is 1 on every kernel, as the NUL counts. Kernels before
 * "maccess: fix strncpy_from_user_nofault() empty string handling" (between 6.12 and 6.18) return 0. size is not 0. */
static __always_inline long read_user_string(char *to, __u32 size, const void *from)
{
	long length = bpf_probe_read_user_str(to, size, from);

	return length ? length : 1;
}

/* Its two positions each have a page of their own. */
struct bpf_ringbuf {
	unsigned long consumer_pos, producer_pos;
} __attribute__((preserve_access_index));

/* The size of a page, in bytes: arm64 has kernels with 4, 16 and 64 KiB. */
static __always_inline __u64 page_bytes(void)
{
	return bpf_core_field_offset(struct bpf_ringbuf, producer_pos) -
	       bpf_core_field_offset(struct bpf_ringbuf, consumer_pos);
}

/* Task work, kernel commit 38aa7003e369 (6.18): a thread runs it before it goes on in user space, and may wait for
 * pages there. A gadget X that uses it has a second object, X___FUNCTION. The agent loads that one if the kernel's BTF
 * has the function (agent/bpf/objects.py). One object would not do: libbpf looks for functions that the kernel itself
 * lacks in the kernel's modules, which takes CAP_SYS_ADMIN. */
struct bpf_task_work {
	__u64 opaque;
} __attribute__((aligned(8)));

/* Kernel commit 38c8e1a2fc3d (7.0) dropped the last argument and the suffix. */
extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *work, void *map,
					      int (*callback)(struct bpf_map *map, void *key, void *value),
					      void *program) __weak __ksym;
extern int bpf_task_work_schedule_resume(struct task_struct *task, struct bpf_task_work *work, void *map,
					 int (*callback)(struct bpf_map *map, void *key, void *value)) __weak __ksym;
extern int bpf_copy_from_user_str(void *to, __u32 size, const void *from, __u64 flags) __weak __ksym;
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;

/* Since kernel commit 06accc8779c1 (6.4) the verifier need not go through each round of a loop. A file that is for
 * later kernels alone can use this. clang writes no BTF of a function that only cleanup() names. */
struct bpf_iter_num {
	__u64 opaque;
} __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;
#define rounds(i, count)                                                                                         \
	for (struct bpf_iter_num round __attribute__((cleanup(bpf_iter_num_destroy))),                           \
	     *begun                                                                                              \
	     __attribute__((unused)) = (bpf_iter_num_new(&round, 0, count), (void)bpf_iter_num_destroy, &round); \
	     ({                                                                                                  \
		     int *next = bpf_iter_num_next(&round);                                                      \
		     if (next) {                                                                                 \
			     i = *next;                                                                          \
			     (void)i;                                                                            \
		     }                                                                                           \
		     next;                                                                                       \
	     });)
