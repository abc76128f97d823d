/* ends WAY: makes some system calls, and ends in one of several ways. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Calls of every kind of argument, the same in each run. */
static void varied(int rounds)
{
	for (int i = 0; i < rounds; i++) {
		char text[64], path[300];
		int fds[2], length = snprintf(text, sizeof(text), "line %d of the log\n", i);
		struct stat info;
		struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/tmp/no such socket"};
		struct timespec nap = {.tv_nsec = 1000};

		int fd = open("/tmp/log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
		write(fd, text, length);
		close(fd);
		fd = open("/tmp/log", O_RDONLY);
		pread(fd, text, 20, 0);
		lseek(fd, 5, SEEK_SET);
		read(fd, text, 10);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		close(fd);
		open("/tmp/nothing", O_RDWR | O_EXCL);
		memset(path, 'p', sizeof(path) - 1);
		path[sizeof(path) - 1] = path[0] = 0;
		access("/etc/nothing", R_OK | W_OK);
		mkdir("/tmp/folder", 0751);
		rename("/tmp/folder", "/tmp/other");
		unlink("/tmp/other");
		rmdir("/tmp/other");
		symlink("/tmp/log", "/tmp/link");
		readlink("/tmp/link", path, sizeof(path));
		unlink("/tmp/link");
		chmod("/tmp/log", 0600);
		pipe2(fds, O_CLOEXEC);
		write(fds[1], "a\tb\"c\\d\1\377", 9);
		read(fds[0], text, sizeof(text));
		close(fds[0]);
		close(fds[1]);
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		connect(fd, (struct sockaddr *)&address, sizeof(address));
		close(fd);
		mprotect((void *)0x1000, 4096, PROT_READ | PROT_EXEC);
		kill(getpid(), 0);
		nanosleep(&nap, NULL);
		getcwd(path, sizeof(path));
		fd = open("/tmp", O_RDONLY | O_DIRECTORY);
		fstat(fd, &info);
		close(fd);
		close(-1);
	}
}

static int per_thread;

/* Each call tells which one of its thread it is, and of which thread, also in a text that takes further slots; in bursts, so
 * that a reader has its turn. */
static void *count_paths(void *unused)
{
	char path[200];
	struct timespec nap = {.tv_nsec = 1000000};

	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	for (int i = 0; i < per_thread; i++) {
		path[snprintf(path, sizeof(path), "/%d/%d", 1000000 + i, gettid())] = '/';
		unlinkat(1000000 + i, path, 0);
		if (i % 16 == 0)
			nanosleep(&nap, NULL);
	}
	return NULL;
}

/* Each call tells which one of its thread it is. */
static void *count(void *unused)
{
	for (int i = 0; i < per_thread; i++)
		close(1000000 + i);
	return NULL;
}

static int stay(void *unused)
{
	for (;;)
		pause();
	return 0;
}

/* Another process in the same memory. */
static void share_memory(void)
{
	static char stack[65536];

	if (clone(stay, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL) < 0)
		exit(1);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "";

	if (!strcmp(way, "varied")) {
		varied(atoi(argv[2]));
		return 0;
	}
	if (!strcmp(way, "threads") || !strcmp(way, "paths")) {
		void *(*work)(void *) = !strcmp(way, "paths") ? count_paths : count;
		pthread_t threads[4];
		per_thread = atoi(argv[2]);
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, work, NULL);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		return 0;
	}
	if (!strcmp(way, "steady")) { /* one call a millisecond, each with its number, for ever */
		struct timespec nap = {.tv_nsec = 1000000};
		for (int i = 0;; i++) {
			close(1000000 + i);
			nanosleep(&nap, NULL);
		}
	}
	write(1, "begin\n", 6);
	access("/etc/app.conf", R_OK);
	if (!strcmp(way, "segfault"))
		*(volatile int *)16 = 1;
	if (!strcmp(way, "exit3"))
		exit(3);
	if (!strcmp(way, "read")) {
		int fds[2];
		char byte;
		pipe(fds);
		read(fds[0], &byte, 1);
	}
	if (!strcmp(way, "oom shared"))
		share_memory();
	if (!strncmp(way, "oom", 3))
		for (;;)
			memset(malloc(1 << 20), 1, 1 << 20);
	pause();
}
