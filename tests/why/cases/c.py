"""Programs in C and C++."""

from __future__ import annotations

from typing import Any

from tests.why.case import Case
from tests.why.cases.shell import term_then_kill

HEAD = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) { fprintf(stderr, "server: %s: %m\n", what); exit(1); }

static int dial(const char *ip, int port, int seconds)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timeval limit = {.tv_sec = seconds};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, ip, &to.sin_addr);
	if (seconds) {
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	}
	if (connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		close(fd);
		return -1;
	}
	return fd;
}

static int bound(const char *ip, int port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	inet_pton(AF_INET, ip, &at.sin_addr);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 16)) {
		fprintf(stderr, "server: cannot listen on %s:%d: %m\n", ip, port);
		exit(1);
	}
	return fd;
}
"""


def c(name: str, source: str, *causes: str, **options: Any) -> Case:
    """A static program in C, or with usr=True one that needs shared libraries."""
    return Case(f"c-{name}", "c", options.pop("command", ("/app/server",)), causes, source=HEAD + source, **options)


def main(body: str) -> str:
    """A program whose main function is body."""
    return f"int main(int argc, char **argv)\n{{\n{body}\n}}\n"


CASES = [
    c("null-pointer", main('puts("starting"); fflush(stdout); *(volatile int *)16 = 1;'), "fault", says="SIGSEGV",
      exits=-11, call="SIGSEGV"),
    c("write-to-text", main('char *name = "cart"; getpid(); *(volatile char *)name = 0;'), "fault", says="SIGSEGV",
      exits=-11, call="SIGSEGV"),
    c("beyond-file", main("""
	int fd = open("/data/table", O_RDWR);
	char *table = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return *(volatile char *)(table + 40960);"""), "fault", says="SIGBUS", exits=-7,
      files={"/data/table": "x" * 100}, call="SIGBUS"),
    c("illegal-instruction", main('write(1, "starting\\n", 9); __builtin_trap();'), "fault", says="SIGILL", exits=-4,
      call="SIGILL"),
    c("divides-by-zero", main("volatile int shards = argc - 1; return 1000 / shards;"), "fault", says="SIGFPE",
      exits=-8, call="SIGFPE"),
    c("stack-overflow", "static int deep(int n) { volatile char page[4000]; page[n % 4000] = n; return deep(n + 1) + page[0]; }\n"
      + main("return deep(0);"), "fault", says="SIGSEGV", exits=-11, call="SIGSEGV"),
    c("assertion", main('int shards = argc - 1; puts("starting"); fflush(stdout); assert(shards > 0); return 0;'), "abort",
      says="shards > 0|assert", exits=-11, call="write.*Assertion"),
    c("double-free", main("char *volatile p = malloc(100); free(p); free(p); return 0;"), "abort",
      says="double free", exits=-6, usr=True, shared_pids=True, call="write.*double free"),
    c("stack-smashed", "static void fill(char *at, int n) { memset(at, 'x', n); }\n"
      + main("char name[8]; void (*volatile f)(char *, int) = fill; f(name, 64); return name[0];"), "abort",
      says="stack smashing", exits=-11, usr=True, flags=("-fstack-protector-all",), call="write.*stack smashing"),
    c("pipe-broken", main("""
	signal(SIGPIPE, SIG_DFL);
	int fd = dial("10.43.0.25", 5432, 0);
	if (fd < 0)
		die("connect");
	for (int i = 0; i < 50; i++) {
		write(fd, "startup", 7);
		usleep(20000);
	}"""), "reset", says="SIGPIPE|10.43.0.25|5432", exits=-13, peers=True, shared_pids=True, call="EPIPE|SIGPIPE"),
    Case("c-library-missing", "c", ("/app/server",), ("missing-library",), says="libcart", exits=127, usr=True,
         source="int main(void) { return 0; }\n", libraries=("libcart.so.2",),
         call="libcart.*ENOENT"),
    Case("c-loader-missing", "c", ("/app/server",), ("missing-program", "missing-library"), says="/app/server|ld-linux",
         exits=1, starts=False, source="int main(void) { return 0; }\n", dynamic=True),
    Case("c-symbol-missing", "c", ("/app/server",), ("missing-library",), says="symbol|cart_total", exits=127, usr=True,
         source="int main(void) { return cart_total(); }\n", flags=("-Wl,-z,now", "-Wl,-rpath,/app"), libraries=("libcart.so.2",),
         installed=True, call="symbol lookup error"),
    c("descriptors-leak", main("""
	for (int i = 0;; i++)
		if (open("/etc/hosts.table", O_RDONLY) < 0)
			die("cannot open /etc/hosts.table");"""), "descriptors", says="descriptor|open files|EMFILE",
      rlimits={"NOFILE": 64}, files={"/etc/hosts.table": "x"}, call="open.*EMFILE"),
    c("no-memory", main("""
	for (;;) {
		char *block = malloc(8 << 20);
		if (!block)
			die("cache");
		memset(block, 1, 8 << 20);
	}"""), "memory", says="memory|ENOMEM", rlimits={"AS": 64 << 20}, call="mmap.*ENOMEM"),
    c("oom", main("""
	puts("loading"); fflush(stdout);
	for (;;)
		memset(malloc(1 << 20), 1, 1 << 20);"""), "oom", says="memory", exits=-9, memory=16 << 20, call="SIGKILL"),
    c("port-taken", main('bound("0.0.0.0", 9090); pause();'), "address-in-use", says="9090", peers=True,
      call="bind.*9090.*EADDRINUSE"),
    c("address-elsewhere", main('bound("192.0.2.7", 8080); pause();'), "address-not-available", says="192.0.2.7",
      call="bind.*EADDRNOTAVAIL"),
    c("low-port", main('bound("0.0.0.0", 80); pause();'), "capability", "permission", says="80", user=1000,
      call="bind.*EACCES"),
    c("refused", main('if (dial("127.0.0.1", 6379, 0) < 0) die("redis"); return 0;'), "refused", says="127.0.0.1.*6379",
      call="connect.*ECONNREFUSED"),
    c("no-answer", main('if (dial("10.99.0.7", 5432, 1) < 0) die("database"); return 0;'), "no-answer",
      says="10.99.0.7.*5432", peers=True, call="connect.*5432"),
    c("no-reply", main("""
	char text[64];
	int fd = dial("10.43.0.20", 6379, 1);
	write(fd, "PING\\r\\n", 6);
	if (read(fd, text, sizeof(text)) < 0)
		die("redis");"""), "no-answer", says="10.43.0.20|6379", peers=True, call="read.*EAGAIN"),
    c("network-unreachable", main('if (dial("198.51.100.4", 443, 0) < 0) die("licence server"); return 0;'),
      "unreachable", says="198.51.100.4", call="connect.*ENETUNREACH"),
    c("host-unreachable", main('if (dial("10.98.0.4", 443, 0) < 0) die("licence server"); return 0;'),
      "unreachable", says="10.98.0.4", peers=True, call="connect.*EHOSTUNREACH"),
    c("reset", main("""
	char text[64];
	int fd = dial("10.43.0.21", 5432, 0);
	write(fd, "startup", 7);
	if (read(fd, text, sizeof(text)) < 0)
		die("database");
	return 0;"""), "reset", says="10.43.0.21|5432", peers=True, call="read.*ECONNRESET"),
    c("raw-socket", main('if (socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0) die("ping"); return 0;'), "capability",
      says="NET_RAW|raw", drop=("NET_RAW",), call="socket.*EPERM"),
    c("seccomp-refuses", main('mkdir("/tmp/a", 0700); if (chmod("/tmp/a", 0755)) die("/tmp/a"); return 0;'), "seccomp",
      says="chmod|mode of /tmp/a", seccomp={"chmod": "SCMP_ACT_ERRNO", "fchmodat": "SCMP_ACT_ERRNO"}, call="chmod.*EPERM"),
    c("seccomp-kills", main('write(1, "starting\\n", 9); mkdir("/tmp/a", 0700); return 0;'), "seccomp",
      says="mkdir", exits=-31, seccomp={"mkdir": "SCMP_ACT_KILL_PROCESS"}, call="SIGSYS"),
    c("thread-crashes", """
static void *work(void *at)
{
	usleep(50000);
	*(volatile int *)at = 1;
	return NULL;
}
""" + main("""
	pthread_t threads[4];
	for (long i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, (void *(*)(void *))pause, NULL);
	pthread_create(&threads[3], NULL, work, (void *)8);
	pthread_join(threads[3], NULL);"""), "fault", says="SIGSEGV", exits=-11, call="SIGSEGV"),
    c("worker-crashes", main("""
	int status;
	if (!fork()) {
		usleep(30000);
		*(volatile int *)0 = 1;
	}
	open("/run/server.stats", O_RDONLY);
	wait(&status);
	fprintf(stderr, "master: worker exited on signal %d, giving up\\n", WTERMSIG(status));
	unlink("/run/server.pid");
	return 1;"""), "fault", says="SIGSEGV", call="SIGSEGV"),
    Case("cc-terminate", "c++", ("/app/server",), ("abort", "exception"), says="bad shard|runtime_error|terminate", exits=-6,
         usr=True, shared_pids=True, source="""
#include <cstdio>
#include <stdexcept>
static void load(int shards) { if (shards < 1) throw std::runtime_error("bad shard count"); }
int main(int argc, char **) { std::puts("starting"); std::fflush(stdout); load(argc - 1); }
""", call="write.*(terminate|bad shard)"),
    c("watches", main("""
	for (int i = 0; i < 4096; i++)
		if (inotify_init1(IN_CLOEXEC) < 0)
			die("cannot watch /etc/app");
	return 0;"""), "inotify", says="inotify|watch", user=54321, rlimits={"NOFILE": 10000}, call="inotify_init1.*EMFILE"),
    c("file-too-large", main("""
	static char text[4000];
	signal(SIGXFSZ, SIG_IGN);
	int fd = open("/tmp/journal", O_CREAT | O_WRONLY, 0600);
	for (;;)
		if (write(fd, text, sizeof(text)) < 0)
			die("journal");"""), "file-size",
      says="/tmp/journal|EFBIG|large", rlimits={"FSIZE": 65536}, call="write.*EFBIG"),
    c("fork-limit", main("""
	for (int i = 0; i < 64; i++) {
		pid_t child = fork();
		if (child < 0)
			die("cannot start worker");
		if (!child) {
			pause();
			_exit(0);
		}
	}"""), "processes", says="fork|clone|process", user=54322, rlimits={"NPROC": 8}, call="clone.*EAGAIN"),
    c("usage", main("""
	fprintf(stderr, "server: unrecognized option '%s'\\nusage: server [--port N] [--config FILE]\\n", argv[1]);
	return 2;"""), "bad-option", says="--prot", command=("/app/server", "--prot", "80"), exits=2,
      call="write.*unrecognized"),
    c("config-invalid", main("""
	char text[200] = "";
	int fd = open("/etc/server.conf", O_RDONLY);
	read(fd, text, sizeof(text) - 1);
	if (access("/etc/server.d", R_OK))
		errno = 0;
	fprintf(stderr, "/etc/server.conf:3: invalid value '%.4s' for 'listen'\\n", strstr(text, "abcd"));
	return 78;"""), "bad-option", says="server.conf|listen", exits=78,
      files={"/etc/server.conf": "# ours\n\nlisten abcd\n"}, call="write.*invalid value"),
    c("cleanup-after", main("""
	int lock = open("/tmp/server.lock", O_CREAT | O_RDWR, 0600);
	int fd = open("/etc/server/routes.tab", O_RDONLY);
	if (fd < 0)
		fprintf(stderr, "fatal: cannot read routes\\n");
	unlink("/run/server.pid");
	unlink("/run/server.sock");
	rmdir("/run/server");
	close(lock);
	kill(99999, SIGTERM);
	return 1;"""), "missing-file", says="/etc/server/routes.tab", call="routes.tab.*ENOENT"),
    c("privileges-dropped", main("""
	open("/etc/server/key.pem", O_RDONLY);
	setgid(1000);
	setuid(1000);
	fprintf(stderr, "running as %d\\n", getuid());
	if (open("/etc/server/key.pem", O_RDONLY) < 0)
		die("key");"""), "permission", says="/etc/server/key.pem", files={"/etc/server/key.pem": ("x", 0o600)},
      call="key.pem.*EACCES"),
    c("uid-refused", main('if (setuid(1000)) die("cannot become app"); return 0;'), "capability",
      says="SETUID|setuid|user", drop=("SETUID",), call="setuid.*EPERM"),
    c("disk-full", main("""
	int fd = open("/data/wal", O_CREAT | O_WRONLY | O_APPEND, 0600);
	static char block[4096];
	open("/data/wal.old", O_RDONLY);
	for (;;)
		if (write(fd, block, sizeof(block)) < (ssize_t)sizeof(block))
			break;
	fprintf(stderr, "PANIC: could not write to file\\n");
	abort();"""), "disk", says="/data", exits=-11, tmpfs={"/data": "size=64k"}, call="write.*ENOSPC"),
    c("message-in-pieces", main("""
	const char *words[] = {"fatal: ", "cannot ", "open ", "the ", "index", "\\n"};
	int fd = open("/var/lib/server/index.db", O_RDWR);
	if (fd < 0)
		for (int i = 0; i < 6; i++)
			write(2, words[i], strlen(words[i]));
	return 3;"""), "missing-file", says="/var/lib/server/index.db", exits=3, call="index.db.*ENOENT"),
    c("killed-by-child", main("""
	pid_t self = getpid();
	if (!fork()) {
		usleep(50000);
		kill(self, SIGKILL);
		_exit(0);
	}
	for (;;) pause();"""), "killed-by-process", says="SIGKILL", exits=-9, shared_pids=True, call="SIGKILL"),
    c("polls-after-failure", main("""
	int none = open("/etc/server/shards.conf", O_RDONLY);
	for (int i = 0; i < 30000; i++)
		if (lseek(0, 0, SEEK_CUR) == -2)
			return 0;
	fprintf(stderr, "no shards\\n");
	return none < 0;"""), "missing-file", says="/etc/server/shards.conf", call="shards.conf.*ENOENT"),
    c("words-before-cleanup", main("""
	fprintf(stderr, "fatal: licence has expired\\n");
	for (int i = 0; i < 20000; i++)
		lseek(0, 0, SEEK_CUR);
	return 1;"""), "bad-option", "nothing", says="licence has expired", call="write.*licence"),
    c("term-ignored", main('puts("ready"); fflush(stdout); for (;;) pause();'), "ignored-sigterm", says="SIGTERM", exits=-9,
      act=term_then_kill, call="SIGKILL"),
    c("many-probes", main("""
	char path[64];
	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "/usr/share/server/plugins/%d.so", i);
		access(path, R_OK);
	}
	if (dial("127.0.0.1", 8500, 0) < 0)
		die("no agent");"""), "refused", says="8500", call="connect.*ECONNREFUSED"),
    c("fault-handled", """
static void caught(int number) { write(2, "caught a crash, see you\\n", 24); _exit(1); }
""" + main("signal(SIGSEGV, caught); *(volatile int *)24 = 1;"), "fault", says="SIGSEGV", call="SIGSEGV"),
    c("fault-raised-again", """
static void caught(int number) { write(2, "crash\\n", 6); signal(SIGSEGV, SIG_DFL); }
""" + main("signal(SIGSEGV, caught); *(volatile int *)24 = 1;"), "fault", says="SIGSEGV", exits=-11, call="SIGSEGV"),
    c("unix-socket-missing", main("""
	struct sockaddr_un {unsigned short family; char path[108];} to = {AF_UNIX, "/var/run/docker.sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (void *)&to, sizeof(to)))
		die("docker");"""), "missing-file", says="/var/run/docker.sock", call="docker.sock.*ENOENT"),
    c("unix-socket-stale", main("""
	struct sockaddr_un {unsigned short family; char path[108];} to = {AF_UNIX, "/tmp/app.sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(fd, (void *)&to, sizeof(to));
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(fd, (void *)&to, sizeof(to)))
		die("bind /tmp/app.sock");"""), "address-in-use", says="/tmp/app.sock", call="app.sock.*EADDRINUSE"),
    c("unix-socket-refused", main("""
	struct sockaddr_un {unsigned short family; char path[108];} to = {AF_UNIX, "/tmp/php.sock"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(fd, (void *)&to, sizeof(to));
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (void *)&to, sizeof(to)))
		die("php");"""), "refused", says="/tmp/php.sock", call="php.sock.*ECONNREFUSED"),
    c("pid-file-exists", main("""
	int fd = open("/data/postmaster.pid", O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0 && errno == EEXIST) {
		fprintf(stderr, "FATAL: lock file \\"postmaster.pid\\" already exists\\n");
		return 1;
	}"""), "bad-option", "nothing", "address-in-use", says="postmaster.pid", files={"/data/postmaster.pid": "1\n"},
      call="postmaster.pid.*EEXIST"),
    c("owner-of-data-wrong", main("""
	struct stat info;
	stat("/data", &info);
	if (info.st_mode & 077) {
		fprintf(stderr, "FATAL: data directory /data has group or world access\\n");
		return 1;
	}"""), "bad-option", "permission", "nothing", says="/data", files={"/data/": ""}, call="write.*FATAL"),
    c("limit-not-raised", """
#include <sys/resource.h>
""" + main("""
	struct rlimit more = {1 << 20, 1 << 20};
	if (setrlimit(RLIMIT_NOFILE, &more))
		die("cannot raise the limit of open files");"""), "capability", says="limit|SYS_RESOURCE", user=1000, rlimits={"NOFILE": 1024},
      call="(setrlimit|prlimit64).*EPERM"),
    c("memory-not-locked", main("""
	static char key[1 << 20];
	if (mlock(key, sizeof(key)))
		die("mlock");"""), "memory", "capability", says="mlock|lock|memory", user=1000, rlimits={"MEMLOCK": 4096}, call="mlock.*(ENOMEM|EPERM)"),
    c("alarm", main("alarm(1); puts(\"working\"); fflush(stdout); for (;;) pause();"), "killed", "killed-by-process", "nothing", says="SIGALRM",
      exits=-14, shared_pids=True, call="SIGALRM"),
    c("silent-exit", main("usleep(50000); return 9;"), "nothing", exits=9),
    c("wrong-directory-is-file", main("""
	if (open("/etc/ssl.d", O_RDONLY | O_DIRECTORY) < 0)
		die("/etc/ssl.d");"""), "missing-file", "bad-option", says="/etc/ssl.d", files={"/etc/ssl.d": "x"}, call="ssl.d.*ENOTDIR"),
    c("restarts-child-then-gives-up", main("""
	for (int i = 0; i < 5; i++) {
		int status;
		if (!fork()) {
			execl("/app/worker", "worker", "--id", "3", NULL);
			_exit(127);
		}
		wait(&status);
		fprintf(stderr, "worker exited with %d, restarting\\n", status >> 8);
		usleep(20000);
	}
	fprintf(stderr, "too many restarts\\n");
	return 1;"""), "missing-program", says="/app/worker", call="exec.*/app/worker.*ENOENT"),
    c("thread-exits-process", """
static void *loads(void *unused)
{
	if (open("/srv/model.bin", O_RDONLY) < 0)
		exit(4);
	return NULL;
}
static void *polls(void *unused)
{
	for (;;) {
		access("/tmp/reload", F_OK);
		usleep(1000);
	}
}
""" + main("""
	pthread_t threads[2];
	pthread_create(&threads[0], NULL, polls, NULL);
	usleep(30000);
	pthread_create(&threads[1], NULL, loads, NULL);
	pause();"""), "missing-file", says="/srv/model.bin", exits=4, call="model.bin.*ENOENT"),
    c("seccomp-no-such-call", main("""
	if (syscall(425, 8, argv) < 0)
		die("io_uring_setup");"""), "seccomp", says="io_uring", seccomp={"io_uring_setup": "SCMP_ACT_ERRNO"}, call="io_uring_setup.*EPERM"),
    c("udp-refused", main("""
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(8125)};
	char text[8];
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
	connect(fd, (struct sockaddr *)&to, sizeof(to));
	send(fd, "up:1|c", 6, 0);
	usleep(20000);
	if (recv(fd, text, sizeof(text), 0) < 0)
		die("statsd");"""), "refused", says="8125", call="recv.*ECONNREFUSED"),
]  # fmt: skip
