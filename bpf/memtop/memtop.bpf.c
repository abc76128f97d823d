// SPDX-License-Identifier: GPL-2.0
#include "readings.h"

struct row {
	READINGS_HEADER;
	gadget_size usage
		DOC("memory that counts for the container: of its processes, of files in the cache, of the kernel");
	gadget_some_size limit DOC("how much it may have: its own limit or its pod's, whichever is less; none if 0");
	gadget_size rss DOC("memory of its processes that no file is behind");
	gadget_size cache DOC("files in memory, also those of tmpfs");
	gadget_known_size peak DOC("the most that it has had");
	gadget_known_count high DOC("how often it was above memory.high and slowed down for it");
	gadget_known_count max DOC("how often it wanted more than its limit");
	gadget_known_count oom DOC("how often no memory could be had for it");
	gadget_known_count oom_kill DOC("how many of its processes were killed for want of memory");
	bool ended DOC("whether it has ended since the last table: these are its last numbers that were read");
};

GADGET_READINGS(struct row);

char LICENSE[] SEC("license") = "GPL";
