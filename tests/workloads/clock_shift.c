/* A library for LD_PRELOAD: the wall clock is off by the seconds in the file $CLOCK_SHIFT, which may change. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{
	static const volatile long *seconds;

	if (!seconds) {
		int fd = open(getenv("CLOCK_SHIFT"), O_RDONLY);
		void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);

		close(fd);
		if (page == MAP_FAILED)
			abort();
		seconds = page;
	}
	return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	long failed = syscall(SYS_clock_gettime, clock, now);

	if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += shift();
	return failed;
}

time_t time(time_t *where)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (where)
		*where = now.tv_sec;
	return now.tv_sec;
}
