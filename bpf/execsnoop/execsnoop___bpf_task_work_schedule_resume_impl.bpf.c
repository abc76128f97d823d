// SPDX-License-Identifier: GPL-2.0
#define SCHEDULE_LATER(work) \
	bpf_task_work_schedule_resume_impl(bpf_get_current_task_btf(), work, &unread, read_later, NULL)
#include "execsnoop.bpf.c"
