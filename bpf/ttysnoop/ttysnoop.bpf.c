// SPDX-License-Identifier: GPL-2.0
#include "calls.h"
#include "filter.h"
#include "text.h"

#define DATA_MAX 4096 /* bytes of one call */
#define VECTORS  16   /* buffers that are read of one call */

#define S_IFMT  0170000 /* linux/stat.h */
#define S_IFCHR 0020000

/* Documentation/admin-guide/devices.txt */
#define TTY_MAJOR    4
#define TTYAUX_MAJOR 5
#define AUX_PTMX     2 /* /dev/ptmx: the end of a pseudoterminal at which a terminal's window is */
#define PTS_FIRST    136
#define PTS_LAST     143

enum terminal_operation {
	OPERATION_WRITE,
	OPERATION_READ,
};
typedef enum terminal_operation gadget_operation_words;

/* kinds.py */
typedef __u32 gadget_terminal;
typedef struct gadget_slice gadget_terminal_text;

struct event {
	struct gadget_header header;
	gadget_terminal tty DOC("the terminal, as pts/0; tty if it was opened as /dev/tty");
	gadget_operation_words operation DOC("whether the process wrote to the terminal or read from it");
	gadget_size bytes DOC("how many bytes were written or read");
	bool truncated DOC("whether these are more than data has");
	gadget_terminal_text data DOC("the bytes, at most the first 4,096 of a call");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

PARAM(bool, input, false, "also what programs read from terminals: what people type, passwords too");

enum place {
	PLACE_OTHER, /* the call is none of ours */
	PLACE_BUFFER,
	PLACE_VECTORS,
	PLACE_FILE, /* the bytes are in no memory of the process */
};

struct known {
	__u8 place, operation;
	__u8 fd; /* which argument */
};

/* The calls with an offset (pwrite) are not here: terminals have none. pwritev2 may be without. */
CALLS(struct known) = {
	KNOWN_BOTH(WRITE, {PLACE_BUFFER, OPERATION_WRITE, 0}),
	KNOWN_BOTH(WRITEV, {PLACE_VECTORS, OPERATION_WRITE, 0}),
	KNOWN_BOTH(PWRITEV2, {PLACE_VECTORS, OPERATION_WRITE, 0}),
	KNOWN_BOTH(SENDFILE, {PLACE_FILE, OPERATION_WRITE, 0}),
	KNOWN_32(SENDFILE64, {PLACE_FILE, OPERATION_WRITE, 0}),
	KNOWN_BOTH(SPLICE, {PLACE_FILE, OPERATION_WRITE, 2}),
	KNOWN_BOTH(READ, {PLACE_BUFFER, OPERATION_READ, 0}),
	KNOWN_BOTH(READV, {PLACE_VECTORS, OPERATION_READ, 0}),
	KNOWN_BOTH(PREADV2, {PLACE_VECTORS, OPERATION_READ, 0}),
};

/* The device of a terminal, as /proc/PID/stat has it (tty_nr); 0 if the file is none. */
static __always_inline __u32 terminal_of(struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	__u32 device = BPF_CORE_READ(inode, i_rdev), major = device >> 20, minor = device & ((1 << 20) - 1);

	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFCHR)
		return 0;
	if (major != TTY_MAJOR && !(major == TTYAUX_MAJOR && minor != AUX_PTMX) &&
	    (major < PTS_FIRST || major > PTS_LAST))
		return 0;
	return (minor & 0xff) | major << 8 | (minor & ~0xff) << 12;
}

/* Append bytes from user memory, as far as there is room. */
static __always_inline void append(struct event *event, __u64 from, __u64 length)
{
	__u32 at = event->header.text_length;

	if (at >= DATA_MAX)
		return;
	if (length > DATA_MAX - at)
		length = DATA_MAX - at;
	length = at_most(length, DATA_MAX);
	if (!bpf_probe_read_user(event->text + at, length, (void *)from))
		event->header.text_length = at + length;
}

/* Append a buffer of a call that has left bytes of it in this buffer and later ones. Returns how many are in this one.
 * The verifier looks at a function that is not static only once. */
__noinline int append_vector(__u64 at, __u32 left, bool compat)
{
	__u32 zero = 0, vector_32[2] = {};
	struct event *event = bpf_map_lookup_elem(&scratch, &zero);
	__u64 vector[2] = {}; /* where, and how many bytes */

	if (!event)
		return 0;
	if (compat) {
		bpf_probe_read_user(vector_32, sizeof(vector_32), (void *)at);
		vector[0] = vector_32[0];
		vector[1] = vector_32[1];
	} else {
		bpf_probe_read_user(vector, sizeof(vector), (void *)at);
	}
	if (vector[1] > left)
		vector[1] = left;
	append(event, vector[0], vector[1]);
	return vector[1];
}

static __always_inline void append_vectors(__u64 from, __u32 bytes, bool compat)
{
	for (int i = 0; i < VECTORS && bytes; i++)
		bytes -= append_vector(from + i * (compat ? 8 : 16), bytes, compat);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(returned, struct pt_regs *regs, long result)
{
	__u32 zero = 0, number = syscall_number(regs), terminal;
	struct known known = known_call(number);
	struct syscall_args args;
	struct event *event;
	struct file *file;

	if (known.place == PLACE_OTHER || result <= 0 || (known.operation == OPERATION_READ && !param_input))
		return 0;
	args = syscall_arguments(regs, number);
	file = file_of(current_task(), known.fd ? args.a2 : args.a0);
	terminal = file ? terminal_of(file) : 0;
	if (!terminal)
		return 0;
	event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event || !gadget_fill(&event->header))
		return 0;
	event->tty = terminal;
	event->operation = known.operation;
	event->bytes = result;
	if (known.place == PLACE_BUFFER)
		append(event, args.a1, result);
	else if (known.place == PLACE_VECTORS)
		append_vectors(args.a1, result, number & COMPAT_FLAG);
	event->data = (gadget_terminal_text){.length = event->header.text_length};
	event->truncated = event->data.length < event->bytes;
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
