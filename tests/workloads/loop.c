/* loop CALLS: the cheapest system call so often, 150 times: one of them is undisturbed; prints the nanoseconds that one took, at best. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long calls = atol(argv[1]);
	double best = 1e18;

	for (int round = 0; round < 150; round++) {
		struct timespec begin, end;
		clock_gettime(CLOCK_MONOTONIC, &begin);
		for (long i = 0; i < calls; i++)
			syscall(SYS_getppid);
		clock_gettime(CLOCK_MONOTONIC, &end);
		double each = ((end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec) / calls;
		if (each < best)
			best = each;
	}
	printf("%.1f\n", best);
}
