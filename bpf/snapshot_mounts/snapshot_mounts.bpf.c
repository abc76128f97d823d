// SPDX-License-Identifier: GPL-2.0
#include "readings.h"

/* How mounts below it reach other places, and those of others reach it: mount_namespaces(7). */
enum propagation {
	PROPAGATION_PRIVATE,
	PROPAGATION_SHARED,
	PROPAGATION_SLAVE,
	PROPAGATION_SHARED_SLAVE,
	PROPAGATION_UNBINDABLE,
};
typedef enum propagation gadget_propagation_words;

struct row {
	READINGS_HEADER;
	__u16 text_length; /* bytes used of the tail */
	gadget_pid pid DOC("process in whose mount namespace it is: the container's first one, as the host sees it");
	__u32 id DOC("number of the mount");
	__u32 parent DOC("number of the mount that it is in");
	gadget_path source DOC("what is mounted: a device, or any name");
	gadget_path root DOC("what of its file system is mounted: / for all of it, or a folder or file");
	gadget_path target DOC("where, as the container sees it");
	gadget_word type DOC("type of the file system");
	gadget_path options DOC("options of the mount");
	gadget_path fs_options DOC("options of the file system");
	gadget_propagation_words propagation DOC("how mounts below it reach other places");
	bool runtime
		DOC("whether runtimes mount it in every container: /proc, /sys, /dev and parts of them, also masked");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_READINGS(struct row);

char LICENSE[] SEC("license") = "GPL";
