// SPDX-License-Identifier: GPL-2.0
#include "walk.h"

/* What linux/sched.h calls TASK_…, EXIT_…; the numbers are ours. */
enum process_state {
	STATE_RUNNING,
	STATE_SLEEPING,
	STATE_UNINTERRUPTIBLE,
	STATE_STOPPED,
	STATE_TRACED,
	STATE_ZOMBIE,
	STATE_DEAD,
	STATE_IDLE,
	STATE_OTHER,
};
typedef enum process_state gadget_process_state_words;

struct row {
	struct gadget_header header;
	gadget_pid ppid DOC("id of the parent process; 0 if it is the kernel");
	gadget_pid nspid DOC("id of the process, or thread, as its container sees it");
	gadget_process_state_words state DOC("what it does");
	__u32 threads DOC("how many threads the process has");
	gadget_duration age DOC("since when it is there");
	gadget_path exe
		DOC("path of the program that it runs, which may be removed by now; empty for threads of the kernel");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_WALK(struct row);

PARAM(bool, threads, false, "a row for each thread");

#define TASK_INTERRUPTIBLE   0x1
#define TASK_UNINTERRUPTIBLE 0x2
#define TASK_STOPPED         0x4
#define TASK_TRACED          0x8
#define EXIT_DEAD            0x10
#define EXIT_ZOMBIE          0x20
#define TASK_NOLOAD          0x400

static __always_inline enum process_state process_state(struct task_struct *task)
{
	__u32 state = state_of(task), left = BPF_CORE_READ(task, exit_state);

	if (left & EXIT_ZOMBIE)
		return STATE_ZOMBIE;
	if (left & EXIT_DEAD)
		return STATE_DEAD;
	if (state & TASK_TRACED)
		return STATE_TRACED;
	if (state & TASK_STOPPED)
		return STATE_STOPPED;
	if (state & TASK_UNINTERRUPTIBLE)
		return state & TASK_NOLOAD ? STATE_IDLE : STATE_UNINTERRUPTIBLE;
	if (state & TASK_INTERRUPTIBLE)
		return STATE_SLEEPING;
	return state ? STATE_OTHER : STATE_RUNNING;
}

/* The number of a task in its own pid namespace. */
static __always_inline __u32 number_inside(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 number = 0, level = BPF_CORE_READ(pid, level);
	struct upid *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);

	bpf_probe_read_kernel(&number, sizeof(number),
			      (void *)numbers + level * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, nr));
	return pid ? number : 0;
}

SEC("iter/bpf_map_elem")
int walked(struct bpf_iter__bpf_map_elem *turn)
{
	struct task_struct *task;
	struct path *exe;
	struct file *file;
	struct pid *pid;
	struct row *row;
	__u32 number;
	__u64 *at;
	int result;

	at = walk_begin(turn, row, &result);
	if (!at)
		return result;
	number = *at;
	pid = next_pid(&number);
	*at = number ? number : WALK_END;
	if (!pid)
		return 0;
	task = param_threads ? task_of(pid, PID_OF_THREAD) : task_of(pid, PID_OF_PROCESS);
	if (!task || is_left_over(task) || !gadget_fill_for(&row->header, task) || !walk_may_add(row->header.cgroup_id))
		return 0;
	row->ppid = BPF_CORE_READ(task, real_parent, tgid);
	row->nspid = number_inside(task);
	row->state = process_state(task);
	row->threads = BPF_CORE_READ(task, signal, nr_threads);
	row->age = bpf_ktime_get_boot_ns() - BPF_CORE_READ(task, start_boottime);
	file = BPF_CORE_READ(task, mm, exe_file);
	row->exe = (gadget_path){.as_given = true};
	if (file) {
		exe = __builtin_preserve_access_index(&file->f_path);
		row->exe = text_path(&row->header, row->text, exe);
	}
	walk_write(turn, row);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
