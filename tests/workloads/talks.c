/* talks serve PROTOCOL PORT           answers whoever asks, until it is killed; writes "ready" when it listens
 * talks ask PROTOCOL ADDRESS PORT N   N times: a socket of its own, a question, an answer, another question, its answer
 * talks tell PROTOCOL ADDRESS PORT N  N times: a socket of its own, one message, no answer
 * PROTOCOL is tcp, udp or sctp; ADDRESS IPv4 or IPv6. Sockets of UDP stay open to the end, so that each has a port of its
 * own: one that has the port of another is the same talk to a server. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int make(int family, const char *protocol)
{
	if (!strcmp(protocol, "udp"))
		return socket(family, SOCK_DGRAM, 0);
	return socket(family, SOCK_STREAM, strcmp(protocol, "sctp") ? 0 : IPPROTO_SCTP);
}

static int serve(const char *protocol, int port)
{
	struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_port = htons(port)}, peer;
	int yes = 1, server = make(AF_INET6, protocol), client;
	char text[64];
	ssize_t length;

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(server, (void *)&own, sizeof(own)))
		return perror("bind"), 1;
	if (strcmp(protocol, "udp") && listen(server, 64))
		return perror("listen"), 1;
	puts("ready");
	fflush(stdout);
	for (;;) {
		socklen_t size = sizeof(peer);

		if (!strcmp(protocol, "udp")) {
			length = recvfrom(server, text, sizeof(text), 0, (void *)&peer, &size);
			if (length > 0 && text[0] == 'a')
				sendto(server, text, length, 0, (void *)&peer, size);
			continue;
		}
		client = accept(server, NULL, NULL);
		while ((length = read(client, text, sizeof(text))) > 0)
			if (text[0] == 'a' && write(client, text, length) != length)
				break;
		close(client);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in six4 = {.sin_family = AF_INET};
	struct sockaddr_in6 six6 = {.sin6_family = AF_INET6};
	int is4, fd, failed = 0;
	char text[64];

	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(argv[2], atoi(argv[3]));
	if (argc != 6)
		return 2;
	is4 = inet_pton(AF_INET, argv[3], &six4.sin_addr) == 1;
	if (!is4 && inet_pton(AF_INET6, argv[3], &six6.sin6_addr) != 1)
		return 2;
	six4.sin_port = six6.sin6_port = htons(atoi(argv[4]));
	for (int i = 0; i < atoi(argv[5]); i++) {
		fd = make(is4 ? AF_INET : AF_INET6, argv[2]);
		if (connect(fd, is4 ? (void *)&six4 : (void *)&six6, is4 ? sizeof(six4) : sizeof(six6))) {
			failed++;
			close(fd);
			continue;
		}
		if (!strcmp(argv[1], "tell")) {
			if (write(fd, "told", 4) != 4)
				failed++;
		} else {
			for (int n = 0; n < 2; n++)
				if (write(fd, "asked", 5) != 5 || read(fd, text, sizeof(text)) != 5)
					failed++;
		}
		if (strcmp(argv[2], "udp"))
			close(fd);
	}
	printf("%d failed\n", failed);
	return 0;
}
