/* paced KIND RATE SECONDS PROCESSES WHERE: RATE * SECONDS times something, at that pace, by so many processes;
 * RATE 0: 1,000,000 times in all as fast as it can, or for SECONDS at the longest. Then prints how often it was
 * done, in how many seconds, in how many of CPU, and "done".
 * KIND: opens      of 1,009 files in turn, and their close: their names are WHERE and a number of up to 98 digits
 *       execs      of this program, which ends at once
 *       connects   to a listener of its own at the IPv4 address WHERE, over TCP, reset at once
 *       packets    one byte over a TCP connection with itself at WHERE, which is a packet
 *       datagrams  one of a byte from a UDP socket to another one of its own at WHERE
 *       questions  of DNS over UDP, to a server of its own at an address of loopback, which answers: WHERE, if that is
 *                  an IPv4 address
 *       signals    one to itself, which it handles */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AS_MANY_AS_POSSIBLE 1000000
#define FILES 1009 /* a prime, and more than anyone remembers of the paths before */
#define WIDEST 97

static const char *self, *where;
static struct sockaddr_in there = {.sin_family = AF_INET};
static int near_end, far_end;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static long cpu_us(int who)
{
	struct rusage used;

	getrusage(who, &used);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static void nothing(void) {}

static char *files[FILES];

static void name_files(void)
{
	for (int i = 0; i < FILES; i++)
		if (asprintf(&files[i], "%s-%0*d", where, 1 + i % WIDEST, i) < 0)
			fail("asprintf");
}

static void open_once(void)
{
	static int next;
	int fd = open(files[next++ % FILES], O_RDONLY | O_CREAT, 0600);

	if (fd < 0)
		fail("open");
	close(fd);
}

static void exec_once(void)
{
	pid_t pid = vfork();

	if (!pid) {
		execl(self, self, NULL);
		_exit(1);
	}
	if (waitpid(pid, NULL, 0) < 0)
		fail("exec");
}

static int bound(int type)
{
	int fd = socket(AF_INET, type, 0);
	socklen_t size = sizeof(there);

	there.sin_port = 0;
	inet_pton(AF_INET, where, &there.sin_addr);
	if (bind(fd, (void *)&there, sizeof(there)) || getsockname(fd, (void *)&there, &size))
		fail("bind");
	return fd;
}

static void *accept_all(void *listener)
{
	for (;;)
		close(accept((long)listener, NULL, NULL));
	return NULL;
}

static void listen_here(void)
{
	int listener = bound(SOCK_STREAM);
	pthread_t thread;

	if (listen(listener, 4096))
		fail("listen");
	pthread_create(&thread, NULL, accept_all, (void *)(long)listener);
}

static void connect_once(void)
{
	struct linger reset = {1, 0}; /* a port that waits for late packets could not be used again */
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(fd, (void *)&there, sizeof(there)))
		fail("connect");
	close(fd);
}

static void connect_itself(void)
{
	int listener = bound(SOCK_STREAM), on = 1;

	listen(listener, 1);
	near_end = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(near_end, (void *)&there, sizeof(there)))
		fail("connect");
	far_end = accept(listener, NULL, NULL);
	setsockopt(near_end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(far_end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* To and fro, so that each packet carries the acknowledgement of the last one. */
static void send_once(void)
{
	char byte = 0;
	int other = near_end;

	if (write(near_end, &byte, 1) != 1 || read(far_end, &byte, 1) != 1)
		fail("write");
	near_end = far_end;
	far_end = other;
}

static void send_datagram(void)
{
	char byte = 0;

	if (write(near_end, &byte, 1) != 1 || read(far_end, &byte, 1) != 1)
		fail("write");
}

static void two_sockets(void)
{
	far_end = bound(SOCK_DGRAM);
	near_end = socket(AF_INET, SOCK_DGRAM, 0);
	connect(near_end, (void *)&there, sizeof(there));
}

static void serve_itself(void)
{
	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK & 0xff000000 | getpid() & 0xffffff);
	there.sin_port = htons(53);
	far_end = socket(AF_INET, SOCK_DGRAM, 0);
	near_end = socket(AF_INET, SOCK_DGRAM, 0);
	if (bind(far_end, (void *)&there, sizeof(there)) || connect(near_end, (void *)&there, sizeof(there)))
		fail("bind");
}

/* The address after the question, whose name it points to. */
static unsigned char answer[] = "\xc0\14\0\1\0\1\0\0\0\74\0\4whe";

static void ask_once(void)
{
	static const unsigned char question[] = "\0\0\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0";
	static unsigned short id;
	unsigned char message[sizeof(question) + sizeof(answer)];
	struct sockaddr_in peer;
	socklen_t size = sizeof(peer);
	ssize_t length = sizeof(question);

	memcpy(message, question, length);
	memcpy(message, &id, sizeof(id));
	id++;
	message[length - 1] = 1; /* the class, instead of the string's end */
	if (write(near_end, message, length) != length ||
	    recvfrom(far_end, message, length, 0, (void *)&peer, &size) != length)
		fail("ask");
	message[2] |= 0x80;
	if (inet_pton(AF_INET, where, answer + 12) == 1) {
		message[7] = 1;
		memcpy(message + length, answer, sizeof(answer));
		length += sizeof(answer);
	}
	if (sendto(far_end, message, length, 0, (void *)&peer, size) != length ||
	    read(near_end, message, length) != length)
		fail("answer");
}

static void handled(int number)
{
	(void)number;
}

static void handle(void)
{
	signal(SIGUSR1, handled);
}

static void signal_once(void)
{
	kill(getpid(), SIGUSR1);
}

static const struct kind {
	const char *name;
	void (*prepare)(void), (*once)(void);
} kinds[] = {
	{"opens", name_files, open_once},
	{"execs", nothing, exec_once},
	{"connects", listen_here, connect_once},
	{"packets", connect_itself, send_once},
	{"datagrams", two_sockets, send_datagram},
	{"questions", serve_itself, ask_once},
	{"signals", handle, signal_once},
};

static long repeat(const struct kind *kind, double rate, double seconds, long times)
{
	double began = now();
	long done = 0;

	for (; done < times; done++) {
		if (!rate && done % 64 == 0 && now() - began > seconds)
			break;
		while (rate && done >= (now() - began) * rate)
			usleep(200); /* bursts, as programs have them; and the tool's share of the machine is left to it */
		kind->once();
	}
	return done;
}

int main(int argc, char **argv)
{
	struct {
		long count;
		double seconds;
		long cpu_us;
	} *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct kind *kind = kinds;
	double rate, seconds;
	int processes, status, bad = 0;
	long times;

	if (argc < 6)
		return 0;
	self = argv[0];
	rate = atof(argv[2]);
	seconds = atof(argv[3]);
	processes = atoi(argv[4]);
	where = argv[5];
	while (strcmp(kind->name, argv[1]))
		kind++;
	times = (rate ? rate * seconds : AS_MANY_AS_POSSIBLE) / processes;
	for (int i = 0; i < processes; i++) {
		if (fork())
			continue;
		kind->prepare();
		double began = now();
		long done = repeat(kind, rate / processes, seconds, times);
		double took = now() - began;
		__sync_fetch_and_add(&shared->count, done);
		__sync_fetch_and_add(&shared->cpu_us, cpu_us(RUSAGE_SELF) + cpu_us(RUSAGE_CHILDREN));
		if (took > shared->seconds)
			shared->seconds = took;
		_exit(0);
	}
	while (wait(&status) > 0)
		bad |= status;
	printf("%ld %.6f %.6f done\n", shared->count, shared->seconds, shared->cpu_us / 1e6);
	fflush(stdout);
	return bad != 0;
}
