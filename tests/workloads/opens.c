/* opens: each kind of open, and of failure, a prime number of times. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct open_how {
	unsigned long long flags, mode, resolve;
};

static void times(int count, int (*call)(void))
{
	while (count--) {
		int fd = call();
		if (fd >= 0)
			close(fd);
	}
}

static int plain(void) { return openat(AT_FDCWD, "/tmp/file", O_RDONLY | O_CLOEXEC); }
static int missing(void) { return openat(AT_FDCWD, "/tmp/missing", O_RDONLY); }
static int no_directory(void) { return openat(AT_FDCWD, "/tmp/file/below", O_RDONLY); }
static int directory(void) { return openat(AT_FDCWD, "/tmp", O_WRONLY); }
static int exists(void) { return openat(AT_FDCWD, "/tmp/file", O_CREAT | O_EXCL | O_RDWR, 0640); }
static int link_itself(void) { return openat(AT_FDCWD, "/tmp/link", O_NOFOLLOW); }
static int bad_path(void) { return openat(AT_FDCWD, (char *)8, O_RDONLY); }
static int relative(void) { return openat(AT_FDCWD, "./file", O_RDWR | O_SYNC | O_APPEND); }
#ifdef SYS_open
static int creat_it(void) { return syscall(SYS_creat, "/tmp/made", 0604); }
static int old_open(void) { return syscall(SYS_open, "/tmp/file", O_WRONLY | O_NONBLOCK); }
#else /* arm64 has only the newer calls */
static int creat_it(void) { return creat("/tmp/made", 0604); }
static int old_open(void) { return open("/tmp/file", O_WRONLY | O_NONBLOCK); }
#endif
static int second(void)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY};
	return syscall(SYS_openat2, AT_FDCWD, "/tmp", &how, sizeof(how));
}
static int below(void)
{
	static int parent;
	if (!parent)
		parent = openat(AT_FDCWD, "/tmp/deep/deeper", O_PATH);
	return openat(parent, "leaf", O_CREAT | O_RDWR, 0600);
}

int main(void)
{
	close(creat("/tmp/file", 0600));
	symlink("/tmp/file", "/tmp/link");
	chdir("/tmp");
	system("/bin/busybox mkdir -p /tmp/deep/deeper");
	times(101, plain);
	times(13, missing);
	times(7, no_directory);
	times(5, directory);
	times(3, exists);
	times(11, link_itself);
	times(2, bad_path);
	times(17, relative);
	times(19, creat_it);
	times(23, old_open);
	times(29, second);
	times(31, below);
	printf("done\n");
	fflush(stdout);
	pause();
}
