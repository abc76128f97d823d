/* swaps N: N times opens the FIFO "fifo" of its working directory, and changes the path in memory to "innocent" while that
 * waits for the other end. Prints "done". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[16];
static volatile pid_t opener;

/* Whether the other thread waits in the kernel: what for is a name then, and else 0. */
static int waits(void)
{
	char file[64], text[16];
	int fd, length;

	snprintf(file, sizeof(file), "/proc/self/task/%d/wchan", opener);
	fd = open(file, O_RDONLY);
	length = read(fd, text, sizeof(text));
	close(fd);
	return length > 1;
}

static void *swap(void *unused)
{
	while (!waits())
		usleep(1000);
	strcpy(path, "innocent");
	return (void *)(long)open("./fifo", O_WRONLY);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	void *other;

	opener = gettid();
	if (mkfifo("fifo", 0600))
		return 1;
	for (int left = atoi(argv[1]); left > 0; left--) {
		strcpy(path, "fifo");
		pthread_create(&thread, NULL, swap, NULL);
		int fd = open(path, O_RDONLY);
		pthread_join(thread, &other);
		close(fd);
		close((long)other);
	}
	printf("done\n");
	return 0;
}
