/* passes: a parent sends descriptors of each kind to its child through a pair of sockets, a prime number of times each. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char byte = 'x';
static struct iovec part = {&byte, 1};

static void expect(int true, const char *what)
{
	if (!true)
		printf("%s\n", what);
}

static struct msghdr message(void *control, size_t length)
{
	return (struct msghdr){.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = length};
}

/* Credentials, then descriptors. */
static size_t fill(char *control, size_t size, const int *fds, int count)
{
	struct msghdr header = message(control, size);
	struct cmsghdr *first = CMSG_FIRSTHDR(&header);
	struct ucred credentials = {getpid(), getuid(), getgid()};

	*first = (struct cmsghdr){CMSG_LEN(sizeof(credentials)), SOL_SOCKET, SCM_CREDENTIALS};
	memcpy(CMSG_DATA(first), &credentials, sizeof(credentials));
	first = (void *)(control + CMSG_SPACE(sizeof(credentials)));
	*first = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(first), fds, count * sizeof(int));
	return CMSG_SPACE(sizeof(credentials)) + CMSG_SPACE(count * sizeof(int));
}

static void send_fds(int socket, const int *fds, int count)
{
	char control[2048] = {};
	struct msghdr header = message(control, fill(control, sizeof(control), fds, count));

	expect(sendmsg(socket, &header, 0) == 1, "sendmsg");
}

static void send_two_messages(int socket, int fd)
{
	char control[2][256] = {};
	struct mmsghdr headers[2] = {};

	for (int i = 0; i < 2; i++)
		headers[i].msg_hdr = message(control[i], fill(control[i], sizeof(control[i]), &fd, 1));
	expect(sendmmsg(socket, headers, 2, 0) == 2, "sendmmsg");
}

static int receive_all(int socket)
{
	char control[2048];
	int fds[400], received = 0;

	for (;;) {
		struct msghdr header = message(control, sizeof(control));
		struct cmsghdr *first;
		ssize_t length = recvmsg(socket, &header, 0);

		if (length <= 0)
			return received;
		for (first = CMSG_FIRSTHDR(&header); first; first = CMSG_NXTHDR(&header, first)) {
			int count = (first->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			if (first->cmsg_type != SCM_RIGHTS)
				continue;
			memcpy(fds, CMSG_DATA(first), count * sizeof(int));
			for (int i = 0; i < count; i++, received++)
				close(fds[i]);
		}
	}
}

int main(void)
{
	int ends[2], pipes[2], fds[101], file, memory, folder, status;
	pid_t child;

	expect(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
	child = fork();
	if (!child) {
		close(ends[0]);
		_exit(receive_all(ends[1]) != 13 + 7 + 5 + 3 + 11 + 2 + 101 + 34);
	}
	close(ends[1]);
	file = open("passed", O_RDWR | O_CREAT, 0600);
	folder = open(".", O_RDONLY | O_DIRECTORY);
	memory = memfd_create("memo", 0);
	expect(!pipe(pipes), "pipe");
	for (int i = 0; i < 13; i++)
		send_fds(ends[0], &file, 1);
	for (int i = 0; i < 7; i++)
		send_fds(ends[0], &folder, 1);
	for (int i = 0; i < 5; i++)
		send_fds(ends[0], &pipes[0], 1);
	for (int i = 0; i < 3; i++)
		send_fds(ends[0], &ends[0], 1);
	for (int i = 0; i < 11; i++)
		send_fds(ends[0], &memory, 1);
	memory = eventfd(0, 0);
	for (int i = 0; i < 2; i++)
		send_fds(ends[0], &memory, 1);
	memory = open("/dev/null", O_RDWR);
	for (int i = 0; i < 101; i++)
		fds[i] = memory;
	send_fds(ends[0], fds, 101);
	for (int i = 0; i < 17; i++)
		send_two_messages(ends[0], file);
	for (int i = 0; i < 19; i++) {
		struct msghdr nothing = message(NULL, 0);

		expect(sendmsg(ends[0], &nothing, 0) == 1, "sendmsg of nothing");
	}
	shutdown(ends[0], SHUT_WR);
	close(ends[0]);
	waitpid(child, &status, 0);
	expect(!status, "not all were received");
	unlink("passed");
	printf("done\n");
	fflush(stdout);
	return 0;
}
