/* prints: writes to a pseudoterminal of its own in each way, and reads what is typed there, a prime number of times each;
 * and writes to what is none. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

static int window, terminal;
static char large[10000];
static void *volatile nowhere = (void *)8;

static void expect(int true, const char *what)
{
	if (!true)
		printf("%s\n", what);
}

static void *show(void *unused)
{
	char shown[4096];

	while (read(window, shown, sizeof(shown)) > 0)
		;
	return unused;
}

static void print(int times, const char *text, size_t length)
{
	for (int i = 0; i < times; i++)
		expect(write(terminal, text, length) == (ssize_t)length, "write");
}

static void print_parts(void)
{
	struct iovec three[] = {{"one ", 4}, {"", 0}, {"two\n", 4}}, long_ones[3], many[20];

	for (int i = 0; i < 7; i++)
		expect(writev(terminal, three, 3) == 8, "writev");
	for (int i = 0; i < 5; i++)
		expect(pwritev2(terminal, three, 3, -1, 0) == 8, "pwritev2");
	for (int i = 0; i < 3; i++)
		long_ones[i] = (struct iovec){large, 2000};
	expect(writev(terminal, long_ones, 3) == 6000, "long parts");
	for (int i = 0; i < 20; i++)
		many[i] = (struct iovec){"abcdefghijklmnopqrst" + i, 1};
	expect(writev(terminal, many, 20) == 20, "many parts");
}

static void print_files(int file)
{
	int ends[2];

	for (int i = 0; i < 17; i++) {
		off_t from = 0;

		expect(sendfile(terminal, file, &from, 6) == 6, "sendfile");
	}
	expect(!pipe(ends), "pipe");
	for (int i = 0; i < 19; i++) {
		expect(write(ends[1], "piped\n", 6) == 6, "write to a pipe");
		expect(splice(ends[0], NULL, terminal, NULL, 6, 0) == 6, "splice");
	}
}

static void print_in_vain(void)
{
	for (int i = 0; i < 11; i++) {
		expect(pwrite(terminal, "vain\n", 5, 0) < 0 && errno == ESPIPE, "pwrite");
		expect(write(terminal, nowhere, 5) < 0 && errno == EFAULT, "write from nowhere");
		expect(write(terminal, "", 0) == 0, "write of nothing");
	}
}

static void print_elsewhere(int file)
{
	int null = open("/dev/null", O_WRONLY);

	for (int i = 0; i < 29; i++) {
		expect(write(file, "filed\n", 6) == 6, "write to a file");
		expect(write(null, "null\n", 5) == 5, "write to /dev/null");
	}
}

static void type(int times, int parts)
{
	char line[64];
	struct iovec two[] = {{line, 3}, {line + 3, sizeof(line) - 3}};

	for (int i = 0; i < times; i++) {
		expect(write(window, "secret\n", 7) == 7, "type");
		expect((parts ? readv(terminal, two, 2) : read(terminal, line, sizeof(line))) == 7, "read");
	}
}

int main(void)
{
	struct termios silent;
	pthread_t shower;
	int file, own;

	file = memfd_create("file", 0); /* overlay, the root of a guest, has no O_TMPFILE on Linux 6.1 */
	expect(write(file, "filed\n", 6) == 6, "write to a file");
	setsid();
	window = posix_openpt(O_RDWR | O_NOCTTY);
	expect(!grantpt(window) && !unlockpt(window), "unlockpt");
	terminal = open(ptsname(window), O_RDWR | O_NOCTTY);
	tcgetattr(terminal, &silent);
	silent.c_lflag &= ~ECHO;
	tcsetattr(terminal, TCSANOW, &silent);
	pthread_create(&shower, NULL, show, NULL);
	memset(large, 'x', sizeof(large));
	print(101, "plain\n", 6);
	print(3, large, sizeof(large));
	print(2, large, 4096);
	print(11, "\xff caf\xc3\xa9 \xc3", 9);
	print(13, "\33[2J\33]0;title\7\r\n", 16);
	print_parts();
	print_files(file);
	print_in_vain();
	print_elsewhere(file);
	type(31, 0);
	type(3, 1);
	expect(!ioctl(terminal, TIOCSCTTY, 0), "TIOCSCTTY");
	own = open("/dev/tty", O_WRONLY);
	for (int i = 0; i < 23; i++)
		expect(write(own, "own\n", 4) == 4, "write to /dev/tty");
	printf("done\n");
	fflush(stdout);
	_exit(0);
}
