// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 128
#include "calls.h"
#include "filter.h"
#include "text.h"

#define NAME_BYTES 4096 /* bytes that are kept of a path or name */

enum privileged_call {
	CALL_SETUID,
	CALL_SETGID,
	CALL_SETREUID,
	CALL_SETREGID,
	CALL_SETRESUID,
	CALL_SETRESGID,
	CALL_SETGROUPS,
	CALL_SETNS,
	CALL_UNSHARE,
	CALL_PTRACE,
	CALL_BPF,
	CALL_INIT_MODULE,
	CALL_FINIT_MODULE,
	CALL_DELETE_MODULE,
	CALL_MEMFD_CREATE,
	CALL_USERFAULTFD,
	CALL_KEYCTL,
	CALL_PIVOT_ROOT,
	CALL_CHROOT,
	CALL_SECCOMP,
	CALL_LANDLOCK_RESTRICT_SELF,
	CALL_IO_URING_SETUP,
	CALL_PERF_EVENT_OPEN,
};
typedef enum privileged_call gadget_call_words;

/* Requests of the calls that do many things; each call's begin at a number of their own. The names lose their first
 * part: linux/ptrace.h, linux/bpf.h, linux/keyctl.h, linux/seccomp.h. */
#define REQUESTS(call) (((call) + 1) << 16)
enum privileged_request {
	REQUEST_NONE,
	P_TRACEME = REQUESTS(CALL_PTRACE),
	P_PEEKTEXT,
	P_PEEKDATA,
	P_PEEKUSR,
	P_POKETEXT,
	P_POKEDATA,
	P_POKEUSR,
	P_CONT,
	P_KILL,
	P_SINGLESTEP,
	P_GETREGS = REQUESTS(CALL_PTRACE) + 12,
	P_SETREGS,
	P_ATTACH = REQUESTS(CALL_PTRACE) + 16,
	P_DETACH,
	P_SYSCALL = REQUESTS(CALL_PTRACE) + 24,
	P_SETOPTIONS = REQUESTS(CALL_PTRACE) + 0x4200,
	P_GETEVENTMSG,
	P_GETSIGINFO,
	P_SETSIGINFO,
	P_GETREGSET,
	P_SETREGSET,
	P_SEIZE,
	P_INTERRUPT,
	P_LISTEN,
	B_MAP_CREATE = REQUESTS(CALL_BPF),
	B_MAP_LOOKUP_ELEM,
	B_MAP_UPDATE_ELEM,
	B_MAP_DELETE_ELEM,
	B_MAP_GET_NEXT_KEY,
	B_PROG_LOAD,
	B_OBJ_PIN,
	B_OBJ_GET,
	B_PROG_ATTACH,
	B_PROG_DETACH,
	B_PROG_TEST_RUN,
	B_PROG_GET_NEXT_ID,
	B_MAP_GET_NEXT_ID,
	B_PROG_GET_FD_BY_ID,
	B_MAP_GET_FD_BY_ID,
	B_OBJ_GET_INFO_BY_FD,
	B_PROG_QUERY,
	B_RAW_TRACEPOINT_OPEN,
	B_BTF_LOAD,
	B_BTF_GET_FD_BY_ID,
	B_TASK_FD_QUERY,
	B_MAP_LOOKUP_AND_DELETE_ELEM,
	B_MAP_FREEZE,
	B_BTF_GET_NEXT_ID,
	B_MAP_LOOKUP_BATCH,
	B_MAP_LOOKUP_AND_DELETE_BATCH,
	B_MAP_UPDATE_BATCH,
	B_MAP_DELETE_BATCH,
	B_LINK_CREATE,
	B_LINK_UPDATE,
	B_LINK_GET_FD_BY_ID,
	B_LINK_GET_NEXT_ID,
	B_ENABLE_STATS,
	B_ITER_CREATE,
	B_LINK_DETACH,
	B_PROG_BIND_MAP,
	B_TOKEN_CREATE,
	K_GET_KEYRING_ID = REQUESTS(CALL_KEYCTL),
	K_JOIN_SESSION_KEYRING,
	K_UPDATE,
	K_REVOKE,
	K_CHOWN,
	K_SETPERM,
	K_DESCRIBE,
	K_CLEAR,
	K_LINK,
	K_UNLINK,
	K_SEARCH,
	K_READ,
	K_INSTANTIATE,
	K_NEGATE,
	K_SET_REQKEY_KEYRING,
	K_SET_TIMEOUT,
	K_ASSUME_AUTHORITY,
	K_GET_SECURITY,
	K_SESSION_TO_PARENT,
	K_REJECT,
	K_INSTANTIATE_IOV,
	K_INVALIDATE,
	K_GET_PERSISTENT,
	S_SET_MODE_STRICT = REQUESTS(CALL_SECCOMP),
	S_SET_MODE_FILTER,
	S_GET_ACTION_AVAIL,
	S_GET_NOTIF_SIZES,
};
typedef enum privileged_request gadget_request_words;

/* linux/sched.h */
enum namespace_flag {
	CLONE_NEWTIME = 0x80,
	CLONE_VM = 0x100,
	CLONE_FS = 0x200,
	CLONE_FILES = 0x400,
	CLONE_SIGHAND = 0x800,
	CLONE_THREAD = 0x10000,
	CLONE_NEWNS = 0x20000,
	CLONE_SYSVSEM = 0x40000,
	CLONE_NEWCGROUP = 0x2000000,
	CLONE_NEWUTS = 0x4000000,
	CLONE_NEWIPC = 0x8000000,
	CLONE_NEWUSER = 0x10000000,
	CLONE_NEWPID = 0x20000000,
	CLONE_NEWNET = 0x40000000,
};
typedef enum namespace_flag gadget_namespace_flags;

/* What a call asked for, whichever arguments say it. */
struct privilege_detail {
	gadget_request_words request;
	gadget_namespace_flags namespaces;
	__u32 id;
	gadget_pid tpid;
	gadget_text name;
};
typedef struct privilege_detail gadget_privilege_detail;

struct event {
	struct gadget_header header;
	gadget_call_words call DOC("the system call");
	gadget_errno error DOC("why it failed; none if it succeeded");
	gadget_privilege_detail detail DOC("what it asked for: request, namespaces, id, target or name in one");
	gadget_request_words request DOC("what ptrace, bpf, keyctl or seccomp was asked to do");
	gadget_namespace_flags namespaces DOC("of unshare and setns: which namespaces; 0 also means any to setns");
	__s32 id DOC("of setuid and its like: the id that was asked for, the effective one of several, as the process "
		     "knows it; of setgroups how many; else -1");
	gadget_pid tpid DOC("of ptrace: process id of the target, as the process gave it");
	gadget_text name
		DOC("path of chroot and pivot_root, name of a memfd or of a module to remove, parameters of a module");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only calls that failed");
PARAM(bool, elements, false, "also calls of bpf about the elements of maps, which are many");

struct asked {
	enum privileged_call call;
	__u32 request, namespaces;
	__s32 id;
	__u32 tpid;
	__u64 name;
};

/* Which argument of a call says what. */
enum arguments {
	ARGUMENTS_NONE,
	ARGUMENTS_ID,
	ARGUMENTS_ID_SECOND,
	ARGUMENTS_NAMESPACES,
	ARGUMENTS_NAMESPACES_SECOND,
	ARGUMENTS_REQUEST,
	ARGUMENTS_REQUEST_OF_TARGET,
	ARGUMENTS_NAME,
	ARGUMENTS_NAME_SECOND,
	ARGUMENTS_NAME_THIRD,
};

struct known {
	__u8 call; /* one more than its CALL_… */
	__u8 arguments;
};

#define PRIVILEGED(which, says) KNOWN_BOTH(which, {CALL_##which + 1, ARGUMENTS_##says})

CALLS(struct known) = {
	PRIVILEGED(SETUID, ID),
	PRIVILEGED(SETGID, ID),
	PRIVILEGED(SETREUID, ID_SECOND),
	PRIVILEGED(SETREGID, ID_SECOND),
	PRIVILEGED(SETRESUID, ID_SECOND),
	PRIVILEGED(SETRESGID, ID_SECOND),
	PRIVILEGED(SETGROUPS, ID),
	PRIVILEGED(SETNS, NAMESPACES_SECOND),
	PRIVILEGED(UNSHARE, NAMESPACES),
	PRIVILEGED(PTRACE, REQUEST_OF_TARGET),
	PRIVILEGED(BPF, REQUEST),
	PRIVILEGED(INIT_MODULE, NAME_THIRD),
	PRIVILEGED(FINIT_MODULE, NAME_SECOND),
	PRIVILEGED(DELETE_MODULE, NAME),
	PRIVILEGED(MEMFD_CREATE, NAME),
	PRIVILEGED(USERFAULTFD, NONE),
	PRIVILEGED(KEYCTL, REQUEST),
	PRIVILEGED(PIVOT_ROOT, NAME),
	PRIVILEGED(CHROOT, NAME),
	PRIVILEGED(SECCOMP, REQUEST),
	PRIVILEGED(LANDLOCK_RESTRICT_SELF, NONE),
	PRIVILEGED(IO_URING_SETUP, NONE),
	PRIVILEGED(PERF_EVENT_OPEN, NONE),
};

/* Read what a call asks for. False if the call is none of ours. */
static __always_inline bool read_asked(struct pt_regs *regs, __u32 number, struct asked *asked)
{
	struct known known = known_call(number);
	struct syscall_args args;

	if (!known.call)
		return false;
	args = syscall_arguments(regs, number);
	asked->call = known.call - 1;
	switch (known.arguments) {
	case ARGUMENTS_ID:
		asked->id = args.a0;
		break;
	case ARGUMENTS_ID_SECOND:
		asked->id = args.a1;
		break;
	case ARGUMENTS_NAMESPACES:
		asked->namespaces = args.a0;
		break;
	case ARGUMENTS_NAMESPACES_SECOND:
		asked->namespaces = args.a1;
		break;
	case ARGUMENTS_REQUEST_OF_TARGET:
		asked->tpid = args.a1;
		/* fall through */
	case ARGUMENTS_REQUEST:
		asked->request = REQUESTS(asked->call) + (__u16)args.a0;
		break;
	case ARGUMENTS_NAME:
		asked->name = args.a0;
		break;
	case ARGUMENTS_NAME_SECOND:
		asked->name = args.a1;
		break;
	case ARGUMENTS_NAME_THIRD:
		asked->name = args.a2;
		break;
	}
	return true;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	struct asked asked = {.id = -1};
	struct event *event;
	__u32 zero = 0, number = syscall_number(regs), length;

	if (!read_asked(regs, number, &asked))
		return 0;
	result = syscall_result(regs, number, result);
	if (param_failed && result >= 0)
		return 0;
	if (asked.call == CALL_BPF && !param_elements && is_about_elements(asked.request - REQUESTS(CALL_BPF)))
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->call = asked.call;
	event->error = syscall_error(result);
	event->request = asked.request;
	event->namespaces = asked.namespaces;
	event->id = asked.id;
	event->tpid = asked.tpid;
	length = asked.name ? text_user_string(&event->header, event->text, asked.name, NAME_BYTES) : 0;
	event->name = (gadget_text){.length = length ? length - 1 : 0};
	event->detail =
		(gadget_privilege_detail){event->request, event->namespaces, event->id, event->tpid, event->name};
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
