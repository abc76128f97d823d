/* signals: signals of each kind that reach a process and that do not, a prime number of times. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY_HERE 4194303

static volatile sig_atomic_t came;

static void count(int number) { came++; }

/* Until a signal comes that is blocked elsewhere. */
static void await(int before)
{
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	while (came == before)
		sigsuspend(&none);
}

static void expect(int result, int error, const char *what)
{
	if ((result ? errno : 0) != error)
		printf("%s: %s instead of %s\n", what, strerror(errno), strerror(error));
}

static void to_child(void)
{
	pid_t child = fork();

	if (!child)
		for (;;)
			pause();
	expect(kill(child, SIGKILL), 0, "kill");
	waitpid(child, NULL, 0);
}

static void fault(void)
{
	pid_t child = fork();

	if (!child)
		*(volatile int *)8 = 1;
	waitpid(child, NULL, 0);
}

static void forbidden(void)
{
	pid_t child = fork();

	if (!child) {
		if (setuid(65534))
			_exit(1);
		_exit(kill(getppid(), SIGUSR2) != -1 || errno != EPERM);
	}
	int status;
	waitpid(child, &status, 0);
	if (status)
		printf("forbidden: %d\n", status);
}

static void from_timer(void)
{
	struct itimerval soon = {.it_value = {.tv_usec = 1000}};
	int before = came;

	setitimer(ITIMER_REAL, &soon, NULL);
	await(before);
}

static void broken_pipe(void)
{
	int fds[2];

	if (pipe(fds))
		return;
	close(fds[0]);
	expect(write(fds[1], "x", 1) < 0 ? -1 : 0, EPIPE, "write");
	close(fds[1]);
}

/* Signals that need room where there is none. */
static void no_room(int count)
{
	struct rlimit before, none;

	getrlimit(RLIMIT_SIGPENDING, &before);
	none = before;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_SIGPENDING, &none);
	while (count--)
		expect(sigqueue(getpid(), 40, (union sigval){0}), EAGAIN, "queue");
	setrlimit(RLIMIT_SIGPENDING, &before);
}

static void pending(void)
{
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR1);
}

int main(void)
{
	struct sigaction action = {.sa_handler = count};
	sigset_t set;

	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGPIPE, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGUSR2, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 11; i++)
		to_child();
	for (int i = 0; i < 7; i++)
		fault();
	for (int i = 0; i < 5; i++)
		forbidden();
	for (int i = 0; i < 13; i++)
		from_timer();
	for (int i = 0; i < 3; i++)
		broken_pipe();
	for (int i = 0; i < 17; i++)
		kill(getpid(), SIGUSR2);
	for (int i = 0; i < 19; i++)
		syscall(SYS_tgkill, getpid(), gettid(), SIGHUP);
	for (int i = 0; i < 23; i++)
		expect(kill(NOBODY_HERE, SIGTERM), ESRCH, "kill nobody");
	for (int i = 0; i < 2; i++)
		expect(kill(getpid(), 99), EINVAL, "kill with 99");
	no_room(29);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pending();
	printf("done\n");
	fflush(stdout);
	return 0;
}
