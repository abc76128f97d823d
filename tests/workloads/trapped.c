/* Calls that seccomp keeps from happening by SIGSYS, a prime number of times each; among them 7 opens of /tmp/trapped,
 * after one of /tmp/file that happens, and 13 mounts after an fsopen. Where a first argument may be 0 it is: arm64 rolls the result back to that. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const int trapped[] = {SYS_openat, SYS_setuid,  SYS_chroot, SYS_memfd_create, SYS_mount, SYS_bind,
			      SYS_listen, SYS_connect, SYS_accept, SYS_kill,	     SYS_execve};

static void go_on(int number)
{
}

static int trap(void)
{
	struct sock_filter filter[LENGTH(trapped) + 3] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = {LENGTH(filter), filter};

	for (int i = 0; i < LENGTH(trapped); i++)
		filter[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, trapped[i], LENGTH(trapped) - i, 0);
	filter[LENGTH(trapped) + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	filter[LENGTH(trapped) + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
	signal(SIGSYS, go_on);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void repeat(int count, long number, long a, const void *b, long c)
{
	while (count--)
		syscall(number, a, b, c, 0, 0, 0);
}

int main(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7007), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const char *argv[] = {"trapped", NULL};

	if (syscall(SYS_openat, AT_FDCWD, "/tmp/file", O_WRONLY | O_CREAT, 0600) < 0 || unlink("/tmp/file"))
		return 1;
	if (syscall(SYS_fsopen, "tmpfs", 0) < 0)
		return 1;
	close(0);
	/* the second is where a trapped accept seems to have put a connection on x86 */
	if (socket(AF_INET, SOCK_STREAM, 0) != 0 || dup2(0, SYS_accept) != SYS_accept || trap())
		return 1;
	repeat(7, SYS_openat, AT_FDCWD, "/tmp/trapped", O_RDONLY);
	repeat(3, SYS_setuid, 0, NULL, 0);
	repeat(5, SYS_chroot, (long)"/trapped", NULL, 0);
	repeat(11, SYS_memfd_create, (long)"trapped", NULL, 0);
	repeat(13, SYS_mount, 0, "/trapped", 0);
	repeat(17, SYS_bind, 0, &to, sizeof(to));
	repeat(19, SYS_listen, 0, (void *)5, 0);
	repeat(23, SYS_connect, 0, &to, sizeof(to));
	repeat(29, SYS_accept, 0, NULL, 0);
	repeat(31, SYS_kill, 0, (void *)SIGUSR1, 0);
	repeat(37, SYS_execve, (long)"/trapped", argv, 0);
	puts("done");
	fflush(stdout);
	return 0;
}
