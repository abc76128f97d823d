/* exits: children that end in each way, a prime number of times. Each has the name of its way. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
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

static void write_to_nobody(void)
{
	int fds[2];

	if (pipe(fds) || close(fds[0]))
		_exit(1);
	_exit(write(fds[1], "x", 1));
}

static void write_too_much(void)
{
	struct rlimit none = {0, RLIM_INFINITY};

	setrlimit(RLIMIT_FSIZE, &none);
	_exit(write(memfd_create("file", 0), "x", 1));
}

static void let_timer_end(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
	struct itimerspec soon = {.it_value.tv_nsec = 1000};
	timer_t timer;

	if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &soon, NULL))
		_exit(1);
	stay();
}

static void dump(void)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_CORE, &all);
	abort();
}

/* Send a signal, as a library does that has read or written for its caller: with the code of a kernel's own. */
static void queue(pid_t process, int signal)
{
	siginfo_t info = {.si_code = SI_ASYNCIO};

	syscall(SYS_rt_sigqueueinfo, process, signal, &info);
}

/* A signal below 0 is queued. */
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
		if (signal > 0)
			kill(child, signal);
		if (signal < 0)
			queue(child, -signal);
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
	end(17, "pipe", write_to_nobody, 0);
	end(29, "too big", write_too_much, 0);
	end(31, "timer", let_timer_end, 0);
	end(37, "queued", stay, -SIGUSR2);
	cores = 0;
	end(1, "dumps", dump, 0);
	printf("cores %d\ndone\n", cores);
	fflush(stdout);
	return 0;
}
