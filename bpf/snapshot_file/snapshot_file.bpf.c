// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 128
#include "files.h"
#include "opens.h"
#include "walk.h"

#define ANON_INODE_FS_MAGIC 0x09041934

struct row {
	struct gadget_header header;
	__s32 fd DOC("the descriptor");
	gadget_type_words type DOC("type of the file");
	gadget_open_flags flags DOC("how it is open");
	__u64 inode DOC("inode number of the file");
	gadget_some_size position DOC("where the next read or write begins, for files that have such a place");
	bool deleted DOC("whether the name that it was opened by is gone");
	gadget_word fs DOC("type of the file system");
	gadget_path path DOC("the file, as the kernel names it; none if it has no name, as a pipe or a socket");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_WALK(struct row);

PARAM(bool, deleted_only, false, "only files whose name is gone");

static __always_inline bool is_deleted(struct file *file, enum file_type type)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	if (BPF_CORE_READ(dentry, d_parent) != dentry)
		return !BPF_CORE_READ(dentry, d_hash.pprev);
	/* in no directory: a memfd has never had a name there */
	return type == TYPE_FILE && !BPF_CORE_READ(file, f_inode, i_nlink);
}

SEC("iter/bpf_map_elem")
int walked(struct bpf_iter__bpf_map_elem *turn)
{
	struct walk_file found;
	struct file *file;
	struct path *path;
	struct row *row;
	__u64 *at;
	int result;

	at = walk_begin(turn, row, &result);
	if (!at)
		return result;
	if (!next_file(at, &row->header, &found))
		return 0;
	file = found.file;
	row->type = type_of(file);
	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) == ANON_INODE_FS_MAGIC)
		row->type = TYPE_OTHER;
	row->deleted = is_deleted(file, row->type);
	if (param_deleted_only && !row->deleted)
		return 0;
	if (!walk_may_add(row->header.cgroup_id)) {
		skip_files(at);
		return 0;
	}
	row->fd = found.fd;
	row->flags = common_flags(BPF_CORE_READ(file, f_flags));
	row->inode = BPF_CORE_READ(file, f_inode, i_ino);
	row->position = BPF_CORE_READ(file, f_pos);
	row->fs = text_file_system(&row->header, row->text, BPF_CORE_READ(file, f_inode, i_sb));
	row->path = (gadget_path){.as_given = true};
	if (row->type != TYPE_PIPE && row->type != TYPE_SOCKET) {
		path = __builtin_preserve_access_index(&file->f_path);
		row->path = text_path(&row->header, row->text, path);
	}
	walk_write(turn, row);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
