/* SPDX-License-Identifier: GPL-2.0 */
/* Typedefs say what a member of an event or a parameter means; DOC and PARAM give it a text of help. The build reads
 * both from the object's BTF. This header defines no maps, so programs without events can include it. */
#pragma once

#include "kernel.h"

/* The help text of a member of the event. A member without one is not shown. */
#define DOC(text) __attribute__((btf_decl_tag(text)))

/* A setting: an option --name of the command, which the program reads as param_name. value is its default. */
#define PARAM(type, name, value, doc) const volatile type param_##name DOC(doc) = value

typedef __u64 gadget_timestamp; /* CLOCK_BOOTTIME, nanoseconds; the agent sends wall-clock time */
typedef __u64 gadget_cgroup_id;
typedef __u64 gadget_container; /* a container beside the header's, as its cgroup_id: see gadget_fill_pair */
typedef __u32 gadget_pid;       /* in the host's pid namespace */
typedef __u32 gadget_uid;       /* in the host's user namespace */
typedef __u32 gadget_gid;
typedef char gadget_comm[16];
typedef char gadget_name[32];          /* of a thing that the kernel names, such as a disk */
typedef __u32 gadget_syscall;          /* what gadget_syscall_of() returns */
typedef __s32 gadget_errno;            /* positive, 0 for success */
typedef __u32 gadget_mode;             /* permission bits, shown in octal */
typedef __u64 gadget_duration;         /* nanoseconds, or DURATION_UNKNOWN */
typedef __u64 gadget_latest_duration;  /* the same, as it was in the end: totals do not add it up */
typedef __u64 gadget_longest_duration; /* the same, of which the longest counts */
typedef __u64 gadget_size;             /* bytes */
typedef __u64 gadget_some_size;        /* bytes; 0 where there are none to tell of */
typedef __u64 gadget_known_size;       /* bytes, or COUNT_UNKNOWN: not every kernel tells */
typedef __u64 gadget_known_count;      /* a number, or COUNT_UNKNOWN */
typedef __u64 gadget_percent;          /* hundredths of a percent, or COUNT_UNKNOWN; totals have the latest */
typedef char gadget_string[128];       /* a parameter's text */
typedef __u64 gadget_histogram[48];    /* how many durations there were of each length: see histogram.h */

/* A typedef gadget_…_flags of an enum is a set of bits. The name for 0 is shown when the two low bits are 0, as in the
 * access mode of open(2). A typedef gadget_…_words is shown as words: RESULT_TIMED_OUT as "timed out". */

struct gadget_slice {
	__u16 offset;
	__u16 length;
};
typedef struct gadget_slice gadget_text; /* bytes, most often UTF-8 */
typedef struct gadget_slice gadget_word; /* the same, of a few letters */
typedef struct gadget_slice gadget_args; /* each argument ends with a NUL */

struct gadget_path_slice {
	__u16 offset;
	__u16 length;
	bool as_given; /* as a process passed it; else components, the last one first: "ls/bin/usr/" */
	bool cut;      /* the first components are missing */
};
typedef struct gadget_path_slice gadget_path;

struct gadget_full_path_slice {
	gadget_path directory; /* what a relative path is relative to */
	gadget_path path;
};
typedef struct gadget_full_path_slice gadget_full_path;
typedef struct gadget_full_path_slice gadget_absolute_path; /* one that every event has */

/* An IPv4 address is ::ffff:a.b.c.d here. An unknown address is all zero. A member called src is the process's own end:
 * it is shown with the name of the process's pod. */
struct gadget_socket_address {
	__u8 address[16] __attribute__((aligned(4))); /* network order */
	__u16 port;                                   /* host order */
};
typedef struct gadget_socket_address gadget_endpoint;
typedef struct gadget_socket_address gadget_some_endpoint; /* all zero where there is none, which is no secret */

#define DURATION_UNKNOWN ((__u64)-1)
#define COUNT_UNKNOWN    ((__u64)-1)

#define ANY_UID ((__u32)-1)
