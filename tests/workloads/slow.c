/* slow: reads, writes, opens and syncs, a prime number of times each, of files and of what is no file; and 3 reads that take
 * 300 ms: their buffer is a page that another thread provides only then. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define WAIT_MICROSECONDS 300000

static int faults;
static char bytes[8192];

static void expect(long result, long wanted, const char *what)
{
	if (result != wanted)
		printf("%s: %ld instead of %ld: %s\n", what, result, wanted, strerror(errno));
}

static void *provide(void *page)
{
	struct uffd_msg message;
	struct uffdio_zeropage zero = {.range = {(unsigned long)page, sysconf(_SC_PAGESIZE)}};

	expect(read(faults, &message, sizeof(message)), sizeof(message), "fault");
	usleep(WAIT_MICROSECONDS);
	expect(ioctl(faults, UFFDIO_ZEROPAGE, &zero), 0, "page");
	return NULL;
}

static void read_slowly(int fd)
{
	long size = sysconf(_SC_PAGESIZE);
	char *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = {.range = {(unsigned long)page, size}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	pthread_t thread;

	expect(ioctl(faults, UFFDIO_REGISTER, &range), 0, "register");
	pthread_create(&thread, NULL, provide, page);
	expect(pread(fd, page, 100, 0), 100, "slow read");
	pthread_join(thread, NULL);
	munmap(page, size);
}

static void all(int fd, int directory)
{
	struct iovec parts[2] = {{bytes, 1000}, {bytes, 24}};
	int made;

	for (int i = 0; i < 13; i++)
		expect(write(fd, bytes, 4096), 4096, "write");
	for (int i = 0; i < 7; i++)
		expect(pwritev(fd, parts, 2, 0), 1024, "pwritev");
	for (int i = 0; i < 11; i++)
		expect(pread(fd, bytes, 512, 0), 512, "pread");
	for (int i = 0; i < 5; i++)
		expect(preadv(fd, parts, 2, 4096), 1024, "preadv");
	expect(read(fd, bytes, 100), 0, "read at the end");
	for (int i = 0; i < 3; i++)
		expect(fsync(fd) | fdatasync(fd), 0, "sync");
	for (int i = 0; i < 17; i++) {
		made = openat(directory, "slow/other", O_RDWR | O_CREAT, 0600);
		close(made);
	}
	for (int i = 0; i < 19; i++)
		expect(open("slow/none", O_RDONLY), -1, "open in vain");
	for (int i = 0; i < 2; i++)
		expect(read(directory, bytes, 10), -1, "read of a directory");
}

static void no_files(void)
{
	int ends[2];

	expect(pipe(ends), 0, "pipe");
	for (int i = 0; i < 23; i++) {
		expect(write(ends[1], bytes, 10), 10, "write to a pipe");
		expect(read(ends[0], bytes, 10), 10, "read of a pipe");
	}
	expect(read(1000, bytes, 10), -1, "read of nothing");
}

int main(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd, directory, slow;

	mkdir("slow", 0700);
	directory = open(".", O_RDONLY | O_DIRECTORY);
	fd = open("slow/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	all(fd, directory);
	no_files();
	slow = open("slow/slow", O_RDWR | O_CREAT | O_TRUNC, 0600);
	expect(write(slow, bytes, 4096), 4096, "write");
	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	expect(ioctl(faults, UFFDIO_API, &api), 0, "userfaultfd");
	for (int i = 0; i < 3; i++)
		read_slowly(slow);
	printf("done\n");
	fflush(stdout);
	return 0;
}
