// SPDX-License-Identifier: GPL-2.0
#include "table.h"
#include "syscalls.h"

#ifndef ENTRIES
#define ENTRIES 4096
#endif

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup");
	gadget_pid pid DOC("process id");
	gadget_uid uid DOC("user id");
	gadget_comm comm DOC("name of the thread");
};

struct value {
	__u64 writes DOC("calls of write(2)");
	__u64 bytes DOC("bytes written");
};

GADGET_TABLE(struct key, struct value, ENTRIES);

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	struct gadget_header header;
	struct value *value;
	struct key key = {};

	if (syscall_number(regs) != SYSCALL_WRITE || result < 0 || !gadget_fill(&header))
		return 0;
	key.cgroup_id = header.cgroup_id;
	key.pid = header.pid;
	key.uid = header.uid;
	__builtin_memcpy(key.comm, header.comm, sizeof(key.comm));
	value = gadget_row(&key);
	if (!value)
		return 0;
	__sync_fetch_and_add(&value->writes, 1);
	__sync_fetch_and_add(&value->bytes, result);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
