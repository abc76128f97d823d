// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include "filter.h"
#include "signals.h"

#define SIGNAL_GROUP_EXIT 0x4 /* linux/sched/signal.h */
#define CORE_DUMPED       0x80
#define SHELL_SIGNALS     128 /* what shells add to the number of a signal */

enum exit_result {
	RESULT_OK,
	RESULT_FAILED,
	RESULT_KILLED,
	RESULT_CORE_DUMPED,
	RESULT_OOM_KILLED,
};
typedef enum exit_result gadget_result_words;

struct event {
	struct gadget_header header;
	gadget_pid ppid DOC("process id of the parent, as the host sees it");
	gadget_comm pcomm DOC("name of the parent");
	gadget_result_words
		result DOC("how it ended; failed: with a code that is not 0; core dumped: killed, with a core");
	__u8 code DOC("exit code as shells and Kubernetes tell it: 128 + the signal if one ended it");
	gadget_signal signal DOC("the signal that ended it");
	gadget_pid killer DOC("process id of who sent that signal; 0 if the kernel did, or if it is not known");
	gadget_comm killer_comm DOC("name of who sent that signal");
	gadget_duration age DOC("time since it was started, in nanoseconds");
	gadget_duration cpu DOC("CPU time of all its threads, in nanoseconds");
	gadget_size rss DOC("the most memory that it had resident at once");
	gadget_size read DOC("bytes that it read, by any call");
	gadget_size written DOC("bytes that it wrote, by any call");
	gadget_size disk_read DOC("bytes that were read from disks for it");
	gadget_size disk_written DOC("bytes that it gave to be written to disks");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only processes that did not exit with 0");

struct killer {
	gadget_pid pid;
	int signal;
	gadget_comm comm;
};

/* The sender of each process's last signal. A sender that was evicted is not named. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct killer);
} killers SEC(".maps");

/* Processes of several threads that have had their row, by id and start: two threads may each find themselves the
 * last. The second comes at once, so an entry is needed for a moment only. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64[2]);
	__type(value, __u8);
} ended SEC(".maps");

/* Whether the default of a signal leaves the process alone. */
static __always_inline bool is_harmless(int number)
{
	return number == SIGCHLD || number == SIGCONT || number == SIGURG || number == SIGWINCH;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_sent, int number, struct kernel_siginfo *info, struct task_struct *target, int group, int outcome)
{
	struct killer killer = {.signal = number};
	__u32 key = target->tgid;

	if (outcome || is_harmless(number))
		return 0;
	if (is_sent_by_process(info, signal_code(info), target)) {
		killer.pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(killer.comm, sizeof(killer.comm));
	}
	bpf_map_update_elem(&killers, &key, &killer, BPF_ANY);
	return 0;
}

/* What the threads that the kernel has added up already, the first thread, which stays until the end, and the current
 * one have used together. */
#define SUM(task, of_process, of_thread)                                            \
	(BPF_CORE_READ(task, signal, of_process) + BPF_CORE_READ(task, of_thread) + \
	 ((task)->pid == (task)->tgid ? 0 : BPF_CORE_READ(task, group_leader, of_thread)))

static __always_inline void read_use(struct event *event, struct task_struct *task)
{
	event->age = event->header.timestamp - BPF_CORE_READ(task, group_leader, start_boottime);
	event->cpu = SUM(task, sum_sched_runtime, se.sum_exec_runtime);
	event->rss = BPF_CORE_READ(task, signal, maxrss) * page_bytes();
	event->read = event->written = event->disk_read = event->disk_written = 0;
	if (bpf_core_field_exists(task->ioac.rchar)) { /* CONFIG_TASK_XACCT */
		event->read = SUM(task, ioac.rchar, ioac.rchar);
		event->written = SUM(task, ioac.wchar, ioac.wchar);
	}
	if (bpf_core_field_exists(task->ioac.read_bytes)) { /* CONFIG_TASK_IO_ACCOUNTING */
		event->disk_read = SUM(task, ioac.read_bytes, ioac.read_bytes);
		event->disk_written = SUM(task, ioac.write_bytes, ioac.write_bytes);
	}
}

static __always_inline enum exit_result result_of(int status, bool oom)
{
	int signal = status & 0x7f;

	if (signal == SIGKILL && oom)
		return RESULT_OOM_KILLED;
	if (signal)
		return status & CORE_DUMPED ? RESULT_CORE_DUMPED : RESULT_KILLED;
	return status ? RESULT_FAILED : RESULT_OK;
}

static __always_inline void read_killer(struct event *event, __u32 tgid)
{
	struct killer *killer = bpf_map_lookup_elem(&killers, &tgid);

	event->killer = 0;
	__builtin_memset(event->killer_comm, 0, sizeof(event->killer_comm));
	if (killer && event->signal && killer->signal == event->signal && event->result != RESULT_OOM_KILLED) {
		event->killer = killer->pid;
		__builtin_memcpy(event->killer_comm, killer->comm, sizeof(event->killer_comm));
	}
	if (killer)
		bpf_map_delete_elem(&killers, &tgid);
}

/* Whether this is the last thread of a process, and the first one that says so. */
static __always_inline bool ends_process(struct task_struct *task)
{
	__u64 key[2] = {task->tgid, BPF_CORE_READ(task, group_leader, start_boottime)};
	__u8 yes = 1;

	if (BPF_CORE_READ(task, signal, live.counter))
		return false;
	if (BPF_CORE_READ(task, signal, nr_threads) == 1) /* the others are gone: perhaps one has said so */
		return !bpf_map_lookup_elem(&ended, &key);
	return !bpf_map_update_elem(&ended, &key, &yes, BPF_NOEXIST);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_ended, struct task_struct *task)
{
	__u32 zero = 0, flags;
	struct event *event;
	int status;

	if (!ends_process(task))
		return 0;
	flags = BPF_CORE_READ(task, signal, flags);
	status = flags & SIGNAL_GROUP_EXIT ? BPF_CORE_READ(task, signal, group_exit_code)
					   : BPF_CORE_READ(task, group_leader, exit_code);
	if (param_failed && !status)
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->ppid = BPF_CORE_READ(task, real_parent, tgid);
	__builtin_memset(event->pcomm, 0, sizeof(event->pcomm));
	BPF_CORE_READ_STR_INTO(&event->pcomm, task, real_parent, comm);
	event->signal = status & 0x7f;
	event->code = event->signal ? SHELL_SIGNALS + event->signal : status >> 8;
	event->result = result_of(status, BPF_CORE_READ(task, signal, oom_mm) != NULL);
	read_killer(event, task->tgid);
	read_use(event, task);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
