// SPDX-License-Identifier: GPL-2.0
#define TEXT_SHORT 0
#include "filter.h"
#include "syscalls.h"

#define arrival_lost(container) gadget_lost(LOSS_TOO_MANY_AT_ONCE, container)
#include "arriving.h"

/* linux/capability.h */
enum capability {
	CAP_CHOWN,
	CAP_DAC_OVERRIDE,
	CAP_DAC_READ_SEARCH,
	CAP_FOWNER,
	CAP_FSETID,
	CAP_KILL,
	CAP_SETGID,
	CAP_SETUID,
	CAP_SETPCAP,
	CAP_LINUX_IMMUTABLE,
	CAP_NET_BIND_SERVICE,
	CAP_NET_BROADCAST,
	CAP_NET_ADMIN,
	CAP_NET_RAW,
	CAP_IPC_LOCK,
	CAP_IPC_OWNER,
	CAP_SYS_MODULE,
	CAP_SYS_RAWIO,
	CAP_SYS_CHROOT,
	CAP_SYS_PTRACE,
	CAP_SYS_PACCT,
	CAP_SYS_ADMIN,
	CAP_SYS_BOOT,
	CAP_SYS_NICE,
	CAP_SYS_RESOURCE,
	CAP_SYS_TIME,
	CAP_SYS_TTY_CONFIG,
	CAP_MKNOD,
	CAP_LEASE,
	CAP_AUDIT_WRITE,
	CAP_AUDIT_CONTROL,
	CAP_SETFCAP,
	CAP_MAC_OVERRIDE,
	CAP_MAC_ADMIN,
	CAP_SYSLOG,
	CAP_WAKE_ALARM,
	CAP_BLOCK_SUSPEND,
	CAP_AUDIT_READ,
	CAP_PERFMON,
	CAP_BPF,
	CAP_CHECKPOINT_RESTORE,
};

enum check_result {
	RESULT_GRANTED,
	RESULT_DENIED,
};
typedef enum check_result gadget_result_words;

struct event {
	struct gadget_header header;
	enum capability capability DOC("the capability that the kernel asked for");
	gadget_result_words result DOC("whether the process has it there");
	__u64 count DOC("checks of this capability with this result in the process so far");
	gadget_syscall syscall DOC("the system call during which it asked; none outside calls");
	__u32 userns DOC("inode number of the user namespace in which it would be needed");
	__u8 level DOC("how deep this user namespace is; 0 for the host's");
	bool runtime DOC("whether the container's runtime asked, before it began the container's program");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, failed, false, "only checks that were denied");
PARAM(bool, unaudited, false, "also checks that the kernel makes without audit, as one for most memory that is mapped");
PARAM(bool, every, false, "each check, not only the first, the 10th, the 100th and so on of a process");

struct check {
	__u64 started; /* of the process: its id may be another's later */
	__u32 tgid;
	__u16 capability;
	__u8 denied, runtime;
};

/* How often a process was asked. A process that was evicted is counted anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct check);
	__type(value, __u64);
} checks SEC(".maps");

static __always_inline __u64 count(struct check *check)
{
	__u64 one = 1, *found = bpf_map_lookup_elem(&checks, check);

	if (found)
		return __sync_fetch_and_add(found, 1) + 1;
	if (!bpf_map_update_elem(&checks, check, &one, BPF_NOEXIST))
		return 1;
	found = bpf_map_lookup_elem(&checks, check); /* another thread was first */
	return found ? __sync_fetch_and_add(found, 1) + 1 : 1;
}

/* Whether a number is 1, 10, 100, … */
static __always_inline bool is_round(__u64 number)
{
	for (int i = 0; i < 19 && number > 1; i++) {
		if (number % 10)
			return false;
		number /= 10;
	}
	return number == 1;
}

#define FRAMES       8  /* callers of the check that are looked at */
#define SYMBOL_BYTES 32 /* bytes of a function's name that are compared */

/* Whether a place in the kernel's code lies in a function that asks without audit, by address: the name takes long. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, bool);
} places SEC(".maps");

#define BEGINS(name, with) (!bpf_strncmp(name, sizeof(with) - 1, with))

static __always_inline bool asks_without_audit(__u64 place)
{
	bool *known = bpf_map_lookup_elem(&places, &place), found;
	char name[SYMBOL_BYTES] = {};

	if (known)
		return *known;
	bpf_snprintf(name, sizeof(name), "%ps", &place, sizeof(place));
	found = BEGINS(name, "security_vm_enough_memory") || BEGINS(name, "ns_capable_noaudit") ||
		BEGINS(name, "has_capability_noaudit") || BEGINS(name, "has_ns_capability_noaudit");
	bpf_map_update_elem(&places, &place, &found, BPF_ANY);
	return found;
}

/* Whether the kernel makes this check without audit (CAP_OPT_NOAUDIT): the tracepoint does not tell, the callers do. */
static __always_inline bool is_unaudited(void *ctx)
{
	__u64 places[FRAMES] = {};

	bpf_get_stack(ctx, places, sizeof(places), 0);
	for (int i = 0; i < FRAMES && places[i]; i++)
		if (asks_without_audit(places[i]))
			return true;
	return false;
}

SEC("tp_btf/cap_capable")
int BPF_PROG(checked, const struct cred *cred, struct user_namespace *target, const struct user_namespace *own,
	     int which, int result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct check check = {};
	struct event *event;
	__u32 zero = 0;

	if (param_failed && !result)
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	if (!param_unaudited && is_unaudited(ctx))
		return 0;
	check.started = BPF_CORE_READ(task, group_leader, start_boottime);
	check.tgid = task->tgid;
	check.capability = which;
	check.denied = result != 0;
	check.runtime = is_arriving();
	event->count = count(&check);
	if (!param_every && !is_round(event->count))
		return 0;
	event->capability = which;
	event->result = result ? RESULT_DENIED : RESULT_GRANTED;
	event->syscall = gadget_syscall_of(task);
	event->userns = BPF_CORE_READ(target, ns.inum);
	event->level = BPF_CORE_READ(target, level);
	event->runtime = check.runtime;
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
