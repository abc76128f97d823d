// Spends its time in five functions: 40, 25, 20, 10 and 5 of 100 turns of the same loop.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#pragma GCC optimize("no-omit-frame-pointer") // so that its callers are found

static volatile unsigned long sink;

#define SPIN(name)                                                  \
	__attribute__((noinline)) void name(long turns)             \
	{                                                           \
		unsigned long found = sink;                         \
                                                                    \
		for (long at = 0; at < turns; at++)                 \
			__asm__ volatile("" : "+r"(found) : "r"(at)); \
		sink = found;                                       \
	}

SPIN(spin_40)
SPIN(spin_25)
SPIN(spin_20)
SPIN(spin_10)
SPIN(spin_5)

__attribute__((noinline)) void turn_all(long unit)
{
	spin_40(40 * unit);
	spin_25(25 * unit);
	spin_20(20 * unit);
	spin_10(10 * unit);
	spin_5(5 * unit);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1e9;
	time_t end = time(NULL) + seconds;

	printf("spinning\n");
	fflush(stdout);
	while (time(NULL) <= end)
		turn_all(10000);
	return 0;
}
