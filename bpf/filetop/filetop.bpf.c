// SPDX-License-Identifier: GPL-2.0
#include "table.h"
#include "files.h"

#define ENTRIES 8192 /* processes, times the different files that each reads or writes in an interval */

struct key {
	gadget_cgroup_id cgroup_id DOC("id of the container's cgroup; outside containers of the process's own");
	__u64 inode DOC("number of the file in its file system");
	__u32 dev DOC("number of the file system's device: major << 20 | minor");
	gadget_pid pid DOC("process id, as the host sees it");
	gadget_comm comm DOC("name of the process");
};

struct value {
	__u64 reads DOC("calls that read in the interval");
	__u64 writes DOC("calls that wrote");
	gadget_size read DOC("bytes that these calls read");
	gadget_size written DOC("bytes that they wrote");
	gadget_path path DOC("the file, by the name that it was first opened by in the interval");
	GADGET_ROW_TEXT(256);
};

GADGET_TABLE(struct key, struct value, ENTRIES);

enum { READS = 1, WRITES, SENDS, COPIES };

CALLS(__u8) = {
	READING_CALLS(READS),        WRITING_CALLS(WRITES),      KNOWN_BOTH(SENDFILE, SENDS),
	KNOWN_32(SENDFILE64, SENDS), KNOWN_BOTH(SPLICE, COPIES), KNOWN_BOTH(COPY_FILE_RANGE, COPIES),
};

/* Where a path is written before a row gets it: its helper wants more room than a row has. */
struct space {
	struct gadget_header header;
	char text[TEXT_MAX + TEXT_SLACK];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct space);
} spaces SEC(".maps");

static __always_inline void name(struct value *value, struct file *file)
{
	__u32 zero = 0, length;
	struct space *space = bpf_map_lookup_elem(&spaces, &zero);
	gadget_path path;

	if (!space)
		return;
	space->header.text_length = 0;
	path = text_path(&space->header, space->text, __builtin_preserve_access_index(&file->f_path));
	path.cut |= path.length > sizeof(value->text);
	length = at_most(path.length, sizeof(value->text));
	bpf_probe_read_kernel(value->text, length, space->text);
	path.length = value->text_length = length;
	value->path = path;
}

/* Count a call that moved so many bytes from or to a file of the current process, if the descriptor is one's. */
static __noinline int count(struct gadget_header *header, int fd, __u64 bytes, bool writes)
{
	struct task_struct *task = current_task();
	struct file *file = file_of(task, fd);
	struct value *value;
	struct key key = {};

	if (!file || !is_stored(file))
		return 0;
	key.cgroup_id = header->cgroup_id;
	key.inode = BPF_CORE_READ(file, f_inode, i_ino);
	key.dev = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	key.pid = header->pid;
	BPF_CORE_READ_STR_INTO(&key.comm, task, group_leader, comm);
	value = gadget_row(&key);
	if (!value)
		return 0;
	if (!value->text_length)
		name(value, file);
	__sync_fetch_and_add(writes ? &value->writes : &value->reads, 1);
	__sync_fetch_and_add(writes ? &value->written : &value->read, bytes);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 number = syscall_number(regs), known = known_call(number);
	struct gadget_header header;
	struct syscall_args args;

	if (!known || result < 0 || !gadget_fill(&header))
		return 0;
	args = syscall_arguments(regs, number);
	if (known != WRITES) /* sendfile(to, from), copy_file_range(from, offset, to) */
		count(&header, known == SENDS ? args.a1 : args.a0, result, false);
	if (known != READS)
		count(&header, known == COPIES ? args.a2 : args.a0, result, true);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
