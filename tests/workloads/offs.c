// Three threads wait: one sleeps, one reads from a pipe, one waits for a lock (futex). Each says how often, and for how
// many nanoseconds all together, by its own clock. With a number N below 0: -N threads wait until the program is killed.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#pragma GCC optimize("no-omit-frame-pointer") // so that callers are found

static int rounds, ends[2], word;

// Libc's functions hide who calls them: they are made without frame pointers.
static inline long call(long number, long a, long b, long c, long d)
{
#ifdef __x86_64__
	register long fourth __asm__("r10") = d;
	long done;
	__asm__ volatile("syscall" : "=a"(done) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
	return done;
#else
	register long which __asm__("x8") = number, first __asm__("x0") = a, second __asm__("x1") = b;
	register long third __asm__("x2") = c, fourth __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(first) : "r"(which), "r"(second), "r"(third), "r"(fourth) : "memory");
	return first;
#endif
}

static long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

#define WAIT __attribute__((noinline)) long

WAIT wait_in_sleep(long milliseconds)
{
	struct timespec time = {0, milliseconds * 1000000};
	long began = now();

	call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&time, 0);
	return now() - began;
}

WAIT wait_in_read(void)
{
	long began = now();
	char byte;

	call(SYS_read, ends[0], (long)&byte, 1, 0);
	return now() - began;
}

WAIT wait_for_lock(int seen)
{
	long began = now();

	call(SYS_futex, (long)&word, FUTEX_WAIT_PRIVATE, seen, 0);
	return now() - began;
}

static void *sleeps(void *none)
{
	long took = 0;

	for (int at = 0; at < rounds; at++)
		took += wait_in_sleep(5);
	printf("sleeps %ld\n", took);
	return none;
}

static void *reads(void *none)
{
	long took = 0;

	for (int at = 0; at < rounds; at++)
		took += wait_in_read();
	printf("reads %ld\n", took);
	return none;
}

static void *locks(void *none)
{
	long took = 0;

	for (int at = 0; at < rounds; at++) {
		while (__atomic_load_n(&word, __ATOMIC_SEQ_CST) == at)
			took += wait_for_lock(at);
	}
	printf("locks %ld\n", took);
	return none;
}

static int wait_without_end(int threads)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (int at = 0; at < threads; at++) {
		if (pthread_create(&thread, &small, (void *(*)(void *))wait_in_read, NULL))
			return 1;
	}
	printf("ready\n");
	fflush(stdout);
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	void *(*run[])(void *) = {sleeps, reads, locks};
	const char *names[] = {"sleeps", "reads", "locks"};
	pthread_t threads[3];

	rounds = argc > 1 ? atoi(argv[1]) : 20;
	if (pipe(ends))
		return 1;
	if (rounds < 0)
		return wait_without_end(-rounds);
	for (int at = 0; at < 3; at++) {
		if (pthread_create(&threads[at], NULL, run[at], NULL))
			return 1;
		pthread_setname_np(threads[at], names[at]);
	}
	for (int at = 0; at < rounds; at++) {
		wait_in_sleep(10);
		if (write(ends[1], "x", 1) != 1)
			return 1;
		wait_in_sleep(3);
		__atomic_add_fetch(&word, 1, __ATOMIC_SEQ_CST);
		call(SYS_futex, (long)&word, FUTEX_WAKE_PRIVATE, 1, 0);
	}
	for (int at = 0; at < 3; at++)
		pthread_join(threads[at], NULL);
	return 0;
}
