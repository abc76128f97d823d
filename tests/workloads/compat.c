/* compat KIND: system calls by their 32-bit numbers, from a 64-bit program, each a prime number of times.
 * KIND: opens, execs that fail, connects and accepts over loopback, binds and listens also by socketcall, prints on a
 * pseudoterminal, x32: calls
 * by the numbers of that; without one it makes a call that changes nothing.
 * The kernel kills it (SIGSEGV) if it does not emulate 32-bit calls. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* arch/x86/entry/syscalls/syscall_32.tbl */
enum {
	READ = 3,
	WRITE = 4,
	OPEN = 5,
	CREAT = 8,
	EXECVE = 11,
	GETPID = 20,
	SOCKETCALL = 102,
	WRITEV = 146,
	SENDFILE = 187,
	OPENAT = 295,
	EXECVEAT = 358,
	BIND = 361,
	CONNECT = 362,
	LISTEN = 363,
	ACCEPT4 = 364,
	OPENAT2 = 437,
};
enum { BY_SOCKETCALL_BIND = 2, BY_SOCKETCALL_LISTEN = 4 }; /* linux/net.h */
enum { X32 = 0x40000000 };

static int call(int number, long a, long b, long c, long d)
{
	int result;

	asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(0L) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

/* A copy where 32 bits can point to. */
static long low(const void *data, int size)
{
	static char *room;
	char *copy;

	if (!room)
		room = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	copy = room;
	room += (size + 15) & ~15;
	memcpy(copy, data, size);
	return (long)copy;
}

static long text(const char *text) { return low(text, strlen(text) + 1); }

static void expect(const char *what, int result, int expected)
{
	if (result != expected)
		printf("%s: %d instead of %d\n", what, result, expected);
}

static void opens(void)
{
	struct {
		unsigned long long flags, mode, resolve;
	} how = {O_CREAT | O_EXCL | O_RDWR, 0640, 0};
	long missing = text("missing"), made = text("made"), at = low(&how, sizeof(how));

	for (int i = 0; i < 37; i++)
		expect("open", call(OPEN, missing, O_RDONLY | O_CLOEXEC, 0777, 0), -ENOENT);
	for (int i = 0; i < 41; i++)
		expect("openat", call(OPENAT, AT_FDCWD, missing, O_RDWR, 0777), -ENOENT);
	for (int i = 0; i < 43; i++)
		close(call(CREAT, made, 0604, 0, 0));
	for (int i = 0; i < 47; i++)
		expect("openat2", call(OPENAT2, AT_FDCWD, made, at, sizeof(how)), -EEXIST);
}

static void execs(void)
{
	uint32_t argv[] = {text("started"), text("a b"), 0};
	long missing = text("/does/not/exist"), arguments = low(argv, sizeof(argv)), none = low("\0\0\0", 4);

	for (int i = 0; i < 11; i++)
		expect("execve", call(EXECVE, missing, arguments, none, 0), -ENOENT);
	for (int i = 0; i < 13; i++)
		expect("execveat", call(EXECVEAT, AT_FDCWD, missing, arguments, none), -ENOENT);
}

static void connects(void)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(there);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	long at;

	bind(listener, (void *)&there, sizeof(there));
	getsockname(listener, (void *)&there, &size);
	at = low(&there, sizeof(there));
	for (int i = 0; i < 17; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		expect("refused", call(CONNECT, fd, at, sizeof(there), 0), -ECONNREFUSED);
		close(fd);
	}
	listen(listener, 8);
	for (int i = 0; i < 7; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0), other;
		expect("connect", call(CONNECT, fd, at, sizeof(there), 0), 0);
		other = call(ACCEPT4, listener, 0, 0, 0);
		if (other < 0)
			printf("accept4: %d\n", other);
		close(fd);
		close(other);
	}
}

static void binds(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET};
	long at = low(&any, sizeof(any));

	for (int i = 0; i < 11 + 13; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		uint32_t to_bind[] = {fd, at, sizeof(any)}, to_listen[] = {fd, 5};
		if (i < 11) {
			expect("socketcall", call(SOCKETCALL, BY_SOCKETCALL_BIND, low(to_bind, sizeof(to_bind)), 0, 0), 0);
			expect("socketcall", call(SOCKETCALL, BY_SOCKETCALL_LISTEN, low(to_listen, sizeof(to_listen)), 0, 0), 0);
		} else {
			expect("bind", call(BIND, fd, at, sizeof(any), 0), 0);
			expect("listen", call(LISTEN, fd, 5, 0, 0), 0);
		}
		close(fd);
	}
}

static void prints(void)
{
	int window = posix_openpt(O_RDWR | O_NOCTTY), terminal, file = open("/proc/self/exe", O_RDONLY);
	uint32_t parts[] = {text("one "), 4, text("two\n"), 4};
	long line = text("plain\n"), at = low(parts, sizeof(parts)), from = low("\0\0\0", 4);

	unlockpt(window);
	terminal = open(ptsname(window), O_RDWR | O_NOCTTY);
	for (int i = 0; i < 13; i++)
		expect("write", call(WRITE, terminal, line, 6, 0), 6);
	for (int i = 0; i < 17; i++)
		expect("writev", call(WRITEV, terminal, at, 2, 0), 8);
	*(uint32_t *)from = 0;
	expect("sendfile", call(SENDFILE, terminal, file, from, 1), 1);
	write(window, "secret\n", 7);
	expect("read", call(READ, terminal, line, 7, 0), 7);
}

/* They fail where the kernel has no x32. */
static void x32(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET};

	for (int i = 0; i < 17; i++)
		syscall(X32 | SYS_chroot, "/not/there");
	for (int i = 0; i < 19; i++)
		syscall(X32 | 521, 16 /* PTRACE_ATTACH */, 4194303, 0, 0);
	for (int i = 0; i < 23; i++)
		syscall(X32 | SYS_umount2, "/not/there", 0);
	for (int i = 0; i < 29; i++)
		syscall(X32 | SYS_bind, -1, &any, sizeof(any));
	for (int i = 0; i < 31; i++)
		syscall(X32 | SYS_listen, -1, 5);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return call(GETPID, 0, 0, 0, 0) != getpid();
	if (strcmp(argv[1], "opens") == 0)
		opens();
	if (strcmp(argv[1], "execs") == 0)
		execs();
	if (strcmp(argv[1], "connects") == 0)
		connects();
	if (strcmp(argv[1], "binds") == 0)
		binds();
	if (strcmp(argv[1], "prints") == 0)
		prints();
	if (strcmp(argv[1], "x32") == 0)
		x32();
	printf("done\n");
	return 0;
}
