/* argv: one exec each with 300 arguments, with one of 5,000 bytes, with none but a name, and a failed one of 4,999. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void start(const char *path, char **arguments)
{
	if (fork() == 0) {
		execv(path, arguments);
		_exit(0);
	}
	wait(NULL);
}

int main(int argc, char **argv)
{
	static char longest[5001], *many[302] = {"many"};

	if (strcmp(argv[0], "/workload"))
		return 0;
	for (int i = 1; i <= 300; i++)
		asprintf(&many[i], "a%d", i);
	memset(longest, 'y', 5000);
	start("/workload", many);
	start("/workload", (char *[]){"long", longest, NULL});
	start("/workload", (char *[]){"bare", NULL});
	chdir("/etc");
	start("../tmp/not-there", (char *[]){"gone", longest + 1, NULL});
	start("/etc", (char *[]){"odd", "a\nb", "\033[31mred", "\xff\xfe", NULL});
	printf("done\n");
	fflush(stdout);
	pause();
}
