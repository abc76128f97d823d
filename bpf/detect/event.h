/* SPDX-License-Identifier: GPL-2.0 */
/* An event that rules judge, and what users may set. */
#pragma once

#include "filter.h"
#include "text.h"

#define ARGS_MAX         4096 /* bytes that are kept of arguments, and of an environment */
#define BUFFER_MAX       80   /* bytes that are kept of data sent or received */
#define TEXT_OF_CALL_MAX 1024 /* bytes of the name of a memfd, and of options of a module */
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
