/* odd_opens: opens out of the ordinary in its working directory, each a prime number of times. Needs root.
 * odd_opens UID: as that user tries to open 13 files that are not there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESOLVE_IN_ROOT 0x10 /* linux/openat2.h */

struct open_how {
	unsigned long long flags, mode, resolve;
};

static char *page;
static int deep;

static void times(int count, int (*call)(void))
{
	while (count--) {
		int fd = call();
		if (fd >= 0)
			close(fd);
	}
}

static void must(int result, const char *what)
{
	if (result < 0)
		perror(what);
}

static int second(int directory, const char *path, struct open_how how)
{
	return syscall(SYS_openat2, directory, path, &how, sizeof(how));
}

static void on_alarm(int number) {}
static void write_end(int number) { open("again", O_RDWR); }

static void alarm_soon(void (*handler)(int), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
	struct itimerval soon = {.it_value.tv_usec = 20000};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
}

static int interrupted(void)
{
	alarm_soon(on_alarm, 0);
	return open("fifo", O_RDONLY);
}

static int restarted(void)
{
	alarm_soon(write_end, SA_RESTART);
	return open("again", O_RDONLY);
}

/* A path in a page that the kernel is the first to touch. */
static int untouched(void)
{
	madvise(page, 4096, MADV_DONTNEED);
	return open(page, O_RDONLY);
}

static int in_root(void) { return second(deep, "/leaf", (struct open_how){.resolve = RESOLVE_IN_ROOT}); }
static int in_root_relative(void) { return second(deep, "leaf", (struct open_how){.resolve = RESOLVE_IN_ROOT}); }
static int made(void) { return second(AT_FDCWD, "made", (struct open_how){.flags = O_CREAT | O_WRONLY, .mode = 0620}); }
static int exists(void)
{
	return second(AT_FDCWD, "made", (struct open_how){.flags = O_CREAT | O_EXCL | O_RDWR, .mode = 0604});
}
static int bad_how(void) { return second(AT_FDCWD, "bad", (struct open_how){.resolve = 1 << 30}); }
static int no_name(void) { return open(".", O_TMPFILE | O_RDWR, 0640); }
static int direct(void) { return open("/dev/null", O_DIRECT); }
static int bad_directory(void) { return openat(999, "leaf", O_RDONLY); }
static int inside(void) { return open("/inside", O_RDONLY); }
static int leaf(void) { return open("leaf", O_RDONLY); }
static int none(void) { return syscall(-1, "none", O_RDONLY); }
static int missing(void) { return open("missing", O_RDONLY); }

int main(int argc, char **argv)
{
	if (argc > 1) {
		must(setuid(atoi(argv[1])), "setuid");
		times(13, missing);
		printf("done\n");
		return 0;
	}
	must(mkfifo("fifo", 0600), "fifo");
	times(3, interrupted);
	must(mkfifo("again", 0600), "fifo");
	times(1, restarted);
	must(mkdir("deep", 0700), "mkdir");
	deep = open("deep", O_PATH);
	close(openat(deep, "leaf", O_CREAT | O_WRONLY, 0600));
	times(5, in_root);
	times(2, in_root_relative);
	times(7, made);
	times(11, exists);
	times(13, bad_how);
	times(17, no_name);
	times(19, direct);
	int fd = open("page", O_CREAT | O_RDWR, 0600);
	must(write(fd, "untouched", 10), "write");
	must(ftruncate(fd, 4096), "truncate");
	page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	times(23, untouched);
	times(29, bad_directory);
	times(31, none);
	if (fork() == 0) {
		must(mkdir("gone", 0700), "mkdir");
		must(chdir("gone"), "chdir");
		must(rmdir("../gone"), "rmdir");
		times(37, leaf);
		_exit(0);
	}
	wait(NULL);
	if (fork() == 0) {
		must(mkdir("jail", 0700), "mkdir");
		must(chroot("jail"), "chroot");
		times(41, inside);
		_exit(0);
	}
	wait(NULL);
	printf("done\n");
	return 0;
}
