/* connects: each way that a TCP connection attempt can end, a prime number of times, to tests/tun.py's peers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262 /* linux/in.h */
#endif

static struct sockaddr_storage to;
static socklen_t length;
static int family;

static void aim(const char *address, int port)
{
	struct sockaddr_in *four = (void *)&to;
	struct sockaddr_in6 *six = (void *)&to;

	memset(&to, 0, sizeof(to));
	family = strchr(address, ':') ? AF_INET6 : AF_INET;
	to.ss_family = family;
	if (family == AF_INET) {
		four->sin_port = htons(port);
		inet_pton(family, address, &four->sin_addr);
		length = sizeof(*four);
	} else {
		six->sin6_port = htons(port);
		inet_pton(family, address, &six->sin6_addr);
		length = sizeof(*six);
	}
}

static int make(int flags) { return socket(family, SOCK_STREAM | flags, 0); }

/* Connect and wait for the end of it. */
static void blocking(int count, const char *address, int expected)
{
	aim(address, 80);
	while (count--) {
		int fd = make(0);
		int failed = connect(fd, (void *)&to, length) ? errno : 0;
		if (failed != expected)
			printf("%s: %s instead of %s\n", address, strerror(failed), strerror(expected));
		close(fd);
	}
}

/* Connect without waiting, then learn the result by poll, and by a second connect or SO_ERROR in turns. */
static void polled(int count, const char *address, int expected)
{
	aim(address, 81);
	while (count--) {
		int fd = make(SOCK_NONBLOCK), failed = 0;
		socklen_t size = sizeof(failed);
		struct pollfd wait = {.fd = fd, .events = POLLOUT};
		if (connect(fd, (void *)&to, length) == 0 || errno == EINPROGRESS)
			poll(&wait, 1, -1);
		else
			failed = errno;
		if (failed)
			;
		else if (count % 2)
			failed = connect(fd, (void *)&to, length) ? errno : 0;
		else
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size);
		if (failed != expected && failed != EISCONN)
			printf("%s: %s instead of %s\n", address, strerror(failed), strerror(expected));
		close(fd);
	}
}

/* All at once, and given up after a time without an answer. */
static void given_up(int count, const char *address, int milliseconds)
{
	int fds[count];

	aim(address, 82);
	for (int i = 0; i < count; i++) {
		fds[i] = make(SOCK_NONBLOCK);
		connect(fds[i], (void *)&to, length);
	}
	usleep(milliseconds * 1000);
	for (int i = 0; i < count; i++)
		close(fds[i]);
}

static void on_alarm(int number) {}

static void interrupted(int count, const char *address)
{
	struct sigaction action = {.sa_handler = on_alarm};
	struct itimerval soon = {.it_value.tv_usec = 50000};

	sigaction(SIGALRM, &action, NULL);
	aim(address, 83);
	while (count--) {
		int fd = make(0);
		setitimer(ITIMER_REAL, &soon, NULL);
		if (connect(fd, (void *)&to, length) == 0 || errno != EINTR)
			printf("interrupted: %m\n");
		close(fd);
	}
}

static void timed_out(int count, const char *address)
{
	int fds[count], once = 1;

	aim(address, 84);
	for (int i = 0; i < count; i++) {
		fds[i] = make(SOCK_NONBLOCK);
		setsockopt(fds[i], IPPROTO_TCP, TCP_SYNCNT, &once, sizeof(once));
		connect(fds[i], (void *)&to, length);
	}
	for (int i = 0; i < count; i++) {
		struct pollfd wait = {.fd = fds[i], .events = POLLOUT};
		poll(&wait, 1, -1);
		close(fds[i]);
	}
}

static int make_from_port(int port, int protocol)
{
	struct sockaddr_in6 from = {.sin6_family = family, .sin6_port = htons(port)}; /* sockaddr_in begins alike */
	int fd = socket(family, SOCK_STREAM, protocol), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (void *)&from, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(from)))
		perror("bind");
	return fd;
}

static void expect_no_address(const char *what, int result)
{
	if (result != -1 || errno != EADDRNOTAVAIL)
		printf("%s: %m\n", what);
}

/* From a port that has a connection to the same place already; as often by TCP Fast Open and, if there is any, by MPTCP. */
static void no_address(int count, const char *address)
{
	int fds[count + 1], fast[count], multipath[count];

	aim(address, 85);
	for (int i = 0; i <= count; i++)
		fds[i] = make_from_port(5555, 0);
	for (int i = 0; i < count; i++) {
		fast[i] = make_from_port(5555, 0);
		multipath[i] = access("/proc/sys/net/mptcp", F_OK) ? -1 : make_from_port(5555, IPPROTO_MPTCP);
	}
	if (connect(fds[count], (void *)&to, length))
		perror("no address");
	for (int i = 0; i < count; i++) {
		expect_no_address("connect", connect(fds[i], (void *)&to, length));
		expect_no_address("TCP Fast Open", sendto(fast[i], "x", 1, MSG_FASTOPEN, (void *)&to, length));
		if (multipath[i] >= 0)
			expect_no_address("MPTCP", connect(multipath[i], (void *)&to, length));
	}
	for (int i = 0; i < count; i++) {
		close(fds[i]);
		close(fast[i]);
		close(multipath[i]);
	}
	close(fds[count]);
}

static void malformed(int count)
{
	aim("10.9.0.2", 86);
	while (count--) {
		int fd = make(0);
		connect(fd, (void *)&to, 4);
		close(fd);
	}
}

int main(void)
{
	while (access("/tmp/go", F_OK))
		usleep(10000);
	blocking(2, "10.9.0.2", 0);
	blocking(3, "fd09::2", 0);
	blocking(5, "::ffff:10.9.0.2", 0);
	blocking(7, "10.9.0.3", ECONNREFUSED);
	blocking(11, "fd09::3", ECONNREFUSED);
	blocking(13, "10.9.0.4", EHOSTUNREACH);
	blocking(17, "203.0.113.7", ENETUNREACH);
	blocking(19, "2001:db8::7", ENETUNREACH);
	blocking(23, "10.9.0.6", ECONNRESET);
	blocking(53, "::ffff:10.9.0.3", ECONNREFUSED);
	blocking(59, "::ffff:203.0.113.7", ENETUNREACH);
	polled(29, "10.9.0.2", 0);
	polled(31, "10.9.0.3", ECONNREFUSED);
	polled(37, "fd09::4", EHOSTUNREACH);
	polled(41, "203.0.113.7", ENETUNREACH);
	polled(47, "127.0.0.1", ECONNREFUSED); /* the answer is there before connect(2) says EINPROGRESS */
	polled(61, "10.9.0.6", ECONNRESET);
	interrupted(5, "10.9.0.5");
	interrupted(3, "fd09::5");
	no_address(3, "10.9.0.2");
	no_address(2, "fd09::2");
	malformed(7);
	given_up(43, "10.9.0.5", 200);
	given_up(11, "fd09::5", 1500);
	timed_out(13, "10.9.0.5");
	timed_out(17, "fd09::5");
	printf("done\n");
	fflush(stdout);
	pause();
}
