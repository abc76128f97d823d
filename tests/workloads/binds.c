/* binds: bind(2) and listen(2) in each way that they end, a prime number of times. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NO_FD 1000

static void expect(int result, int error, const char *what)
{
	if ((result ? errno : 0) != error)
		printf("%s: %s instead of %s\n", what, strerror(errno), strerror(error));
}

static int four(int fd, const char *address, int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, address, &to.sin_addr);
	return bind(fd, (void *)&to, sizeof(to));
}

static int six(int fd, int port)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	return bind(fd, (void *)&to, sizeof(to));
}

static void set(int fd, int level, int option)
{
	int yes = 1;

	setsockopt(fd, level, option, &yes, sizeof(yes));
}

static void tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	set(fd, SOL_SOCKET, SO_REUSEADDR);
	expect(four(fd, "0.0.0.0", 7001), 0, "bind");
	expect(listen(fd, 5), 0, "listen");
	close(fd);
}

static void udp(void)
{
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	set(fd, SOL_SOCKET, SO_REUSEPORT);
	set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	expect(six(fd, 7002), 0, "bind of udp");
	expect(listen(fd, 5), EOPNOTSUPP, "listen of udp");
	close(fd);
}

static void taken(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	expect(four(fd, "0.0.0.0", 7003), EADDRINUSE, "taken");
	close(fd);
}

static void foreign(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	expect(four(fd, "192.0.2.1", 80), EADDRNOTAVAIL, "foreign");
	close(fd);
}

static void chosen(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	expect(four(fd, "0.0.0.0", 0), 0, "chosen");
	expect(four(fd, "0.0.0.0", 7004), EINVAL, "twice");
	close(fd);
}

static void unbound(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	expect(listen(fd, 1 << 30), 0, "unbound");
	close(fd);
}

static void no_socket(void)
{
	expect(four(0, "0.0.0.0", 7005), ENOTSOCK, "no socket");
	expect(listen(0, 7), ENOTSOCK, "listen of no socket");
}

static void no_fd(void)
{
	expect(four(NO_FD, "0.0.0.0", 7006), EBADF, "no descriptor");
	expect(listen(NO_FD, 9), EBADF, "listen of no descriptor");
}

/* Not shown: it has no address of IP. */
static void unix_domain(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "\0name"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	expect(bind(fd, (void *)&to, sizeof(to)), 0, "bind of a Unix domain");
	expect(listen(fd, 5), 0, "listen of a Unix domain");
	close(fd);
}

static void repeat(int count, void (*way)(void))
{
	while (count--)
		way();
}

int main(void)
{
	int holder = socket(AF_INET, SOCK_STREAM, 0);

	repeat(13, tcp);
	repeat(11, udp);
	expect(four(holder, "0.0.0.0", 7003), 0, "holder");
	repeat(7, taken);
	repeat(5, foreign);
	repeat(17, chosen);
	repeat(3, unbound);
	repeat(19, no_socket);
	repeat(2, no_fd);
	repeat(23, unix_domain);
	printf("done\n");
	fflush(stdout);
	return 0;
}
