/* caps: calls for which the kernel asks for a capability, a prime number of times, with it and then without. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void ask(int count, long number, const void *argument, int error)
{
	while (count--)
		if ((syscall(number, argument) ? errno : 0) != error)
			printf("%ld: %s instead of %s\n", number, strerror(errno), strerror(error));
}

/* For what is mapped more the kernel asks without audit whether some memory is kept from it. */
static void grow(int count)
{
	size_t page = sysconf(_SC_PAGESIZE), pages = 1;
	void *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (; count--; pages++)
		at = mremap(at, pages * page, (pages + 1) * page, MREMAP_MAYMOVE);
	if (at == MAP_FAILED)
		printf("mremap: %s\n", strerror(errno));
}

int main(void)
{
	grow(17);
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
