// SPDX-License-Identifier: GPL-2.0
/* What the kernel and the machine take for calling any program at the end of a system call. */
#include "kernel.h"

SEC("tp_btf/sys_exit")
int BPF_PROG(empty, struct pt_regs *regs, long result) { return 0; }

char LICENSE[] SEC("license") = "GPL";
