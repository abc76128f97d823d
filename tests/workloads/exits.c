/* exits: children that end in each way, a prime number of times. Each has the name of its way. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4

static pthread_barrier_t barrier;
static int cores;

static void *end_together(void *unused)
{
	pthread_barrier_wait(&barrier);
	return NULL;
}

static void succeed(void) { _exit(0); }

static void fail(void) { _exit(3); }

static void write_much(void)
{
	char block[1000];

	for (int i = 0; i < 17; i++)
		if (read(open("/dev/zero", 0), block, sizeof(block)) != write(open("/dev/null", 1), block, sizeof(block)))
			_exit(1);
	_exit(0);
}

/* No exit_group: each thread ends alone, and all of them at once. */
static void end_as_threads(void)
{
	pthread_t thread;

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (int i = 1; i < THREADS; i++)
		pthread_create(&thread, NULL, end_together, NULL);
	pthread_barrier_wait(&barrier);
	pthread_exit(NULL);
}

static void stay(void)
{
	for (;;)
		pause();
}

static void fault(void) { *(volatile int *)8 = 1; }

static void signal_itself(void) { raise(SIGUSR1); }

static void dump(void)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_CORE, &all);
	abort();
}

static void end(int count, const char *name, void (*way)(void), int signal)
{
	while (count--) {
		int status, named[2];
		char byte;
		pid_t child;

		if (pipe(named))
			return;
		child = fork();
		if (!child) {
			prctl(PR_SET_NAME, name);
			close(named[0]);
			close(named[1]);
			way();
		}
		close(named[1]);
		if (read(named[0], &byte, 1)) /* the child has its name now */
			return;
		close(named[0]);
		if (signal)
			kill(child, signal);
		waitpid(child, &status, 0);
		cores += WIFSIGNALED(status) && WCOREDUMP(status);
	}
}

int main(void)
{
	struct rlimit none = {0, RLIM_INFINITY};

	setrlimit(RLIMIT_CORE, &none);
	end(101, "succeeds", succeed, 0);
	end(23, "fails", fail, 0);
	end(2, "copies", write_much, 0);
	end(19, "threads", end_as_threads, 0);
	end(13, "terminated", stay, SIGTERM);
	end(11, "killed", stay, SIGKILL);
	end(5, "real-time", stay, 40);
	end(7, "faults", fault, 0);
	end(3, "itself", signal_itself, 0);
	cores = 0;
	end(1, "dumps", dump, 0);
	printf("cores %d\ndone\n", cores);
	fflush(stdout);
	return 0;
}
