// SPDX-License-Identifier: GPL-2.0
/* Leads from a system call to the program that wants it. agent/bpf/calls.py attaches as many of these as there are
 * programs that want the same call. */
#include "calls.h"

/* An array takes programs of one hook only. */
struct programs {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2 * NUMBERS);
	__type(key, __u32);
	__type(value, __u32);
};
struct programs sys_enter SEC(".maps"), sys_exit SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(call_entered, struct pt_regs *regs)
{
	bpf_tail_call(ctx, &sys_enter, place_of_call(syscall_number(regs)));
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(call_returned, struct pt_regs *regs)
{
	bpf_tail_call(ctx, &sys_exit, place_of_call(syscall_number(regs)));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
