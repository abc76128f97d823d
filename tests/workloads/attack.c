/* attack: what a container does that means harm to an agent. Works in the cgroup2 that is mounted at /cg; where there is
 * none it mounts one itself, as any root without a seccomp profile can. At the end it says "done NUMBER".
 * attack deep LEVELS LENGTH OPENS    nests cgroups with names of so many bytes, and opens files in the innermost
 *        flood SECONDS               makes and removes cgroups as fast as it can; NUMBER of them
 *        many COUNT                  makes cgroups, side by side
 *        opens COUNT                 opens files, each from a cgroup made for it, which is removed
 *        in OPENS ADDRESS PATH...    makes each cgroup, from there opens files and sends a datagram to ADDRESS, port 9000
 *        first WAY [pidns] [helper]  is a container's first process: begins with what is named, and ends by WAY (segfault
 *                                    or exit3) once /go is there
 *        pidns[-cgroup|-outside]     a process that is 1 in a namespace of its own ends in order; its parent is this
 *                                    program, in a cgroup that was just made, or whoever started this program
 *        named                       has a name that is no text, and waits for ever
 * A file that is opened is /attack/NUMBER, and there is none. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(1);
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	must(fd, path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

static int below(int fd, const char *name)
{
	int found = openat(fd, name, O_RDONLY | O_DIRECTORY);

	must(found, name);
	return found;
}

/* The container's own cgroup. */
static int tree(void)
{
	int fd = open("/cg", O_RDONLY | O_DIRECTORY);

	if (fd >= 0 && !faccessat(fd, "cgroup.procs", F_OK, 0))
		return fd;
	must(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP), "unshare");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 0 1");
	write_file("/proc/self/gid_map", "0 0 1");
	must(mount("none", "/tmp", "cgroup2", 0, NULL), "mount cgroup2");
	return below(AT_FDCWD, "/tmp");
}

static void open_files(int from, int count)
{
	char path[32];

	for (int i = from; i < from + count; i++) {
		snprintf(path, sizeof(path), "/attack/%09d", i);
		open(path, O_RDONLY);
	}
}

static void tell(const char *address)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9000)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	inet_pton(AF_INET, address, &there.sin_addr);
	must(sendto(fd, "told", 4, 0, (void *)&there, sizeof(there)), "sendto");
	close(fd);
}

/* A child that begins in a cgroup: no process is moved, which would make each time wait for all CPUs. */
static pid_t fork_into(int cgroup)
{
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = cgroup};
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

	must(pid, "clone3");
	return pid;
}

static void open_in(int cgroup, int from, int count, const char *address)
{
	int status;
	pid_t pid = fork_into(cgroup);

	if (!pid) {
		open_files(from, count);
		if (address)
			tell(address);
		_exit(0);
	}
	must(waitpid(pid, &status, 0), "wait");
	if (status)
		exit(1);
}

static long deep(int levels, int length, int opens)
{
	char name[256];
	int fd = tree();

	memset(name, 'n', length);
	name[length] = 0;
	for (int i = 0; i < levels; i++) {
		must(mkdirat(fd, name, 0755), "mkdir");
		int next = below(fd, name);
		close(fd);
		fd = next;
	}
	open_in(fd, 0, opens, NULL);
	return levels;
}

static long flood(double seconds)
{
	double until = now() + seconds;
	int fd = tree();
	char name[32];
	long made = 0;

	while (now() < until) {
		snprintf(name, sizeof(name), "flood-%ld", made++);
		must(mkdirat(fd, name, 0755), "mkdir");
		must(unlinkat(fd, name, AT_REMOVEDIR), "rmdir");
	}
	return made;
}

static long many(int count)
{
	int fd = tree();
	char name[32];

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "many-%d", i);
		must(mkdirat(fd, name, 0755), "mkdir");
	}
	return count;
}

static long opens(int count)
{
	int fd = tree();
	char name[32];

	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "open-%d", i);
		must(mkdirat(fd, name, 0755), "mkdir");
		int cgroup = below(fd, name);
		open_in(cgroup, i, 1, NULL);
		close(cgroup);
		while (unlinkat(fd, name, AT_REMOVEDIR))
			if (errno != EBUSY)
				must(-1, "rmdir");
	}
	return count;
}

/* Like mkdir -p. */
static int make_all(int fd, char *path)
{
	for (char *part = strtok(path, "/"); part; part = strtok(NULL, "/")) {
		if (mkdirat(fd, part, 0755) && errno != EEXIST)
			must(-1, part);
		fd = below(fd, part);
	}
	return fd;
}

static long in(int count, const char *address, char **paths)
{
	int fd = tree(), made = 0;

	for (; *paths; paths++)
		open_in(make_all(fd, *paths), made++ * count, count, *address ? address : NULL);
	return made;
}

/* A process that is 1 in a namespace of its own ends in order. HOW: its parent is this one; one in a cgroup that was just
 * made, unlike it; or the one that this was started from, which is outside the container. */
static long first_of_namespace(const char *how)
{
	struct clone_args sibling = {.flags = CLONE_PARENT | CLONE_NEWPID};
	bool outside = !strcmp(how, "pidns-outside");
	int status, fd = -1, cgroup = -1;
	pid_t pid;

	if (!strcmp(how, "pidns-cgroup")) {
		fd = tree();
		must(mkdirat(fd, "pidns", 0755), "mkdir");
		cgroup = below(fd, "pidns");
	}
	pid = outside ? 0 : cgroup < 0 ? fork() : fork_into(cgroup);
	if (pid) {
		must(waitpid(pid, &status, 0), "wait");
		return status ? -1 : 1;
	}
	must(unshare(CLONE_NEWUSER | (outside ? 0 : CLONE_NEWPID)), "unshare");
	pid = outside ? syscall(SYS_clone3, &sibling, sizeof(sibling)) : fd < 0 ? fork() : fork_into(fd);
	must(pid, "a process in a namespace of its own");
	if (!pid)
		_exit(getpid() == 1 ? 0 : 9);
	if (outside)
		return 1;
	must(waitpid(pid, &status, 0), "wait");
	_exit(WEXITSTATUS(status));
}

static void named(void)
{
	prctl(PR_SET_NAME, "\xff\xfe\x1b[2J\n\"");
	for (;;)
		pause();
}

static void first(int argc, char **argv)
{
	for (int i = 3; i < argc; i++) {
		if (!strncmp(argv[i], "pidns", 5))
			printf("done %ld\n", first_of_namespace(argv[i]));
		else if (!fork())
			for (;;)
				pause();
	}
	printf("ready\n");
	fflush(stdout);
	while (access("/go", F_OK))
		usleep(10000);
	if (!strcmp(argv[2], "segfault"))
		*(volatile int *)16 = 1;
	exit(3);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long done = -1;

	if (!strcmp(what, "deep") && argc == 5)
		done = deep(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	else if (!strcmp(what, "flood") && argc == 3)
		done = flood(atof(argv[2]));
	else if (!strcmp(what, "many") && argc == 3)
		done = many(atoi(argv[2]));
	else if (!strcmp(what, "opens") && argc == 3)
		done = opens(atoi(argv[2]));
	else if (!strcmp(what, "in") && argc > 4)
		done = in(atoi(argv[2]), argv[3], argv + 4);
	else if (!strncmp(what, "pidns", 5))
		done = first_of_namespace(what);
	else if (!strcmp(what, "named"))
		named();
	else if (!strcmp(what, "first") && argc > 2)
		first(argc, argv);
	printf("done %ld\n", done);
	return done < 0;
}
