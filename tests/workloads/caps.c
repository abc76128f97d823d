/* caps: calls for which the kernel asks for a capability, a prime number of times, with it and then without. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ask(int count, long number, const void *argument, int error)
{
	while (count--)
		if ((syscall(number, argument) ? errno : 0) != error)
			printf("%ld: %s instead of %s\n", number, strerror(errno), strerror(error));
}

int main(void)
{
	ask(101, SYS_chroot, "/", 0);
	ask(7, SYS_swapoff, NULL, EFAULT);
	if (syscall(SYS_setresuid, 65534, 65534, 65534))
		return 1;
	ask(13, SYS_chroot, "/", EPERM);
	ask(5, SYS_swapoff, NULL, EPERM);
	printf("done\n");
	fflush(stdout);
	return 0;
}
