// Waits for what its first argument says. "child NAME" execs NAME in a child and waits for it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *hold(void *arg)
{
	pthread_mutex_lock(&mutex);
	*(volatile int *)arg = 1;
	for (;;)
		pause();
}

static int server(unsigned short port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (void *)&at, sizeof(at)) || listen(fd, 1))
		exit(2);
	return fd;
}

static int client(unsigned short port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (void *)&at, sizeof(at)))
		exit(3);
	return fd;
}

static void lock_file(void)
{
	int fd = open("/tmp/lock", O_RDWR | O_CREAT, 0600);

	flock(fd, LOCK_EX);
}

int main(int argc, char **argv)
{
	const char *what = argv[1];
	char byte;

	if (!strcmp(what, "mutex")) {
		volatile int ready = 0;
		pthread_t thread;

		pthread_create(&thread, NULL, hold, (void *)&ready);
		pthread_setname_np(thread, "holder");
		while (!ready)
			usleep(1000);
		pthread_mutex_lock(&mutex);
	} else if (!strcmp(what, "flock")) {
		if (fork()) {
			sleep(1);
			lock_file();
		} else {
			lock_file();
			pause();
		}
	} else if (!strcmp(what, "read")) {
		server(4321);
		read(client(4321), &byte, 1);
	} else if (!strcmp(what, "poll")) {
		struct pollfd polled = {.events = POLLIN};

		server(4321);
		polled.fd = client(4321);
		poll(&polled, 1, -1);
	} else if (!strcmp(what, "child")) {
		if (!fork())
			execv(argv[2], argv + 2);
		wait(NULL);
	} else if (!strcmp(what, "files")) {
		struct rlimit limit = {64, 64};

		setrlimit(RLIMIT_NOFILE, &limit);
		while (open("/dev/null", O_RDONLY) >= 0)
			;
		pause();
	}
	return 0;
}
