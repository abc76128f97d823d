// Runs code that it makes, and tells what it is called in /tmp/perf-PID.map: jits NAME...
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

#ifdef __x86_64__
// 1: dec %rdi; jnz 1b; ret
static const unsigned char code[] = {0x48, 0xff, 0xcf, 0x75, 0xfb, 0xc3};
#else
// 1: subs x0, x0, #1; b.ne 1b; ret
static const unsigned int code[] = {0xf1000400, 0x54ffffe1, 0xd65f03c0};
#endif

int main(int argc, char **argv)
{
	char path[64], *area = mmap(NULL, PAGE * argc, PROT_READ | PROT_WRITE | PROT_EXEC,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *map;

	mkdir("/tmp", 0777);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	for (int at = 1; at < argc; at++) {
		memcpy(area + PAGE * at, code, sizeof(code));
		fprintf(map, "%lx %lx %s\n", (unsigned long)(area + PAGE * at), (unsigned long)sizeof(code), argv[at]);
	}
	fclose(map);
	__builtin___clear_cache(area, area + PAGE * argc);
	printf("spinning\n");
	fflush(stdout);
	for (;;)
		for (int at = 1; at < argc; at++)
			((void (*)(unsigned long))(area + PAGE * at))(1000000);
}
