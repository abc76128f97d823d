/* traffic: once /tmp/go is there, a server and a client in one process over loopback: 101 connections with known bytes each
 * way, closed first by the server and by the client in turns; 13 over IPv6. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listener;

static int read_all(int fd)
{
	char data[4096];
	int total = 0, got;

	while ((got = read(fd, data, sizeof(data))) > 0)
		total += got;
	return total;
}

/* Of connection N: the client sends 10 N bytes, the server 3 N; N odd: the server closes first. */
static void *serve(void *unused)
{
	static char data[4096];

	for (int i = 0; i < 101; i++) {
		int fd = accept(listener, NULL, NULL);
		int number;
		recv(fd, &number, sizeof(number), MSG_WAITALL);
		for (int left = number * 10 - 4; left > 0; left -= read(fd, data, left))
			;
		write(fd, data, 3 * number);
		if (number % 2 == 0)
			read_all(fd);
		close(fd);
	}
	return NULL;
}

int main(void)
{
	struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(7000)};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(7000), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	static char data[4096];
	pthread_t server;

	while (access("/tmp/go", F_OK))
		usleep(10000);
	listener = socket(AF_INET6, SOCK_STREAM, 0);
	if (bind(listener, (void *)&here, sizeof(here)) || listen(listener, 128))
		perror("listen");
	pthread_create(&server, NULL, serve, NULL);
	here.sin6_addr = in6addr_loopback;
	for (int i = 1; i <= 101; i++) {
		int fd = socket(i <= 13 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
		int number = i, left;
		if (i <= 13 ? connect(fd, (void *)&here, sizeof(here)) : connect(fd, (void *)&four, sizeof(four)))
			perror("connect");
		memcpy(data, &number, sizeof(number));
		write(fd, data, i * 10);
		for (left = 3 * i; left > 0; left -= read(fd, data, left))
			;
		if (i % 2)
			read_all(fd);
		close(fd);
	}
	pthread_join(server, NULL);
	printf("done\n");
	fflush(stdout);
	pause();
}
