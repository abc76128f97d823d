/* execs PROCESSES EXECS FAILING [HOW]: PROCESSES children each start EXECS programs one after another, of which
 * FAILING do not exist. The n-th has arguments of n * 37 % 3000 bytes. HOW may be "thread": a second thread calls
 * exec; or "short": without that argument. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *arguments[4];

static void *call_exec(void *path)
{
	execv(path, arguments);
	_exit(127);
}

static void start(int number, int fails, const char *how)
{
	static char filler[3001];
	pthread_t other;
	char *path = fails ? "/does/not/exist" : "/workload";

	memset(filler, 'x', number * 37 % 3000);
	filler[number * 37 % 3000] = 0;
	arguments[0] = "started";
	arguments[1] = filler;
	if (strcmp(how, "short") == 0)
		arguments[1] = NULL;
	if (strcmp(how, "thread"))
		call_exec(path);
	pthread_create(&other, NULL, call_exec, path);
	for (;;)
		pause();
}

static int worker(int execs, int failing, const char *how)
{
	int bad = 0;

	for (int i = 0; i < execs; i++) {
		int fails = i < failing, status;
		pid_t pid = fork();
		if (pid == 0)
			start(i, fails, how);
		waitpid(pid, &status, 0);
		bad += WEXITSTATUS(status) != (fails ? 127 : 0);
	}
	return bad != 0;
}

int main(int argc, char **argv)
{
	int status, bad = 0;

	if (strcmp(argv[0], "started") == 0)
		return 0;
	for (int i = 0; i < atoi(argv[1]); i++)
		if (fork() == 0)
			_exit(worker(atoi(argv[2]), atoi(argv[3]), argc > 4 ? argv[4] : ""));
	while (wait(&status) > 0)
		bad |= status;
	printf("done %d\n", bad);
	fflush(stdout);
	pause();
}
