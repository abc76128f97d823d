/* literals: failed execs whose arguments lie in pages that their process has not touched. After argv[1] of these, one each
 * with an argument that is in no memory, one beyond 4 KiB, and an exec that fails when its old program is gone. */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* further apart than the kernel maps pages around one that is touched */
#define APART   (1 << 18)
#define LITERAL static const char __attribute__((aligned(APART)))

LITERAL name[] = "untouched";
LITERAL second[APART] = "second argument";
LITERAL third[APART] = {[4090] = 'c', 'r', 'o', 's', 's', 'e', 's', ' ', 'p', 'a', 'g', 'e', 's'};
LITERAL longest[APART] = {[0 ... 4999] = 'y'};
LITERAL end[] = "";

static void fail(const char *path, const char *const *arguments)
{
	int status;

	if (fork() == 0) {
		execv(path, (char *const *)arguments);
		_exit(0);
	}
	wait(&status);
}

/* A program of which the kernel finds only at its last segment that it cannot be mapped. */
static void make_broken(const char *path)
{
	struct {
		Elf64_Ehdr head;
		Elf64_Phdr load[2];
	} file = {
		.head = {.e_ident = ELFMAG "\2\1\1", .e_type = ET_EXEC, .e_version = 1, .e_ehsize = sizeof(Elf64_Ehdr)},
	};
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755);

#if defined(__x86_64__)
	file.head.e_machine = EM_X86_64;
#else
	file.head.e_machine = EM_AARCH64;
#endif
	file.head.e_phoff = offsetof(typeof(file), load);
	file.head.e_phentsize = sizeof(Elf64_Phdr);
	file.head.e_phnum = 2;
	file.head.e_entry = 0x10000000;
	file.load[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x10000000, .p_filesz = 64,
				    .p_memsz = 64, .p_align = 0x10000};
	file.load[1] = file.load[0];
	file.load[1].p_vaddr = 0x20000000;
	file.load[1].p_memsz = 32; /* less than there is of it in the file */
	if (write(fd, &file, sizeof(file)) != sizeof(file))
		abort();
	close(fd);
}

int main(int argc, char **argv)
{
	const char *untouched[] = {name, second, third + 4090, NULL};
	int status;

	for (int i = 0; i < atoi(argv[1]); i++)
		fail("/not/there", untouched);
	fail("/not/there", (const char *[]){"nowhere", (char *)8, "hidden", NULL});
	fail("/not/there", (const char *[]){"5000 bytes", longest, NULL}); /* no tail of a libc string, which lies elsewhere */
	make_broken("/tmp/broken");
	fail("/tmp/broken", (const char *[]){"half-way", "second argument", NULL});
	printf("done\n");
	fflush(stdout);
	pause();
}
