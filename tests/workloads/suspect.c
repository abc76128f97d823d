/* suspect FILES|SOCKETS|PRIVILEGES|PROCESSES: calls that rules judge, each in its forms, also in vain. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESOLVE_IN_ROOT 0x10
#define SYS_FCHMODAT2   452

/* arm64 lacks the older calls: libc makes others of them there. */
#ifdef SYS_open
#define OLDER(call, ...) syscall(SYS_##call, __VA_ARGS__)
#else
#define OLDER(call, ...) call(__VA_ARGS__)
#endif

static long expect(long result, int error, const char *what)
{
	if ((result < 0 ? errno : 0) != error)
		printf("%s: %s instead of %s\n", what, strerror(result < 0 ? errno : 0), strerror(error));
	return result;
}

/* For a reason that differs between kernels. */
static void fails(long result, const char *what)
{
	if (result >= 0)
		printf("%s: succeeded\n", what);
}

static void opens(int dir)
{
	uint64_t how[3] = {O_RDONLY, 0, RESOLVE_IN_ROOT};

	expect(OLDER(open, "file", O_RDWR | O_CREAT, 0640), 0, "open"); /* 4 */
	expect(OLDER(open, "none", O_RDONLY, 0640), ENOENT, "open in vain");
	expect(syscall(SYS_openat, dir, "./file", O_WRONLY | O_TRUNC | O_CLOEXEC), 0, "openat"); /* 5 */
	expect(syscall(SYS_openat, 1000, "none", O_RDONLY), EBADF, "openat in vain");
	expect(syscall(SYS_openat2, dir, "/file", how, sizeof(how)), 0, "openat2"); /* 6 */
	expect(syscall(SYS_openat2, dir, "/none", how, sizeof(how)), ENOENT, "openat2 in vain");
	expect(OLDER(creat, "made", 0751), 0, "creat"); /* 7 */
	expect(OLDER(creat, "/not/there", 0751), ENOENT, "creat in vain");
}

static void files(void)
{
	int dir = expect(syscall(SYS_openat, AT_FDCWD, ".", O_DIRECTORY), 0, "openat directory"); /* 3 */

	opens(dir);
	expect(OLDER(chmod, "file", 04711), 0, "chmod");
	expect(OLDER(chmod, "none", 04711), ENOENT, "chmod in vain");
	expect(syscall(SYS_fchmod, 4, 0755), 0, "fchmod");
	expect(syscall(SYS_fchmodat, dir, "file", 0600), 0, "fchmodat");
	if (syscall(SYS_FCHMODAT2, dir, "file", 0640, 0)) /* since Linux 6.6 */
		expect(syscall(SYS_fchmodat, dir, "file", 0640), 0, "fchmodat");
	expect(OLDER(link, "file", "hard"), 0, "link");
	expect(syscall(SYS_linkat, dir, "file", AT_FDCWD, "none/hard", 0), ENOENT, "linkat in vain");
	expect(OLDER(symlink, "../etc", "soft"), 0, "symlink");
	expect(syscall(SYS_symlinkat, "/etc/shadow", dir, "soft"), EEXIST, "symlinkat in vain");
	expect(OLDER(rename, "hard", "moved"), 0, "rename");
	expect(syscall(SYS_renameat, dir, "moved", dir, "hard"), 0, "renameat");
	expect(syscall(SYS_renameat2, dir, "hard", AT_FDCWD, "file", 1), EEXIST, "renameat2 in vain");
	expect(OLDER(unlink, "hard"), 0, "unlink");
	expect(syscall(SYS_unlinkat, dir, "soft", 0), 0, "unlinkat");
	expect(OLDER(mkdir, "sub", 01711), 0, "mkdir");
	expect(syscall(SYS_mkdirat, dir, "sub/sub", 0700), 0, "mkdirat");
	expect(OLDER(rmdir, "sub"), ENOTEMPTY, "rmdir in vain");
	expect(syscall(SYS_unlinkat, dir, "sub/sub", AT_REMOVEDIR), 0, "unlinkat directory");
	expect(OLDER(rmdir, "sub"), 0, "rmdir");
	expect(syscall(SYS_dup, 4), 0, "dup"); /* 8 */
	expect(OLDER(dup2, dir, 20), 0, "dup2");
	expect(syscall(SYS_dup3, 1000, 21, 0), EBADF, "dup3 in vain");
}

static struct sockaddr_in ip4(int port)
{
	return (struct sockaddr_in){AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
}

static void connections(void)
{
	struct sockaddr_in server = ip4(7001), client = ip4(7002), closed = ip4(7003);
	int listener = expect(socket(AF_INET, SOCK_STREAM, 0), 0, "socket"), one = 1, end; /* 3 */

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	expect(bind(listener, (void *)&server, sizeof(server)), 0, "bind");
	expect(bind(listener, (void *)&client, sizeof(client)), EINVAL, "bind in vain");
	expect(listen(listener, 5), 0, "listen");
	end = expect(socket(AF_INET, SOCK_STREAM, 0), 0, "socket"); /* 4 */
	expect(bind(end, (void *)&client, sizeof(client)), 0, "bind");
	expect(connect(end, (void *)&server, sizeof(server)), 0, "connect");
	expect(accept4(listener, NULL, NULL, SOCK_CLOEXEC), 0, "accept4"); /* 5 */
	expect(sendto(end, "hello", 5, 0, (void *)&closed, sizeof(closed)), 0, "sendto");
	expect(recvfrom(5, &server, sizeof(server), 0, NULL, NULL), 0, "recvfrom");
	expect(dup2(end, 0), 0, "dup2");
	end = expect(socket(AF_INET, SOCK_STREAM, 0), 0, "socket"); /* 6 */
	expect(connect(end, (void *)&closed, sizeof(closed)), ECONNREFUSED, "connect in vain");
	fcntl(listener, F_SETFL, O_NONBLOCK);
	expect(accept(listener, NULL, NULL), EAGAIN, "accept in vain");
}

static void datagrams(void)
{
	struct sockaddr_in first = ip4(7003), second = ip4(7004);
	struct sockaddr_in6 six = {AF_INET6, htons(7005), 0, IN6ADDR_LOOPBACK_INIT, 0};
	struct iovec whole = {"query", 5};
	struct msghdr message = {&second, sizeof(second), &whole, 1, NULL, 0, 0};
	struct mmsghdr several = {{&first, sizeof(first), &whole, 1, NULL, 0, 0}, 0};
	int end = expect(socket(AF_INET, SOCK_DGRAM, 0), 0, "socket"); /* 7 */

	for (int i = 0; i < 2; i++)
		expect(sendto(end, "query", 5, 0, (void *)&first, sizeof(first)), 0, "sendto");
	expect(sendmsg(end, &message, 0), 0, "sendmsg");
	expect(sendmmsg(end, &several, 1, 0), 0, "sendmmsg");
	end = expect(socket(AF_INET, SOCK_DGRAM, 0), 0, "socket"); /* 8 */
	expect(connect(end, (void *)&first, sizeof(first)), 0, "connect");
	expect(sendto(end, "query", 5, 0, NULL, 0), 0, "sendto");
	end = expect(socket(AF_INET6, SOCK_DGRAM, 0), 0, "socket"); /* 9 */
	expect(sendto(end, "query", 5, 0, (void *)&six, sizeof(six)), 0, "sendto");
	inet_pton(AF_INET6, "::ffff:127.0.0.1", &six.sin6_addr);
	expect(sendto(end, "query", 5, 0, (void *)&six, sizeof(six)), 0, "sendto");
}

static void names(void)
{
	struct sockaddr_un path = {AF_UNIX, "sock"}, hidden = {AF_UNIX, "\0hidden"};
	char said[100], heard[200];
	struct iovec whole = {heard, sizeof(heard)};
	struct msghdr message = {NULL, 0, &whole, 1, NULL, 0, 0};
	int listener = expect(socket(AF_UNIX, SOCK_STREAM, 0), 0, "socket"), end; /* 10 */

	memset(said, 'h', sizeof(said));
	expect(bind(listener, (void *)&path, sizeof(path)), 0, "bind");
	expect(listen(listener, 5), 0, "listen");
	end = expect(socket(AF_UNIX, SOCK_STREAM, 0), 0, "socket"); /* 11 */
	expect(connect(end, (void *)&path, sizeof(path.sun_family) + 4), 0, "connect");
	expect(accept(listener, NULL, NULL), 0, "accept"); /* 12 */
	expect(sendto(end, said, sizeof(said), 0, NULL, 0), 0, "sendto");
	expect(recvmsg(12, &message, 0), 0, "recvmsg");
	end = expect(socket(AF_UNIX, SOCK_STREAM, 0), 0, "socket"); /* 13 */
	expect(connect(end, (void *)&hidden, sizeof(hidden.sun_family) + 7), ECONNREFUSED, "connect in vain");
	expect(socket(AF_NETLINK, SOCK_RAW, 0), 0, "socket"); /* 14 */
	expect(socket(AF_INET, 99, 0), EINVAL, "socket in vain");
	expect(connect(1000, (void *)&path, sizeof(path)), EBADF, "connect in vain");
}

static void privileges(void)
{
	uint64_t how[8] = {CLONE_NEWUSER | CLONE_NEWNET, [4] = SIGCHLD}; /* struct clone_args */
	int memo;

	expect(unshare(CLONE_NEWUTS), 0, "unshare");
	if (!expect(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), 0, "clone"))
		_exit(0);
	if (!expect(syscall(SYS_clone3, how, sizeof(how)), 0, "clone3"))
		_exit(0);
	expect(syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL, "clone in vain");
	wait(NULL);
	wait(NULL);
	expect(syscall(SYS_openat, AT_FDCWD, "/proc/self/ns/uts", O_RDONLY), 0, "openat"); /* 3 */
	expect(setns(3, CLONE_NEWUTS), 0, "setns");
	expect(setns(1000, CLONE_NEWNET), EBADF, "setns in vain");
	expect(syscall(SYS_ptrace, 16, 4194303, 0, 0), ESRCH, "ptrace");
	expect(syscall(SYS_setuid, 0), 0, "setuid");
	fails(syscall(SYS_bpf, 5, NULL, 0), "bpf");
	fails(syscall(SYS_bpf, 1, NULL, 0), "bpf of an element");
	fails(syscall(SYS_userfaultfd, 1 << 30), "userfaultfd");
	memo = expect(syscall(SYS_memfd_create, "memo", 0), 0, "memfd_create"); /* 4 */
	fails(syscall(SYS_init_module, "", 0, "debug=1"), "init_module");
	fails(syscall(SYS_finit_module, memo, "debug=2", 0), "finit_module");
	expect(syscall(SYS_mount, "none", "not/there", "tmpfs", 0, NULL), ENOENT, "mount");
	expect(syscall(SYS_umount2, "/not/there", 2), ENOENT, "umount2");
}

/* Ends at once if it is the program that another one began. */
static void processes(const char *self)
{
	char *again[] = {"again", "and", "", "once", NULL}, *none[] = {"none", NULL}, *home[] = {"HOME=/tmp", "A=b", NULL};
	char bytes[1 << 16];
	int memo, file;
	ssize_t size;

	expect(chdir("/"), 0, "chdir");
	if (!fork()) {
		setsid();
		expect(execve("not/there", none, home), ENOENT, "execve in vain");
		expect(execve(self, again, home), 0, "execve");
		_exit(1);
	}
	wait(NULL);
	memo = expect(memfd_create("memo", MFD_CLOEXEC), 0, "memfd_create");
	file = expect(open(self, O_RDONLY), 0, "open");
	while ((size = read(file, bytes, sizeof(bytes))) > 0)
		expect(write(memo, bytes, size), 0, "write");
	if (!vfork()) {
		syscall(SYS_execveat, memo, "", again, home, AT_EMPTY_PATH);
		_exit(1);
	}
	wait(NULL);
}

int main(int argc, char **argv)
{
	if (!strcmp(argv[0], "again"))
		return 7;
	if (!strcmp(argv[1], "files"))
		files();
	if (!strcmp(argv[1], "sockets")) {
		connections();
		datagrams();
		names();
	}
	if (!strcmp(argv[1], "privileges"))
		privileges();
	if (!strcmp(argv[1], "processes"))
		processes(argv[2]);
	printf("done\n");
	return 0;
}
