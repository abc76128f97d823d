// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include "filter.h"
#include "signals.h"

#define CGROUP_LEVELS 16  /* levels above the victim's cgroup that are looked at */
#define RSS_COUNTERS  4   /* linux/mm_types_task.h: pages of files, anonymous pages, swap entries, shared memory */
#define SWAP_ENTRIES  2   /* the index of swap entries among them */
#define SLACK_PAGES   256 /* a cgroup so close to its limit counts as full: other tasks free and charge meanwhile */
#define UNLIMITED     (1ULL << 50) /* bytes; the kernel's own limit for none is LONG_MAX, rounded down */

enum oom_scope {
	SCOPE_CGROUP,
	SCOPE_NODE,
};
typedef enum oom_scope gadget_scope_words;

struct event {
	struct gadget_header header;
	gadget_scope_words scope DOC("what had no memory left: a cgroup at its limit, or the whole node");
	gadget_some_size limit DOC("the most that the cgroup may use; none if the node had no memory left");
	gadget_some_size used DOC("what the cgroup used");
	gadget_size rss DOC("memory that the victim had resident");
	__u64 pages DOC("the same in pages");
	__s32 score_adj DOC("the victim's oom_score_adj, -1000 to 1000: those with more are chosen first");
	gadget_pid fpid DOC("process id of who asked for memory when there was none, as the host sees it");
	gadget_comm fcomm DOC("name of who asked for memory");
	gadget_container trigger DOC("container of who asked for memory; none outside containers");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

/* The task to which a thread has sent the kernel's SIGKILL last, by thread. The killer sends it, then marks the victim,
 * whose task the mark does not have on every kernel; then it may kill others that share the victim's memory, and an
 * entry stays. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} victims SEC(".maps");

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_sent, int number, struct kernel_siginfo *info, struct task_struct *target)
{
	__u64 thread = bpf_get_current_pid_tgid(), victim = (__u64)target;

	if (number == SIGKILL && info && signal_code(info) == SI_KERNEL)
		bpf_map_update_elem(&victims, &thread, &victim, BPF_ANY);
	return 0;
}

/* Two functions of their own, because clang would otherwise compute both offsets before a loop, and each kernel has
 * only one of the two members. */
static __noinline __s64 count_of(struct mm_struct *mm, __u32 which)
{
	__s64 count = 0;

	bpf_probe_read_kernel(&count, sizeof(count),
			      (void *)mm + bpf_core_field_offset(struct mm_struct, rss_stat) +
				      which * bpf_core_type_size(struct percpu_counter) +
				      bpf_core_field_offset(struct percpu_counter, count));
	return count;
}

static __noinline __s64 count_before_6_2(struct mm_struct *mm, __u32 which)
{
	__s64 count = 0;

	bpf_probe_read_kernel(&count, sizeof(count),
			      (void *)mm + bpf_core_field_offset(struct mm_struct___before_6_2, rss_stat.count) +
				      which * sizeof(count));
	return count;
}

static __always_inline __u64 resident_pages(struct mm_struct *mm)
{
	struct mm_struct___before_6_2 *old = (void *)mm;
	__s64 pages = 0, each;

	for (__u32 i = 0; i < RSS_COUNTERS; i++) {
		/* f1a7941243c1 (6.2) made them counters per CPU */
		each = bpf_core_field_exists(old->rss_stat.count) ? count_before_6_2(mm, i) : count_of(mm, i);
		pages += i != SWAP_ENTRIES && each > 0 ? each : 0;
	}
	return pages;
}

/* Find the nearest cgroup above a task that has used up its limit. */
static __always_inline bool find_full(struct event *event, struct task_struct *task)
{
	__u32 which = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	struct cgroup_subsys_state *css = BPF_CORE_READ(task, cgroups, subsys[which]);

	for (int i = 0; i < CGROUP_LEVELS && css; i++) {
		struct mem_cgroup *group = (void *)css - bpf_core_field_offset(struct mem_cgroup, css);
		__u64 limit = BPF_CORE_READ(group, memory.max);
		__u64 used = BPF_CORE_READ(group, memory.usage.counter);

		if (limit * page_bytes() < UNLIMITED && used + SLACK_PAGES >= limit) {
			event->limit = limit * page_bytes();
			event->used = used * page_bytes();
			return true;
		}
		css = BPF_CORE_READ(css, parent);
	}
	return false;
}

/* Whether a task is the one that a mark is about. Else it was left by an earlier kill, and may be gone. */
static __always_inline bool is_marked(struct task_struct *task, __u64 mark)
{
	return victim_mark_has_task() ? (__u64)task == mark : BPF_CORE_READ(task, pid) == (int)mark;
}

SEC("tp_btf/mark_victim")
int BPF_PROG(killed, __u64 mark)
{
	__u64 thread = bpf_get_current_pid_tgid(), *found = bpf_map_lookup_elem(&victims, &thread);
	struct gadget_header trigger = {};
	struct task_struct *victim;
	struct event *event;
	__u32 zero = 0;

	if (!found)
		return 0; /* it was about to end by itself */
	victim = (void *)*found;
	bpf_map_delete_elem(&victims, &thread);
	if (!is_marked(victim, mark))
		return 0; /* likewise */
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill_pair(&event->header, victim, &trigger, current_task()))
		return 0;
	event->limit = event->used = 0;
	event->scope = find_full(event, victim) ? SCOPE_CGROUP : SCOPE_NODE;
	event->pages = resident_pages(BPF_CORE_READ(victim, signal, oom_mm));
	event->rss = event->pages * page_bytes();
	event->score_adj = BPF_CORE_READ(victim, signal, oom_score_adj);
	event->fpid = trigger.pid;
	__builtin_memcpy(event->fcomm, trigger.comm, sizeof(event->fcomm));
	event->trigger = trigger.cgroup_id;
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
