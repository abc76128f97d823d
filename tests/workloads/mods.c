/* mods: changes of files and directories, each a prime number of times, by paths of each kind and by descriptors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static void expect(long result, int error, const char *what)
{
	if ((result < 0 ? errno : 0) != error)
		printf("%s: %s instead of %s\n", what, strerror(result < 0 ? errno : 0), strerror(error));
}

static char whole[4096];

/* A name in the folder, as an absolute path. */
static const char *absolute(const char *name)
{
	static char path[8192];

	snprintf(path, sizeof(path), "%s/mods/%s", whole, name);
	return path;
}

static void in_vain(void)
{
	expect(unlink("mods/none"), ENOENT, "unlink");
	expect(rename(absolute("none"), "mods/other"), ENOENT, "rename");
	expect(rmdir("mods"), ENOTEMPTY, "rmdir");
	expect(ftruncate(1000, 5), EBADF, "ftruncate");
	expect(chmod("", 0600), ENOENT, "chmod");
	expect(unlinkat(1000, "file", 0), EBADF, "unlinkat");
}

static void make_and_remove(int dir)
{
	for (int i = 0; i < 13; i++) {
		expect(mkdirat(dir, "sub", 0711), 0, "mkdirat");
		expect(unlinkat(dir, "sub", AT_REMOVEDIR), 0, "unlinkat directory");
	}
	for (int i = 0; i < 5; i++) {
		expect(mkdir(absolute("next"), 0700), 0, "mkdir");
		expect(rmdir("./mods/next"), 0, "rmdir");
		expect(link("mods/file", "mods/hard"), 0, "link");
		expect(unlink(absolute("hard")), 0, "unlink");
		expect(symlink("../mods/file", "mods/soft"), 0, "symlink");
		expect(unlinkat(dir, "soft", 0), 0, "unlinkat");
	}
	for (int i = 0; i < 7; i++) {
		expect(rename("mods/file", absolute("moved")), 0, "rename");
		expect(renameat(dir, "moved", AT_FDCWD, "mods/file"), 0, "renameat");
		expect(syscall(SYS_renameat2, dir, "file", dir, "file", 1), EEXIST, "renameat2");
	}
}

static void change(int dir, int file)
{
	for (int i = 0; i < 17; i++) {
		expect(truncate("mods/file", 4711), 0, "truncate");
		expect(ftruncate(file, 47), 0, "ftruncate");
	}
	for (int i = 0; i < 19; i++) {
		expect(chmod("mods/file", 0640), 0, "chmod");
		expect(fchmod(file, 04600), 0, "fchmod");
		expect(fchownat(file, "", 1234, -1, AT_EMPTY_PATH), 0, "fchownat");
		expect(chown(absolute("file"), -1, 99), 0, "chown");
	}
	for (int i = 0; i < 3; i++) {
		expect(futimens(file, NULL), 0, "futimens");
		expect(utimensat(dir, "file", NULL, 0), 0, "utimensat");
		setxattr("mods/file", "trusted.memo", "x", 1, 0); /* not every file system has them */
		fsetxattr(file, "trusted.more", "x", 1, 0);
		removexattr("mods/file", "trusted.memo");
	}
}

int main(void)
{
	int dir, file;

	if (!getcwd(whole, sizeof(whole)))
		return 1;
	expect(mkdir("mods", 0755), 0, "mkdir");
	dir = open("mods", O_RDONLY | O_DIRECTORY);
	file = openat(dir, "file", O_CREAT | O_RDWR, 0644);
	make_and_remove(dir);
	change(dir, file);
	for (int i = 0; i < 23; i++)
		in_vain();
	unlinkat(dir, "file", 0);
	expect(ftruncate(file, 11), 0, "ftruncate of a file that is gone");
	expect(chroot("mods"), 0, "chroot");
	for (int i = 0; i < 2; i++)
		expect(chmod("/file", 0644), ENOENT, "chmod below a root");
	expect(rmdir(".."), ENOTEMPTY, "rmdir");
	printf("done\n");
	fflush(stdout);
	return 0;
}
