/* produce: for each line "COUNT\n" on standard input opens COUNT files that are not there, and says "done\n" when it
 * has. Each has its number in its path, from 0 on: what is missing or there twice is known by it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/produced/000000000";

static void next_path(void)
{
	char *digit = path + sizeof(path) - 2;

	while (*digit == '9')
		*digit-- = '0';
	++*digit;
}

int main(void)
{
	char line[32];

	while (fgets(line, sizeof(line), stdin)) {
		for (long left = atol(line); left > 0; left--) {
			open(path, O_RDONLY);
			next_path();
		}
		puts("done");
		fflush(stdout);
	}
	return 0;
}
