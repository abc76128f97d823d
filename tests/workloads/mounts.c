/* mounts: mounts and unmounts in each way that they end, a prime number of times. It makes a mount namespace of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/mount.h, which does not go with sys/mount.h everywhere */
#define CLOSE_ON_EXEC        1
#define CREATE               6
#define FROM_DESCRIPTOR      4
#define NO_SUID              2
#define CLONE_OF_TREE        1

static void expect(long result, int error, const char *what)
{
	if ((result < 0 ? errno : 0) != error)
		printf("%s: %s instead of %s\n", what, strerror(errno), strerror(error));
}

static void old_way(void)
{
	expect(mount("shelf", "/tmp/place", "tmpfs", MS_NOSUID | MS_RDONLY, "size=64k"), 0, "mount");
	expect(mount("/tmp/place", "/tmp/other", NULL, MS_BIND | MS_REC, NULL), 0, "bind");
	expect(umount2("/tmp/other", MNT_DETACH), 0, "umount2");
	expect(umount2("/tmp/place", 0), 0, "umount");
}

static void new_way(void)
{
	int fs = syscall(SYS_fsopen, "tmpfs", CLOSE_ON_EXEC), fd;

	expect(fs, 0, "fsopen");
	expect(syscall(SYS_fsconfig, fs, CREATE, NULL, NULL, 0), 0, "fsconfig");
	fd = syscall(SYS_fsmount, fs, CLOSE_ON_EXEC, NO_SUID);
	expect(fd, 0, "fsmount");
	expect(syscall(SYS_move_mount, fd, "", AT_FDCWD, "/tmp/place", FROM_DESCRIPTOR), 0, "move_mount");
	close(fd);
	close(fs);
	fd = syscall(SYS_open_tree, AT_FDCWD, "/tmp/place", CLONE_OF_TREE);
	expect(fd, 0, "open_tree");
	close(fd);
	expect(umount2("/tmp/place", UMOUNT_NOFOLLOW), 0, "umount");
}

static void in_vain(void)
{
	expect(mount("none", "/tmp/not/there", "tmpfs", 0, NULL), ENOENT, "no place");
	expect(mount("none", "/tmp/place", "nosuchfs", 0, NULL), ENODEV, "no type");
	expect(umount2("/tmp/place", MNT_FORCE), EINVAL, "no mount");
	expect(syscall(SYS_fsmount, 1000, 0, 0), EBADF, "no descriptor");
}

int main(void)
{
	mkdir("/tmp/place", 0755);
	mkdir("/tmp/other", 0755);
	expect(unshare(CLONE_NEWNS), 0, "unshare");
	expect(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "private");
	for (int i = 0; i < 13; i++)
		old_way();
	for (int i = 0; i < 7; i++)
		new_way();
	for (int i = 0; i < 5; i++)
		in_vain();
	rmdir("/tmp/place");
	rmdir("/tmp/other");
	printf("done\n");
	fflush(stdout);
	return 0;
}
