/* SPDX-License-Identifier: GPL-2.0 */
/* What members of an event and parameters mean: typedefs, and texts of help. The build reads them from an object's BTF.
 * No maps: whoever includes this has none that it does not use. */
#pragma once

#include "kernel.h"

#define DOC(text)                     __attribute__((btf_decl_tag(text)))
#define PARAM(type, name, value, doc) const volatile type param_##name DOC(doc) = value

typedef __u64 gadget_timestamp; /* CLOCK_BOOTTIME, nanoseconds; the agent sends wall-clock time */
typedef __u64 gadget_cgroup_id;
typedef __u32 gadget_pid; /* in the host's pid namespace */
typedef __u32 gadget_uid; /* in the host's user namespace */
typedef __u32 gadget_gid;
typedef char gadget_comm[16];
typedef __s32 gadget_errno;      /* positive, 0 for success */
typedef __u32 gadget_mode;       /* permission bits, shown in octal */
typedef __u64 gadget_duration;   /* nanoseconds, or DURATION_UNKNOWN */
typedef char gadget_string[128]; /* a parameter's text */

/* A typedef gadget_…_flags of an enum is a set of bits. A name for 0 stands where the two low bits are 0, as in
 * the access mode of open(2). One of gadget_…_words is shown as words: RESULT_TIMED_OUT as "timed out". */

struct gadget_slice {
	__u16 offset;
	__u16 length;
};
typedef struct gadget_slice gadget_text; /* bytes, most often UTF-8 */
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

/* An IPv4 address is ::ffff:a.b.c.d here. All zero where it is not known. A member called src is the end of the process
 * itself: it is shown with the name of its own pod. */
struct gadget_socket_address {
	__u8 address[16] __attribute__((aligned(4))); /* network order */
	__u16 port;                                   /* host order */
};
typedef struct gadget_socket_address gadget_endpoint;

#define DURATION_UNKNOWN ((__u64)-1)

#define ANY_UID ((__u32)-1)
