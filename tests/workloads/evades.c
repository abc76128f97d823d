/* evades HOW: does what rules are about in ways that they might not see.
 *   parent       reads FILE in a process that is its parent's child: clone(CLONE_PARENT)
 *   thread       reads FILE in a thread's program: a second thread executes this program
 *   become NAME  reads FILE, and executes NAME at once
 *   long         reads FILE by a relative path of 4 KiB, in its folder
 *   rename TO    renames FILE, both by paths of 4 KiB
 *   socket       connects to FILE by its name alone, in its folder
 *   user         makes a process in a user namespace of its own
 *   read, read32 reads FILE, as a program of 32 bits does
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *file;

static int must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static void read_file(void)
{
	close(must(open(file, O_RDONLY), file));
}

/* So many bytes with a path that leads where path does. */
static char *padded(const char *path, int bytes)
{
	char *whole = malloc(bytes + 1);
	int at = 0;

	if (*path == '/')
		whole[at++] = *path++;
	while (at + 2 + (int)strlen(path) <= bytes) {
		memcpy(whole + at, "./", 2);
		at += 2;
	}
	strcpy(whole + at, path);
	return whole;
}

static void begin_child(unsigned long flags)
{
	if (!must(syscall(SYS_clone, flags, 0, 0, 0, 0), "clone")) {
		usleep(1000);
		read_file();
		_exit(0);
	}
	usleep(100000);
}

static void *execute(void *arguments)
{
	must(execv("/proc/self/exe", arguments), "execv");
	return NULL;
}

static void read_in_32_bits(void)
{
#if defined(__x86_64__)
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long result;

	strcpy(low, file);
	asm volatile("int $0x80" : "=a"(result) : "a"(5), "b"(low), "c"(0), "d"(0) : "memory");
	must(result, "open");
#else
	read_file();
#endif
}

int main(int argc, char **argv)
{
	const char *how = argv[1];
	char *folder = argc > 2 ? dirname(strdup(argv[2])) : "/", *name = argc > 2 ? basename(strdup(argv[2])) : "";

	file = argv[2];
	if (!strcmp(how, "parent"))
		begin_child(CLONE_PARENT | SIGCHLD);
	if (!strcmp(how, "user"))
		begin_child(CLONE_NEWUSER | SIGCHLD);
	if (!strcmp(how, "read"))
		read_file();
	if (!strcmp(how, "read32"))
		read_in_32_bits();
	if (!strcmp(how, "thread")) {
		char *arguments[] = {"evades", "read", argv[2], NULL};
		pthread_t thread;

		pthread_create(&thread, NULL, execute, arguments);
		pause();
	}
	if (!strcmp(how, "become")) {
		char *arguments[] = {basename(argv[3]), "-c", "true", NULL};

		read_file();
		must(execv(argv[3], arguments), argv[3]);
	}
	if (!strcmp(how, "long")) {
		must(chdir(folder), folder);
		file = padded(name, 4095);
		read_file();
	}
	if (!strcmp(how, "rename"))
		must(rename(padded(argv[2], 4095), padded(argv[3], 4095)), "rename");
	if (!strcmp(how, "socket")) {
		struct sockaddr_un address = {AF_UNIX, ""};
		int server = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

		must(chdir(folder), folder);
		stpncpy(address.sun_path, name, sizeof(address.sun_path) - 1);
		must(bind(server, (void *)&address, sizeof(address)), "bind");
		must(listen(server, 1), "listen");
		must(connect(must(socket(AF_UNIX, SOCK_STREAM, 0), "socket"), (void *)&address, sizeof(address)),
		     "connect");
	}
	return 0;
}
