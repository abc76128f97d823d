/* calls: system calls of many kinds, always the same, for comparing with strace. It runs in an empty directory. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char buffer[8192];
static const struct timespec moment = {.tv_nsec = 1000};

static void files(void)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	struct timespec times[] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
	int directory, fd;

	open("missing", O_RDONLY);
	fd = open("file", O_RDWR | O_CREAT | O_TRUNC | O_SYNC, 0640);
	open(".", O_RDWR | O_TMPFILE, 0600);
	directory = open(".", O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	open(".", 0x80000000 | O_ACCMODE);
	syscall(SYS_openat2, directory, "missing", &how, sizeof(how));
	access("missing", F_OK);
	access("file", R_OK | W_OK);
	faccessat(AT_FDCWD, "file", R_OK, AT_EACCESS);
	mkdirat(directory, "folder", 0755);
	fchmodat(directory, "folder", 0, 0);
	umask(022);
	unlinkat(AT_FDCWD, "folder", AT_REMOVEDIR);
	mknodat(directory, "pipe", S_IFIFO | 0600, 0);
	mknodat(directory, "pipe", S_IFCHR | 0600, 0x105);
	renameat2(directory, "pipe", AT_FDCWD, "other", RENAME_NOREPLACE);
	symlinkat("target", directory, "link");
	readlinkat(directory, "link", buffer, 100);
	linkat(AT_FDCWD, "missing", directory, "link", AT_SYMLINK_FOLLOW);
	utimensat(directory, "file", times, 0);
	fchownat(directory, "missing", -1, 5, AT_SYMLINK_NOFOLLOW);
	setxattr("missing", "user.name", "value", 5, XATTR_CREATE);
	getxattr("missing", "user.name", buffer, 10);
	chdir("missing");
	truncate("missing", 5);
	write(fd, "say \"hi\"\\\n\33[1m\0\0019x\377\t", 20);
	memset(buffer, 'x', sizeof(buffer));
	pwrite64(fd, buffer, 300, 4096);
	lseek(fd, 0, SEEK_SET);
	read(fd, buffer, 15);
	pread64(fd, buffer, 400, 4000);
	pread64(fd, buffer, 2, -5);
	lseek(fd, 0, SEEK_END);
	read(fd, buffer, 15);
	write(fd, "", 0);
	fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 10);
	ftruncate(fd, 7);
	fsync(fd);
	flock(fd, LOCK_EX | LOCK_NB);
	sendfile(1, directory, NULL, 10);
	splice(1, NULL, 2, NULL, 3, SPLICE_F_MOVE);
	fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, O_NONBLOCK | O_RDONLY);
	fcntl(fd, F_GETFD);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_GETFD);
	fcntl(fd, F_DUPFD_CLOEXEC, 30);
	fcntl(fd, 1099, 4);
	dup3(1, 20, O_CLOEXEC);
	ioctl(fd, TCGETS, buffer);
	ioctl(fd, FIOCLEX);
	ioctl(fd, _IOC(_IOC_READ, 0xab, 0xcd, 7), buffer);
	fd = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	memfd_create("huge", MFD_HUGETLB | 21 << 26);
	memfd_create("huge", 0x800 | 21 << 26);
	fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE);
	fcntl(fd, F_GET_SEALS);
	fcntl(fd, F_SETLEASE, F_UNLCK);
	mount("none", "missing", "tmpfs", MS_NOSUID | MS_RDONLY, NULL);
	umount2("missing", MNT_DETACH);
	close(-1);
}

/* Sockets with names: bytes of an address count its two of family and the NUL. */
static void named(void)
{
	struct sockaddr_un here = {.sun_family = AF_UNIX, .sun_path = "here"}, from;
	struct sockaddr_un there = {.sun_family = AF_UNIX, .sun_path = "there"};
	int server = socket(AF_UNIX, SOCK_DGRAM, 0), fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	bind(server, (struct sockaddr *)&here, 7);
	bind(fd, (struct sockaddr *)&there, 8);
	sendto(fd, "hello", 5, 0, (struct sockaddr *)&here, 7);
	recvfrom(server, buffer, 100, 0, (struct sockaddr *)&from, &(socklen_t){8});
	unlink("here");
	unlink("there");
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(server, (struct sockaddr *)&here, 7);
	bind(fd, (struct sockaddr *)&there, 8);
	listen(server, 1);
	connect(fd, (struct sockaddr *)&here, 7);
	accept(server, (struct sockaddr *)&from, &(socklen_t){8});
}

static void sockets(void)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un abstract = {.sun_family = AF_UNIX, .sun_path = "\0kubectl-gadget"};
	struct sockaddr_un missing = {.sun_family = AF_UNIX, .sun_path = "missing"};
	struct iovec parts[] = {{"one", 3}, {"two", 3}};
	struct linger linger = {1, 2};
	int one = 1, fd, pair[2];

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &one, &(socklen_t){sizeof(one)});
	bind(fd, (struct sockaddr *)&four, sizeof(four));
	listen(fd, 128);
	accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	four.sin_addr.s_addr = 0xffffffff;
	connect(fd, (struct sockaddr *)&four, sizeof(four));
	shutdown(fd, SHUT_WR);
	fd = socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP);
	connect(fd, (struct sockaddr *)&six, sizeof(six));
	getpeername(fd, (struct sockaddr *)buffer, &(socklen_t){sizeof(six)});
	recvfrom(fd, buffer, 10, MSG_DONTWAIT, NULL, NULL);
	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	connect(fd, (struct sockaddr *)&missing, sizeof(missing));
	connect(fd, (struct sockaddr *)&abstract, 17);
	getsockname(fd, (struct sockaddr *)&four, &(socklen_t){2});
	socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	socket(AF_INET, 77, 0);
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	sendto(pair[0], "hello", 5, MSG_NOSIGNAL, NULL, 0);
	recvfrom(pair[1], buffer, 100, MSG_PEEK, NULL, NULL);
	writev(pair[0], parts, 1);
	writev(-1, parts, 1);
	readv(pair[1], &(struct iovec){buffer, 5}, 1);
	close(pair[0]);
	named();
}

static void waiting(void)
{
	struct itimerspec later = {{1, 2}, {3000, 4}};
	struct itimerval never = {{0, 0}, {0, 0}};
	struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 7}};
	struct pollfd poll_for = {.events = POLLIN};
	int ends[2], epoll, fd, word = 1;

	pipe2(ends, O_CLOEXEC);
	poll_for.fd = ends[0];
	syscall(SYS_ppoll, &poll_for, 1, &(struct timespec){.tv_nsec = 5}, NULL, 8);
	write(ends[1], "x", 1);
#ifdef SYS_poll
	syscall(SYS_poll, &poll_for, 1, 0);
#endif
	epoll = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
	epoll_pwait(epoll, &event, 8, 10, NULL);
	epoll_pwait(epoll, &event, 8, 0, NULL);
	epoll_ctl(epoll, EPOLL_CTL_DEL, ends[0], NULL);
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &later, NULL);
	eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE);
	setitimer(ITIMER_REAL, &never, NULL);
	clock_nanosleep(CLOCK_REALTIME, 0, &moment, NULL);
	syscall(SYS_clock_gettime, 99, NULL);
	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 2, &moment);
	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &moment);
	syscall(SYS_futex, &word, FUTEX_WAKE, 1, 0, 0, 0);
	syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 2, NULL, NULL, -1);
	syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, &word, 1);
}

static void processes(void)
{
	struct sigaction action = {.sa_handler = SIG_IGN, .sa_flags = SA_RESTART | SA_SIGINFO};
	struct rlimit limit;
	sigset_t set;
	void *memory;
	int status;

	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGINT);
	sigaddset(&action.sa_mask, SIGTERM);
	sigaction(SIGUSR1, &action, NULL);
	sigprocmask(SIG_BLOCK, &action.sa_mask, NULL);
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, &set, &action.sa_mask);
	getrlimit(RLIMIT_CORE, &limit);
	limit.rlim_cur = 0;
	limit.rlim_max = 1 << 20;
	setrlimit(RLIMIT_CORE, &limit);
	prctl(PR_SET_NAME, "calls\33");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN);
	prctl(PR_CAPBSET_READ, 77);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0);
	prctl(12345, 1, 2, 3, 4);
	memory = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | 21 << 26, -1, 0);
	mmap(NULL, 1, PROT_NONE, 21 << 26, -1, 0);
	mprotect(memory, 4096, PROT_READ | PROT_WRITE);
	madvise(memory, 4096, MADV_DONTNEED);
	msync(memory, 4096, MS_SYNC);
	munmap(memory, 8192);
	mremap(memory, 4096, 8192, MREMAP_MAYMOVE);
	mlockall(0x80);
	unshare(CLONE_FILES);
	setpriority(PRIO_PROCESS, 0, 1);
	kill(getpid(), 0);
	kill(-2147483647, 34);
	if (fork() == 0)
		_exit(3);
	wait4(-1, &status, 0, NULL);
	if (fork() == 0)
		raise(SIGKILL);
	wait4(-1, &status, WUNTRACED, NULL);
	wait4(-1, &status, WNOHANG, NULL);
	syscall(SYS_getrandom, NULL, 0, GRND_NONBLOCK);
	sched_yield();
	setpgid(0, 0);
	execve("missing", (char *[]){"a", "b c", NULL}, NULL);
	execveat(-1, "missing", (char *[]){NULL}, NULL, AT_EMPTY_PATH);
}

/* What is too long to be kept, and what only looks like something else. */
static void hard(void)
{
	char *eight[] = {"1", "2", "3", "4", "5", "6", "7", "8", NULL}, path[600];
	struct iovec one = {buffer, 3000}, two[] = {{"one", 3}, {"two", 3}}, empty[] = {{"", 0}, {"two", 3}};
	struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1};
	struct tcp_info info;
	int pair[2], fd;

	memset(buffer, 'b', sizeof(buffer));
	memset(path, 'p', sizeof(path));
	for (int length = 102; length <= 150; length = length < 104 ? length + 1 : length + 46) {
		buffer[length] = 0;
		execve("missing", (char *[]){"a", buffer, "c", NULL}, NULL);
		buffer[length] = 'b';
	}
	execve("missing", eight, NULL);
	execve("missing", eight + 2, NULL);
	for (int length = 260; length <= 262; length++) { /* 55 bytes beside the argument, 103 in each of two more slots */
		path[length] = 0;
		chdir(path);
		path[length] = 'p';
	}
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	writev(pair[0], &one, 1);
	writev(pair[0], two, 2);
	writev(pair[0], empty, 2);
	sendmsg(pair[0], &message, 0);
	message.msg_iov = two;
	message.msg_iovlen = 2;
	sendmsg(pair[0], &message, 0);
	readv(pair[1], &(struct iovec){buffer, 2000}, 1);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	getsockopt(fd, SOL_TCP, TCP_INFO, &info, &(socklen_t){104});
	syscall(0x20001, 1, "fake", 4);
	syscall(0x10001, 1, "fake", 4);
	syscall(0x40000001, -1, "fake", 4);
	syscall(-1, 1);
#ifdef __x86_64__
	asm volatile("int $0x80" ::"a"(4), "b"(-1), "c"(77), "d"(78), "S"(79), "D"(80) : "memory");
	if (fork() == 0)
		asm volatile("int $0x80" ::"a"(252), "b"(7));
	wait(NULL);
	asm volatile("int $0x80" : "=a"(fd) : "0"(2) : "memory"); /* fork */
	if (!fd)
		_exit(0);
	wait(NULL);
#endif
	syscall(SYS_execveat, AT_FDCWD, "/proc/self/exe", (char *[]){"calls", NULL}, NULL, 0x10000); /* AT_EXECVE_CHECK */
	fd = open("/proc/self/exe", O_RDONLY);
	buffer[300] = 0;
	if (fork() == 0)
		syscall(SYS_execveat, fd, "", (char *[]){"calls", "end", buffer, NULL}, NULL, AT_EMPTY_PATH);
	wait(NULL);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		if (!strcmp(argv[1], "hard"))
			hard();
		return 0;
	}
	files();
	sockets();
	waiting();
	processes();
	syscall(SYS_exit_group, 5);
}
