// SPDX-License-Identifier: GPL-2.0
/* What rules of a detection engine judge: processes as they begin, change and end, and system calls. */
#include "filter.h"
#include "opens.h"
#include "sockets.h"
#include "syscalls.h"
#include "text.h"

#define ARGS_MAX         4096 /* bytes that are kept of arguments, and of an environment */
#define BUFFER_MAX       80   /* bytes that are kept of data sent or received */
#define TEXT_OF_CALL_MAX 1024 /* bytes of the name of a memfd, and of options of a module */
#define UNIX_NAME_MAX    108  /* linux/un.h */
#define NO_FD            -1

enum { PROGRAM_CALL, PROGRAM_EXEC, PROGRAM_FORK, PROGRAM_EXIT, PROGRAMS };

/* By Falco's names. Of 64 bits, as a set of them is. */
enum detect_call : __u64 {
	CALL_EXECVE,
	CALL_EXECVEAT,
	CALL_OPEN,
	CALL_OPENAT,
	CALL_OPENAT2,
	CALL_CREAT,
	CALL_CONNECT,
	CALL_ACCEPT,
	CALL_ACCEPT4,
	CALL_LISTEN,
	CALL_BIND,
	CALL_SOCKET,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_DUP,
	CALL_DUP2,
	CALL_DUP3,
	CALL_LINK,
	CALL_LINKAT,
	CALL_SYMLINK,
	CALL_SYMLINKAT,
	CALL_UNLINK,
	CALL_UNLINKAT,
	CALL_RENAME,
	CALL_RENAMEAT,
	CALL_RENAMEAT2,
	CALL_RMDIR,
	CALL_MKDIR,
	CALL_MKDIRAT,
	CALL_CHMOD,
	CALL_FCHMOD,
	CALL_FCHMODAT,
	CALL_PTRACE,
	CALL_INIT_MODULE,
	CALL_FINIT_MODULE,
	CALL_SETNS,
	CALL_UNSHARE,
	CALL_SETUID,
	CALL_BPF,
	CALL_USERFAULTFD,
	CALL_MOUNT,
	CALL_UMOUNT2,
	CALL_MEMFD_CREATE,
	CALL_FORK,
	CALL_PROCEXIT,
	CALL_CHANGE, /* of the working directory, session, process group or capabilities */
};
typedef enum detect_call gadget_call_words;
typedef enum detect_call gadget_call_set;

#define BIT(call) (1ULL << CALL_##call)
#define USUAL     ~(BIT(RECVFROM) | BIT(RECVMSG)) /* the calls that are sent unless a setting names others */

struct event {
	struct gadget_header header;
	gadget_call_words call DOC("the system call, or fork, procexit, change");
	__s64 result DOC("what the call returned: negative errors");
	__u64 start DOC("when the process began, in nanoseconds since the boot");
	__u64 cap_effective DOC("its effective capabilities, a bit each");
	__u64 cap_permitted DOC("its permitted capabilities, a bit each");
	__u64 args[6] DOC("arguments of the call, as they were given");
	__u64 flags DOC("of an open: its flags, by x86's values");
	__u64 parent_start DOC("of exec, fork, change: when the parent began, in nanoseconds since the boot");
	__u64 forker_start
		DOC("of fork: when the process began that called clone(2), if that is not the parent; else 0");
	__u64 exe_ino DOC("of exec: inode number of the program's file");
	__u64 exe_ctime DOC("of exec: when that inode changed, in nanoseconds since 1970");
	__u64 exe_mtime DOC("of exec: when that file was written, in nanoseconds since 1970");
	__u32 exec_id DOC("how many programs the process and those it was forked from have begun, its low half");
	gadget_uid euid DOC("effective user id");
	gadget_gid egid DOC("effective group id");
	gadget_uid loginuid DOC("user id that logged in; 4294967295 if none did");
	__u32 tty DOC("number of the controlling terminal's device; 0 if there is none");
	gadget_mode mode DOC("of an open, mkdir or chmod: the permissions that were asked for");
	__s32 fd DOC("the descriptor that the call made or was about; -1 if there is none");
	gadget_pid ppid DOC("of exec, fork, change: process id of the parent");
	gadget_pid forker DOC("of fork: process id of the one that called clone(2), if that is not the parent; else 0");
	__u32 parent_exec_id DOC("of exec, fork, change: exec_id of the parent");
	__s32 vpid DOC("of exec, fork, change: process id in the innermost namespace");
	__s32 pgid DOC("of exec, fork, change: process group, as the host sees it");
	__s32 sid DOC("of exec, fork, change: session, as the host sees it");
	__s32 vpgid DOC("of exec, fork, change: process group in the innermost namespace; 0 if it is of another one");
	gadget_endpoint src DOC("this end of the socket");
	gadget_endpoint dst DOC("the other end: of connect and sends as the call named it");
	gadget_full_path path DOC("the path that the call is about; of rename and link the old one");
	gadget_full_path to DOC("of rename and link: the new path; of symlink and mount: target or source as given");
	gadget_text
		data DOC("bytes sent or received, if --buffers asks for them; name of a memfd; options of a module");
	gadget_args arguments DOC("of exec: the arguments, the program's own name first");
	gadget_text env DOC("of exec: the environment, if --environment asks for it");
	gadget_path exe DOC("of exec and fork: path of the program");
	gadget_path cwd DOC("of exec, fork, change: working directory");
	__u16 family DOC("address family of the socket");
	__u8 protocol DOC("protocol of the socket");
	__u8 fd_type DOC("what the descriptor is: a letter, as Falco has it");
	bool connected DOC("whether the socket has a peer");
	bool name_changed DOC("of a datagram: whether the last one of the socket had another peer");
	bool arguments_truncated DOC("there were more arguments than 4 KiB");
	bool exe_upper_layer DOC("of exec: the file is in the layer of an overlay that can be written");
	bool exe_memfd DOC("of exec: the file is in memory only");
	bool exe_writable DOC("of exec: the process may write the file");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(PROGRAMS);

PARAM(gadget_call_set, calls, 0, "only these calls; fork, execve that succeeded, procexit and change come always");
PARAM(bool, host_calls, false, "also calls of processes outside containers");
PARAM(bool, buffers, false, "also the first bytes that are sent and received");
PARAM(bool, environment, false, "also the environment of programs that begin");

/* Which arguments of a call say what. Those of a call are six; the two beyond are ours. */
#define HERE   6 /* AT_FDCWD */
#define NONE   7 /* 0, and no descriptor */
#define RESULT 8 /* in place of a descriptor argument: the call returns the descriptor */

/* A path, and the descriptor of the directory that it is relative to. Without a path it is the descriptor's own. */
struct place {
	__u8 directory, path;
};

enum more {
	MORE_NOTHING,
	MORE_FLAGS, /* and a mode behind them */
	MORE_HOW,   /* struct open_how */
	MORE_MODE,
	MORE_FAMILY,
	MORE_TEXT,
	/* of sockets: read_named() knows where */
	MORE_ADDRESS,
	MORE_SENT_TO,
	MORE_RECEIVED_FROM,
	MORE_MESSAGE, /* sendmmsg(2) has several, which begin with the first */
	/* of clone(2): where the flags are */
	MORE_CLONE,
	MORE_CLONE3,
};

struct known {
	__u8 call; /* one more than its CALL_… */
	__u8 fd;
	struct place path, to; /* none if both are 0 */
	__u8 more, at;
};

#define ALL(known)                                                                                                     \
	known(EXECVE, EXECVE, NONE, {HERE, 0}, {}, 0, 0), known(EXECVEAT, EXECVEAT, NONE, {0, 1}, {}, 0, 0),           \
		known(OPENAT, OPENAT, RESULT, {0, 1}, {}, MORE_FLAGS, 2),                                              \
		known(OPENAT2, OPENAT2, RESULT, {0, 1}, {}, MORE_HOW, 2),                                              \
		known(CONNECT, CONNECT, 0, {}, {}, MORE_ADDRESS, 0), known(ACCEPT4, ACCEPT4, RESULT, {}, {}, 0, 0),    \
		known(LISTEN, LISTEN, 0, {}, {}, 0, 0), known(BIND, BIND, 0, {}, {}, MORE_ADDRESS, 0),                 \
		known(SOCKET, SOCKET, RESULT, {}, {}, MORE_FAMILY, 0),                                                 \
		known(SENDTO, SENDTO, 0, {}, {}, MORE_SENT_TO, 0),                                                     \
		known(SENDMSG, SENDMSG, 0, {}, {}, MORE_MESSAGE, 0),                                                   \
		known(SENDMMSG, SENDMSG, 0, {}, {}, MORE_MESSAGE, 0),                                                  \
		known(RECVFROM, RECVFROM, 0, {}, {}, MORE_RECEIVED_FROM, 0),                                           \
		known(RECVMSG, RECVMSG, 0, {}, {}, MORE_MESSAGE, 0), known(DUP, DUP, RESULT, {}, {}, 0, 0),            \
		known(DUP3, DUP3, RESULT, {}, {}, 0, 0), known(LINKAT, LINKAT, NONE, {0, 1}, {2, 3}, 0, 0),            \
		known(SYMLINKAT, SYMLINKAT, NONE, {1, 2}, {NONE, 0}, 0, 0),                                            \
		known(UNLINKAT, UNLINKAT, NONE, {0, 1}, {}, 0, 0),                                                     \
		known(RENAMEAT, RENAMEAT, NONE, {0, 1}, {2, 3}, 0, 0),                                                 \
		known(RENAMEAT2, RENAMEAT2, NONE, {0, 1}, {2, 3}, 0, 0),                                               \
		known(MKDIRAT, MKDIRAT, NONE, {0, 1}, {}, MORE_MODE, 2),                                               \
		known(FCHMOD, FCHMOD, 0, {}, {}, MORE_MODE, 1),                                                        \
		known(FCHMODAT, FCHMODAT, NONE, {0, 1}, {}, MORE_MODE, 2),                                             \
		known(FCHMODAT2, FCHMODAT, NONE, {0, 1}, {}, MORE_MODE, 2), known(PTRACE, PTRACE, NONE, {}, {}, 0, 0), \
		known(INIT_MODULE, INIT_MODULE, NONE, {}, {}, MORE_TEXT, 2),                                           \
		known(FINIT_MODULE, FINIT_MODULE, 0, {}, {}, MORE_TEXT, 1), known(SETNS, SETNS, 0, {}, {}, 0, 0),      \
		known(CLONE, UNSHARE, NONE, {}, {}, MORE_CLONE, 0),                                                    \
		known(CLONE3, UNSHARE, NONE, {}, {}, MORE_CLONE3, 0), known(UNSHARE, UNSHARE, NONE, {}, {}, 0, 0),     \
		known(SETUID, SETUID, NONE, {}, {}, 0, 0), known(BPF, BPF, NONE, {}, {}, 0, 0),                        \
		known(USERFAULTFD, USERFAULTFD, NONE, {}, {}, 0, 0),                                                   \
		known(MOUNT, MOUNT, NONE, {HERE, 1}, {NONE, 0}, 0, 0),                                                 \
		known(UMOUNT2, UMOUNT2, NONE, {HERE, 0}, {}, 0, 0),                                                    \
		known(MEMFD_CREATE, MEMFD_CREATE, RESULT, {}, {}, MORE_TEXT, 0),                                       \
		known(CHDIR, CHANGE, NONE, {}, {}, 0, 0), known(FCHDIR, CHANGE, NONE, {}, {}, 0, 0),                   \
		known(SETSID, CHANGE, NONE, {}, {}, 0, 0), known(SETPGID, CHANGE, NONE, {}, {}, 0, 0),                 \
		known(CAPSET, CHANGE, NONE, {}, {}, 0, 0)
/* arm64 has these only for 32-bit programs */
#define OLDER(known)                                                                                               \
	known(OPEN, OPEN, RESULT, {HERE, 0}, {}, MORE_FLAGS, 1),                                                   \
		known(CREAT, CREAT, RESULT, {HERE, 0}, {}, MORE_MODE, 1), known(DUP2, DUP2, RESULT, {}, {}, 0, 0), \
		known(LINK, LINK, NONE, {HERE, 0}, {HERE, 1}, 0, 0),                                               \
		known(SYMLINK, SYMLINK, NONE, {HERE, 1}, {NONE, 0}, 0, 0),                                         \
		known(UNLINK, UNLINK, NONE, {HERE, 0}, {}, 0, 0),                                                  \
		known(RENAME, RENAME, NONE, {HERE, 0}, {HERE, 1}, 0, 0),                                           \
		known(RMDIR, RMDIR, NONE, {HERE, 0}, {}, 0, 0),                                                    \
		known(MKDIR, MKDIR, NONE, {HERE, 0}, {}, MORE_MODE, 1),                                            \
		known(CHMOD, CHMOD, NONE, {HERE, 0}, {}, MORE_MODE, 1)

#define TOLD(number, call, ...)    [SYSCALL_##number] = {CALL_##call + 1, __VA_ARGS__}
#define TOLD_32(number, call, ...) [SYSCALL_COMPAT_##number & (NUMBERS - 1)] = {CALL_##call + 1, __VA_ARGS__}

/* By number. A table costs the calls that are none of ours one load each, and the verifier little. */
static const struct known known_calls[NUMBERS] = {
	ALL(TOLD),
	TOLD(ACCEPT, ACCEPT, RESULT, {}, {}, 0, 0),
#if defined(__TARGET_ARCH_x86)
	OLDER(TOLD),
#endif
};
static const struct known known_compat_calls[NUMBERS] = {
	ALL(TOLD_32),
	OLDER(TOLD_32),
#if defined(__TARGET_ARCH_arm64)
	TOLD_32(ACCEPT, ACCEPT, RESULT, {}, {}, 0, 0),
#endif
};

#if defined(__TARGET_ARCH_x86)
/* linux/net.h: calls by the number that socketcall(2) has for them */
#define SOCKETCALLS 32
static const __u16 socketcalls[SOCKETCALLS] = {
	[1] = SYSCALL_SOCKET,   [2] = SYSCALL_BIND,     [3] = SYSCALL_CONNECT,   [4] = SYSCALL_LISTEN,
	[5] = SYSCALL_ACCEPT,   [11] = SYSCALL_SENDTO,  [12] = SYSCALL_RECVFROM, [16] = SYSCALL_SENDMSG,
	[17] = SYSCALL_RECVMSG, [18] = SYSCALL_ACCEPT4, [20] = SYSCALL_SENDMMSG,
};

/* arch/x86/entry/syscalls/syscall_64.tbl: of the numbers that only x32 has, the calls that these are */
#define X32_CALLS 64
static const __u16 x32_calls[X32_CALLS] = {
	[517 - X32_FIRST] = SYSCALL_RECVFROM, [518 - X32_FIRST] = SYSCALL_SENDMSG,
	[519 - X32_FIRST] = SYSCALL_RECVMSG,  [520 - X32_FIRST] = SYSCALL_EXECVE,
	[538 - X32_FIRST] = SYSCALL_SENDMMSG, [545 - X32_FIRST] = SYSCALL_EXECVEAT,
};
#endif

/* The size of a pointer of the program, where a call has one in memory. */
static __always_inline __u32 word_of(__u32 number)
{
#if defined(__TARGET_ARCH_x86)
	if (number >= X32_FIRST)
		return 4; /* x32, or 32 bits */
#endif
	return number & COMPAT_FLAG ? 4 : 8;
}

/* What is known of a call. All zero if it is none of ours. */
static __always_inline struct known find_known(struct pt_regs *regs, __u32 number)
{
	__u32 at = number & ~COMPAT_FLAG;

#if defined(__TARGET_ARCH_x86)
	if (number == SYSCALL_COMPAT_SOCKETCALL) {
		at = syscall_arguments(regs, number).a0;
		if (at >= SOCKETCALLS)
			return (struct known){};
		return known_calls[at_most(socketcalls[at_most(at, SOCKETCALLS - 1)], NUMBERS - 1)];
	}
	if (number >= X32_FIRST && number < X32_FIRST + X32_CALLS)
		return known_calls[at_most(x32_calls[at_most(number - X32_FIRST, X32_CALLS - 1)], NUMBERS - 1)];
#endif
	if (at >= NUMBERS)
		return (struct known){};
	at = at_most(at, NUMBERS - 1); /* which the verifier can follow */
	return number & COMPAT_FLAG ? known_compat_calls[at] : known_calls[at];
}

/* Whether a call is to be sent. result is the call's. */
static __always_inline bool is_wanted(__u32 call, long result)
{
	if (call == CALL_CHANGE)
		return result >= 0;
	if (!((param_calls ? param_calls : USUAL) >> call & 1))
		return false;
	return result < 0 || (call != CALL_EXECVE && call != CALL_EXECVEAT); /* another program tells of these */
}

/* Members of what the task points to: by plain loads if the kernel allows them. */
#define READ(task, ...)        (task_has_type() ? READ_PLAIN(task, __VA_ARGS__) : BPF_CORE_READ(task, __VA_ARGS__))
#define READ_PLAIN(task, a, b) ((task)->a->b)

/* tty_nr of /proc/PID/stat */
static __always_inline __u32 tty_of(struct task_struct *task)
{
	struct tty_struct *tty = READ(task, signal, tty);
	__u32 major, minor;

	if (!tty)
		return 0;
	major = BPF_CORE_READ(tty, driver, major);
	minor = BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index);
	return (minor & 0xff) | major << 8 | (minor & ~0xff) << 12;
}

/* Set what every event has of its process, and all else to nothing. */
static __always_inline void begin_event(struct event *event, struct task_struct *task, enum detect_call call)
{
	const struct cred *cred = TASK_READ(task, cred);

	__builtin_memset(&event->call, 0, offsetof(struct event, text) - offsetof(struct event, call));
	event->call = call;
	event->fd = NO_FD;
	event->start = READ(task, group_leader, start_boottime);
	event->exec_id = TASK_READ(task, self_exec_id);
	event->euid = READ(task, cred, euid.val);
	event->egid = READ(task, cred, egid.val);
	bpf_core_read(&event->cap_effective, sizeof(event->cap_effective), &cred->cap_effective);
	bpf_core_read(&event->cap_permitted, sizeof(event->cap_permitted), &cred->cap_permitted);
	event->loginuid =
		bpf_core_field_exists(task->loginuid) ? TASK_READ(task, loginuid.val) : ANY_UID; /* CONFIG_AUDIT */
	event->tty = tty_of(task);
	event->path.directory.as_given = event->to.directory.as_given = event->to.path.as_given = true; /* none */
	event->path.path.as_given = event->exe.as_given = event->cwd.as_given = true;
}

/* Begin the event of the current thread. NULL if it is not to be sent. everywhere: also outside containers. */
static __always_inline struct event *begin(__u32 program, enum detect_call call, bool everywhere)
{
	__u64 cgroup_id = bpf_get_current_cgroup_id();
	enum whereabouts where = find_container(current_cgroup(), &cgroup_id);
	struct event *event;

	if (where == OUTSIDE && !everywhere)
		return NULL;
	if (!process_chosen(bpf_get_current_pid_tgid() >> 32, bpf_get_current_uid_gid()) ||
	    !container_chosen(where, cgroup_id))
		return NULL;
	event = bpf_map_lookup_elem(&scratch, &program);
	if (!event || !fill_current(&event->header, cgroup_id))
		return NULL;
	begin_event(event, current_task(), call);
	return event;
}

/* A path in a register: what functions that the verifier looks at only once return. */
union packed_path {
	__u64 word;
	gadget_path path;
};

/* Append a path of the kernel's to the event of a program. */
__noinline __u64 add_path(__u32 program, __u64 path)
{
	union packed_path packed = {.path.as_given = true}; /* none */
	struct event *event = bpf_map_lookup_elem(&scratch, &program);

	if (event && path)
		packed.path = text_path(&event->header, event->text, (struct path *)path);
	return packed.word;
}

static __always_inline gadget_path path_of_program(__u32 program, struct task_struct *task)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file); /* a number: no function takes a pointer for one */
	union packed_path packed = {.word = add_path(program, file ? (__u64)&file->f_path : 0)};

	return packed.path;
}

static __always_inline gadget_path path_of_directory(__u32 program, struct task_struct *task)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	union packed_path packed = {.word = add_path(program, fs ? (__u64)&fs->pwd : 0)};

	return packed.path;
}

/* The number of a process, group or session in the namespace that is so deep; 0 if it is in none. */
static __always_inline int number_at(struct pid *pid, __u32 level)
{
	void *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);
	int number = 0;

	if (BPF_CORE_READ(pid, level) < level)
		return 0;
	bpf_probe_read_kernel(&number, sizeof(number),
			      numbers + level * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, nr));
	return number;
}

/* Read what a table of processes has to know. */
static __always_inline void read_relations(struct event *event, struct task_struct *task)
{
	struct task_struct *parent = TASK_READ(task, real_parent);
	struct signal_struct *signal = TASK_READ(task, signal);
	struct pid *process = BPF_CORE_READ(signal, pids[1]), *group = BPF_CORE_READ(signal, pids[2]);
	__u32 level = BPF_CORE_READ(process, level);

	event->ppid = BPF_CORE_READ(parent, tgid);
	event->parent_start = BPF_CORE_READ(parent, group_leader, start_boottime);
	event->parent_exec_id = BPF_CORE_READ(parent, self_exec_id);
	event->vpid = number_at(process, level);
	event->vpgid = number_at(group, level);
	event->pgid = number_at(group, 0);
	event->sid = number_at(BPF_CORE_READ(signal, pids[3]), 0);
}

/* linux/stat.h, linux/fs.h, linux/magic.h, linux/capability.h */
#define S_IFMT              0170000
#define S_IFSOCK            0140000
#define S_IFDIR             0040000
#define S_IFIFO             0010000
#define S_IWUSR             0200
#define S_IWGRP             0020
#define S_IWOTH             0002
#define SB_RDONLY           1
#define S_IMMUTABLE         8
#define OVERLAYFS_MAGIC     0x794c7630
#define ANON_INODE_FS_MAGIC 0x09041934
#define NSFS_MAGIC          0x6e736673
#define CAP_DAC_OVERRIDE    1
#define NANOSECONDS         1000000000ULL
#define NANOSECONDS_MASK    0x3fffffff /* since 6.13 a flag is beside them */

#define TIME(seconds, nanoseconds) ((seconds)*NANOSECONDS + ((nanoseconds)&NANOSECONDS_MASK))

/* When an inode changed, in nanoseconds since 1970: kernel commits 13bc24457850 (6.6) and 3aa63a569c64 (6.11) renamed
 * it.
 */
static __always_inline __u64 ctime_of(struct inode *inode)
{
	struct inode___before_6_11 *named = (void *)inode;
	struct inode___before_6_6 *older = (void *)inode;

	if (bpf_core_field_exists(inode->i_ctime_sec))
		return TIME(BPF_CORE_READ(inode, i_ctime_sec), BPF_CORE_READ(inode, i_ctime_nsec));
	if (bpf_core_field_exists(named->__i_ctime))
		return TIME(BPF_CORE_READ(named, __i_ctime.tv_sec), BPF_CORE_READ(named, __i_ctime.tv_nsec));
	return TIME(BPF_CORE_READ(older, i_ctime.tv_sec), BPF_CORE_READ(older, i_ctime.tv_nsec));
}

/* When a file was written, as ctime_of(). */
static __always_inline __u64 mtime_of(struct inode *inode)
{
	struct inode___before_6_11 *named = (void *)inode;
	struct inode___before_6_6 *older = (void *)inode;

	if (bpf_core_field_exists(inode->i_mtime_sec))
		return TIME(BPF_CORE_READ(inode, i_mtime_sec), BPF_CORE_READ(inode, i_mtime_nsec));
	if (bpf_core_field_exists(named->__i_mtime))
		return TIME(BPF_CORE_READ(named, __i_mtime.tv_sec), BPF_CORE_READ(named, __i_mtime.tv_nsec));
	return TIME(BPF_CORE_READ(older, i_mtime.tv_sec), BPF_CORE_READ(older, i_mtime.tv_nsec));
}

/* Whether a file lies in the layer of an overlay that can be written. Behind the inode of the overlay's own struct is
 * its directory entry in that layer: struct ovl_inode of fs/overlayfs/ovl_entry.h, which is a module's. */
static __always_inline bool is_in_upper_layer(struct inode *inode)
{
	void *upper = NULL;

	if (BPF_CORE_READ(inode, i_sb, s_magic) != OVERLAYFS_MAGIC)
		return false;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	return upper;
}

/* Whether a file is one of memfd_create(2): it is in no directory, and its name says so. */
static __always_inline bool is_memfd(struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	__u64 name = 0;

	if (BPF_CORE_READ(dentry, d_parent) != dentry)
		return false;
	bpf_probe_read_kernel(&name, sizeof("memfd:") - 1, BPF_CORE_READ(dentry, d_name.name));
	return name == 0x3a64666d656d; /* "memfd:" */
}

/* Whether a process may write a file, by its mode; supplementary groups are not looked at. */
static __always_inline bool is_writable(const struct event *event, struct inode *inode, const struct cred *cred)
{
	__u16 mode = BPF_CORE_READ(inode, i_mode);

	if (BPF_CORE_READ(inode, i_sb, s_flags) & SB_RDONLY || BPF_CORE_READ(inode, i_flags) & S_IMMUTABLE)
		return false;
	if (event->cap_effective >> CAP_DAC_OVERRIDE & 1 || mode & S_IWOTH)
		return true;
	return (mode & S_IWUSR && BPF_CORE_READ(inode, i_uid.val) == BPF_CORE_READ(cred, fsuid.val)) ||
	       (mode & S_IWGRP && BPF_CORE_READ(inode, i_gid.val) == BPF_CORE_READ(cred, fsgid.val));
}

/* Read what is known of the program's file. */
static __always_inline void read_program(struct event *event, struct task_struct *task, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	event->exe_ino = BPF_CORE_READ(inode, i_ino);
	event->exe_ctime = ctime_of(inode);
	event->exe_mtime = mtime_of(inode);
	event->exe_upper_layer = is_in_upper_layer(inode);
	event->exe_memfd = is_memfd(file);
	event->exe_writable = is_writable(event, inode, TASK_READ(task, cred));
}

/* Append bytes from user memory, at most so many. */
static __always_inline gadget_text text_bytes(struct event *event, __u64 from, __u64 length, __u32 limit)
{
	__u32 at = event->header.text_length;
	gadget_text slice = {.offset = at};

	if (at >= TEXT_MAX)
		return slice;
	length = at_most(at_most(length, limit), TEXT_MAX - at);
	length = at_most(length, TEXT_SLACK);
	if (!bpf_probe_read_user(event->text + at, length, (void *)from)) {
		slice.length = length;
		event->header.text_length = at + length;
	}
	return slice;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(executed, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct event *event = begin(PROGRAM_EXEC, CALL_EXECVE, true);
	struct mm_struct *mm = task->mm;

	if (!event)
		return 0;
	if (BPF_CORE_READ(bprm, fdpath))
		event->call = CALL_EXECVEAT; /* with a descriptor; without one it is as execve(2) */
	event->arguments = text_arguments(&event->header, event->text, mm, ARGS_MAX, &event->arguments_truncated);
	read_relations(event, task);
	read_program(event, task, mm->exe_file);
	event->exe = path_of_program(PROGRAM_EXEC, task);
	event->cwd = path_of_directory(PROGRAM_EXEC, task);
	if (param_environment)
		event->env = text_bytes(event, mm->env_start, mm->env_end - mm->env_start, ARGS_MAX);
	gadget_submit(event);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 program = PROGRAM_FORK;
	struct event *event;

	if (child->pid != child->tgid)
		return 0; /* a thread */
	event = bpf_map_lookup_elem(&scratch, &program);
	if (!event || !gadget_fill_for(&event->header, child))
		return 0;
	begin_event(event, child, CALL_FORK);
	read_relations(event, child);
	if (event->ppid != BPF_CORE_READ(parent, tgid)) { /* CLONE_PARENT: the program is that of another process */
		event->forker = BPF_CORE_READ(parent, tgid);
		event->forker_start = BPF_CORE_READ(parent, group_leader, start_boottime);
	}
	event->exe = path_of_program(PROGRAM_FORK, child);
	event->cwd = path_of_directory(PROGRAM_FORK, child);
	gadget_submit(event);
	return 0;
}

/* The end of the last thread; two may each find themselves the last, and each send an event. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(ended, struct task_struct *task)
{
	struct event *event;

	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	event = begin(PROGRAM_EXIT, CALL_PROCEXIT, true);
	if (event)
		gadget_submit(event);
	return 0;
}

/* The argument of a call with this number. */
static __always_inline __u64 argument(const struct event *event, __u32 number)
{
	if (number < 6)
		return event->args[at_most(number, 5)];
	return number == HERE ? AT_FDCWD : 0;
}

#define PATH_OLD     0
#define PATH_TO      1
#define PATH_IN_ROOT 2

/* Read a path that a call was given, and what it is relative to. */
__noinline int read_path(int fd, __u64 from, __u32 which)
{
	__u32 program = PROGRAM_CALL;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	gadget_full_path full;

	if (!event)
		return 0;
	full = text_path_in(&event->header, event->text, fd, from, syscall_error(event->result), which & PATH_IN_ROOT);
	if (which & PATH_TO)
		event->to = full;
	else
		event->path = full;
	return 0;
}

static __always_inline void read_paths(struct event *event, struct known known, bool in_root)
{
	if (known.path.directory != known.path.path)
		read_path(argument(event, known.path.directory), argument(event, known.path.path),
			  in_root ? PATH_IN_ROOT : PATH_OLD);
	if (known.to.directory == NONE)
		event->to.path = text_path_as_given(&event->header, event->text, argument(event, known.to.path));
	else if (known.to.directory != known.to.path)
		read_path(argument(event, known.to.directory), argument(event, known.to.path), PATH_TO);
}

#define AF_UNIX    1
#define AF_NETLINK 16

/* States of a socket that has a peer. */
#define HAS_PEER                                                                                                    \
	(1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | \
	 1 << TCP_CLOSING)

/* Peers of the last datagrams of sockets that have none, by socket and its inode's number, as another socket may be at
 * the same place later. One that gives way to newer ones has another peer then. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64[2]);
	__type(value, gadget_endpoint);
} last_peers SEC(".maps");

static __always_inline bool is_same(const gadget_endpoint *one, const gadget_endpoint *other)
{
	const __u32 *words = (void *)one->address, *others = (void *)other->address;

	return one->port == other->port && words[0] == others[0] && words[1] == others[1] && words[2] == others[2] &&
	       words[3] == others[3];
}

/* Whether a socket sends to another peer than before. */
static __always_inline bool is_other_peer(struct sock *sk, const gadget_endpoint *peer)
{
	__u64 key[2] = {(__u64)sk, BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino)};
	gadget_endpoint *last = bpf_map_lookup_elem(&last_peers, &key);

	if (last && is_same(last, peer))
		return false;
	bpf_map_update_elem(&last_peers, &key, peer, BPF_ANY);
	return true;
}

/* Append the name of a UNIX socket: a path, or bytes behind a NUL, which becomes a "@". length is that of the address.
 */
static __always_inline gadget_path text_unix_name(struct event *event, const void *address, __u32 length, bool of_user)
{
	__u32 at = event->header.text_length, most = length - sizeof(__u16);
	gadget_path slice = {.offset = at, .as_given = true};
	char *name = event->text + at;
	long failed;

	if (at >= TEXT_MAX - UNIX_NAME_MAX - 1 || length <= sizeof(__u16))
		return slice;
	most = at_most(most, UNIX_NAME_MAX);
	if (of_user)
		failed = bpf_probe_read_user(name, most, address + sizeof(__u16));
	else
		failed = bpf_probe_read_kernel(name, most, address + sizeof(__u16));
	if (failed)
		return slice;
	slice.length = most;
	if (name[0])
		slice.length = bpf_probe_read_kernel_str(name, most + 1, name) - 1; /* up to a NUL */
	else
		name[0] = '@';
	event->header.text_length = at + slice.length;
	return slice;
}

/* The name that a UNIX socket is bound to, else its peer's. */
static __always_inline gadget_path text_unix_socket(struct event *event, struct sock *sk)
{
	struct unix_sock *socket = (void *)sk, *peer;
	struct unix_address *address;

	if (!bpf_core_type_exists(struct unix_sock))
		return (gadget_path){.as_given = true};
	address = BPF_CORE_READ(socket, addr);
	if (!address) {
		peer = (void *)BPF_CORE_READ(socket, peer);
		address = BPF_CORE_READ(peer, addr);
	}
	return text_unix_name(event, (void *)address + bpf_core_field_offset(struct unix_address, name),
			      BPF_CORE_READ(address, len), false);
}

/* What a call about a socket names and carries. */
struct named {
	__u64 address, buffer, bytes;
	__u32 length; /* of the address */
};

static __always_inline struct named read_named(const struct event *event, __u32 more, __u32 word)
{
	struct named named = {};
	__u64 vector;

	switch (more) {
	case MORE_ADDRESS:
		named.address = event->args[1];
		named.length = event->args[2];
		break;
	case MORE_SENT_TO:
	case MORE_RECEIVED_FROM:
		named.address = event->args[4];
		named.length = event->args[5];
		if (more == MORE_RECEIVED_FROM)
			named.length = read_word(event->args[5], 0, 4);
		named.buffer = event->args[1];
		named.bytes = event->args[2];
		break;
	case MORE_MESSAGE: /* name, its length, buffers, how many */
		named.address = read_word(event->args[1], 0, word);
		named.length = read_word(event->args[1], 1, word);
		vector = read_word(event->args[1], 2, word);
		named.buffer = read_word(vector, 0, word);
		named.bytes = read_word(vector, 1, word);
	}
	return named;
}

/* Whether a call receives, so that its result says how much there is. */
static __always_inline bool receives(const struct event *event)
{
	return event->call == CALL_RECVFROM || event->call == CALL_RECVMSG;
}

/* Take the address that a call names for the end that it is. */
static __always_inline void read_address(struct event *event, const struct named *named)
{
	const void *address = (void *)named->address;
	bool is_new = event->call == CALL_CONNECT || event->call == CALL_BIND;
	gadget_endpoint end;
	char first = 0;

	if (!address || (!is_new && event->protocol == IPPROTO_TCP))
		return; /* TCP sends to its peer whatever the call names */
	if (event->family == AF_UNIX) {
		event->path.path = text_unix_name(event, address, named->length, true);
		bpf_probe_read_user(&first, 1, address + sizeof(__u16));
		if (first && first != '/')
			event->path.directory = path_of_directory(PROGRAM_CALL, current_task());
	} else if (!read_user_endpoint(&end, named->address))
		return;
	else if (event->call != CALL_BIND)
		event->dst = end;
	else if (event->result < 0)
		event->src = end;
}

static __always_inline __u8 letter_of_socket(const struct event *event)
{
	switch (event->family) {
	case AF_UNIX:
		return 'u';
	case AF_INET:
		return '4';
	case AF_INET6:
		return is_ipv4(&event->dst) ? '4' : '6';
	case AF_NETLINK:
		return 'n';
	default:
		return 's';
	}
}

/* Read the socket behind the descriptor of a call, and what the call says of it. word is the size of a pointer of the
 * program. */
__noinline int read_socket(int fd, __u32 more, __u32 word)
{
	__u32 program = PROGRAM_CALL;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	struct sock *sk = socket_of(fd);
	struct named named;

	if (!event || !sk)
		return 0;
	event->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	event->protocol = BPF_CORE_READ(sk, sk_protocol);
	event->connected = HAS_PEER >> (BPF_CORE_READ(sk, __sk_common.skc_state) & 15) & 1;
	if (is_ip(sk))
		read_endpoints(sk, &event->src, &event->dst);
	named = read_named(event, more, word);
	if (!receives(event) || event->result >= 0)
		read_address(event, &named);
	if (event->family == AF_UNIX && !event->path.path.length)
		event->path.path = text_unix_socket(event, sk);
	if ((event->call == CALL_SENDTO || event->call == CALL_SENDMSG) && event->protocol == IPPROTO_UDP &&
	    !event->connected)
		event->name_changed = is_other_peer(sk, &event->dst);
	if (param_buffers && named.buffer && event->result > 0)
		event->data = text_bytes(event, named.buffer,
					 receives(event) && event->result < named.bytes ? event->result : named.bytes,
					 BUFFER_MAX);
	event->fd_type = letter_of_socket(event);
	return 0;
}

/* Read the file behind the descriptor of a call, and its path unless the call named one. 1 if it is a socket. */
__noinline int read_file(int fd, bool named)
{
	__u32 program = PROGRAM_CALL;
	struct event *event = bpf_map_lookup_elem(&scratch, &program);
	struct file *file = file_of(current_task(), fd);
	struct inode *inode;
	unsigned long magic;

	if (!event || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	switch (BPF_CORE_READ(inode, i_mode) & S_IFMT) {
	case S_IFSOCK:
		return 1;
	case S_IFIFO:
		event->fd_type = 'p';
		return 0;
	case S_IFDIR:
		event->fd_type = 'd';
		break;
	default:
		magic = BPF_CORE_READ(inode, i_sb, s_magic);
		event->fd_type = magic == ANON_INODE_FS_MAGIC ? 'e' : 'f';
		named |= magic == ANON_INODE_FS_MAGIC || magic == NSFS_MAGIC; /* these have no path */
	}
	if (!named)
		event->path.path =
			text_path(&event->header, event->text, __builtin_preserve_access_index(&file->f_path));
	return 0;
}

/* What a descriptor would have been that an open in vain does not have. */
static __always_inline __u8 letter_in_vain(__u64 call)
{
	switch (call) {
	case CALL_OPEN:
		return 'o';
	case CALL_OPENAT:
	case CALL_OPENAT2:
	case CALL_CREAT:
		return 'f';
	default:
		return 0;
	}
}

static __always_inline void read_descriptor(struct event *event, struct known known, __u32 number)
{
	bool named = known.path.directory != known.path.path;

	if (known.fd == RESULT)
		event->fd = event->result < 0 ? NO_FD : event->result;
	else if (known.fd != NONE)
		event->fd = argument(event, known.fd);
	if (event->fd < 0)
		event->fd_type = letter_in_vain(event->call);
	else if (read_file(event->fd, named))
		read_socket(event->fd, known.more, word_of(number));
}

/* Read what a call asks for, beside paths and sockets. Whether an absolute path begins at the call's directory. */
static __always_inline bool read_more(struct event *event, struct known known)
{
	__u64 how[3] = {}, first = argument(event, known.at); /* struct open_how: flags, mode, resolve */
	__u32 length;

	switch (known.more) {
	case MORE_HOW:
		bpf_probe_read_user(how, sizeof(how), (void *)first);
		break;
	case MORE_FLAGS:
		how[0] = (__u32)first;
		how[1] = argument(event, known.at + 1);
		break;
	case MORE_MODE:
		event->mode = first & 07777;
		if (event->call == CALL_CREAT)
			event->flags = O_CREAT | O_WRONLY | O_TRUNC;
		return false;
	case MORE_FAMILY:
		event->family = first;
		return false;
	case MORE_TEXT:
		event->data.offset = event->header.text_length;
		length = text_user_string(&event->header, event->text, first, TEXT_OF_CALL_MAX);
		event->data.length = length ? length - 1 : 0;
		return false;
	default:
		return false;
	}
	event->flags = common_flags(how[0]);
	if (event->flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) /* else there may be anything */
		event->mode = how[1] & 07777;
	return how[2] & RESOLVE_IN_ROOT;
}

/* The arguments of a call. Those of socketcall(2) lie in memory. */
static __always_inline void read_given(struct event *event, struct pt_regs *regs, __u32 number)
{
	struct syscall_args args = syscall_arguments(regs, number);

#if defined(__TARGET_ARCH_x86)
	if (number == SYSCALL_COMPAT_SOCKETCALL) {
		for (int i = 0; i < 6; i++)
			event->args[i] = read_word(args.a1, i, 4);
		return;
	}
#endif
	event->args[0] = args.a0;
	event->args[1] = args.a1;
	event->args[2] = args.a2;
	event->args[3] = args.a3;
	event->args[4] = args.a4;
	event->args[5] = args.a5;
}

#define CLONE_NEW     0x7e020000 /* linux/sched.h: CLONE_NEWNS and all others that clone(2) takes */
#define CLONE_NEWUSER 0x10000000

/* The namespaces that a call of clone(2) makes. */
static __always_inline __u64 namespaces_of(struct pt_regs *regs, __u32 number, struct known known)
{
	__u64 flags = syscall_arguments(regs, number).a0;

	if (known.more == MORE_CLONE3)
		flags = read_word(flags, 0, 8); /* struct clone_args */
	return flags & CLONE_NEW;
}

/* A call of clone(2) that makes a namespace of users is told of as if the child had called unshare(2). In the child,
 * where it returns 0, it made none. */
static __always_inline int cloned(struct pt_regs *regs, __u32 number, struct known known, long result)
{
	__u64 namespaces = namespaces_of(regs, number, known);
	struct event *event;

	if (!result || !(namespaces & CLONE_NEWUSER) || !is_wanted(CALL_UNSHARE, result))
		return 0;
	event = begin(PROGRAM_CALL, CALL_UNSHARE, param_host_calls);
	if (!event)
		return 0;
	event->result = result < 0 ? result : 0;
	event->args[0] = namespaces;
	gadget_submit(event);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 number = syscall_number(regs);
	struct known known = find_known(regs, number);
	struct event *event;
	bool in_root;

	if (!known.call)
		return 0;
	result = syscall_result(regs, number, result);
	if (known.more >= MORE_CLONE)
		return cloned(regs, number, known, result);
	if (!is_wanted(known.call - 1, result) ||
	    (known.call - 1 == CALL_BPF && is_about_elements(syscall_arguments(regs, number).a0)))
		return 0;
	event = begin(PROGRAM_CALL, known.call - 1, param_host_calls || known.call - 1 == CALL_CHANGE);
	if (!event)
		return 0;
	event->result = result;
	read_given(event, regs, number);
	if (known.call - 1 == CALL_CHANGE) {
		read_relations(event, current_task());
		event->cwd = path_of_directory(PROGRAM_CALL, current_task());
		gadget_submit(event);
		return 0;
	}
	in_root = read_more(event, known);
	read_paths(event, known, in_root);
	read_descriptor(event, known, number);
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
