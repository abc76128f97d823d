/* breaks WHAT ...: calls that a container's work has no need of, each beside a harmless one.
 *   memory              runs /bin/true from memory
 *   bpf load|map        loads a program, or makes a map
 *   enter, separate     joins a namespace of its own process, makes one
 *   trace attach|me     attaches to its child, or lets its child be traced
 *   module FILE         asks the kernel to load a file that is none
 *   connect ADDRESS PORT [FD]  connects to itself, and makes that its descriptor FD
 *   speak PATH          connects to a socket that it makes there
 *   resolve NAME ADDRESS  asks 127.0.0.1 for a name, and answers with the address
 *   keep FILE           writes it under another name, and renames it
 *   write FILE NAME     calls itself so, and writes it
 *   run COMMAND         lets a shell do it, as a package manager does with scripts
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static void memory(void)
{
	char bytes[1 << 16], *command[] = {"true", NULL};
	int memo = must(memfd_create("memo", MFD_CLOEXEC), "memfd_create"),
	    file = must(open("/bin/true", O_RDONLY), "open");
	ssize_t size;

	while ((size = read(file, bytes, sizeof(bytes))) > 0)
		must(write(memo, bytes, size), "write");
	must(fexecve(memo, command, environ), "fexecve");
}

static void bpf(int loads)
{
	struct bpf_insn program[] = {{.code = 0xb7}, {.code = 0x95}}; /* r0 = 0; exit */
	union bpf_attr attr = {};

	if (loads) {
		attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
		attr.insns = (__u64)program;
		attr.insn_cnt = 2;
		attr.license = (__u64) "GPL";
	} else {
		attr.map_type = BPF_MAP_TYPE_ARRAY;
		attr.key_size = attr.value_size = 4;
		attr.max_entries = 1;
	}
	must(syscall(SYS_bpf, loads ? BPF_PROG_LOAD : BPF_MAP_CREATE, &attr, sizeof(attr)), "bpf");
}

static void trace(int attaches)
{
	pid_t child = fork();

	if (!child) {
		if (!attaches)
			must(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace");
		else
			pause();
		exit(0);
	}
	if (attaches) {
		must(ptrace(PTRACE_SEIZE, child, NULL, NULL), "ptrace");
		kill(child, SIGKILL);
	}
	wait(NULL); /* the end of a child that is traced by its parent */
}

static void speak(int family, void *address, socklen_t length, int becomes)
{
	int listener = must(socket(family, SOCK_STREAM, 0), "socket"),
	    end = must(socket(family, SOCK_STREAM, 0), "socket");
	int one = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	must(bind(listener, address, length), "bind");
	must(listen(listener, 1), "listen");
	must(connect(end, address, length), "connect");
	if (becomes >= 0)
		must(dup2(end, becomes), "dup2");
}

static struct sockaddr_in place(const char *address, int port)
{
	return (struct sockaddr_in){AF_INET, htons(port), {inet_addr(address)}, {}};
}

/* A question of one name, and the answer to it. */
static void resolve(char *name, const char *address)
{
	struct sockaddr_in server = place("127.0.0.1", 53), client;
	int asks = must(socket(AF_INET, SOCK_DGRAM, 0), "socket"),
	    answers = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	char packet[512] = {0, 1, 1, 0, 0, 1};
	int at = 12, number = inet_addr(address);
	socklen_t length = sizeof(client);

	for (char *label = strtok(name, "."); label; label = strtok(NULL, ".")) {
		packet[at++] = strlen(label);
		at = stpcpy(packet + at, label) - packet;
	}
	memcpy(packet + at, "\0\0\1\0\1", 5); /* the root, A, IN */
	at += 5;
	must(bind(answers, (void *)&server, sizeof(server)), "bind");
	must(connect(asks, (void *)&server, sizeof(server)), "connect");
	must(send(asks, packet, at, 0), "send");
	must(recvfrom(answers, packet, sizeof(packet), 0, (void *)&client, &length), "recvfrom");
	memcpy(packet + 2, "\x81\x80\0\1\0\1", 6);
	memcpy(packet + at, "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4", 12);
	memcpy(packet + at + 12, &number, 4);
	must(sendto(answers, packet, at + 16, 0, (void *)&client, length), "sendto");
	must(recv(asks, packet, sizeof(packet), 0), "recv");
}

static void keep(const char *file)
{
	char new[256];

	snprintf(new, sizeof(new), "%s.1", file);
	must(write(must(open(new, O_WRONLY | O_CREAT | O_EXCL, 0644), "open"), "x", 1), "write");
	must(rename(new, file), "rename");
}

int main(int argc, char **argv)
{
	const char *what = argv[1];

	if (!strcmp(what, "memory"))
		memory();
	if (!strcmp(what, "bpf"))
		bpf(!strcmp(argv[2], "load"));
	if (!strcmp(what, "enter"))
		must(setns(must(open("/proc/self/ns/uts", O_RDONLY), "open"), CLONE_NEWUTS), "setns");
	if (!strcmp(what, "separate"))
		must(unshare(CLONE_NEWUTS), "unshare");
	if (!strcmp(what, "trace"))
		trace(!strcmp(argv[2], "attach"));
	if (!strcmp(what, "module"))
		syscall(SYS_finit_module, must(open(argv[2], O_RDONLY), "open"), "", 0);
	if (!strcmp(what, "connect")) {
		struct sockaddr_in address = place(argv[2], atoi(argv[3]));

		speak(AF_INET, &address, sizeof(address), argc > 4 ? atoi(argv[4]) : -1);
	}
	if (!strcmp(what, "speak")) {
		struct sockaddr_un address = {AF_UNIX, ""};

		stpncpy(address.sun_path, argv[2], sizeof(address.sun_path) - 1);
		speak(AF_UNIX, &address, sizeof(address), -1);
	}
	if (!strcmp(what, "keep"))
		keep(argv[2]);
	if (!strcmp(what, "write")) {
		must(prctl(PR_SET_NAME, argv[3]), "prctl");
		must(open(argv[2], O_WRONLY | O_CREAT, 0644), "open");
	}
	if (!strcmp(what, "run"))
		return must(system(argv[2]), "system");
	if (!strcmp(what, "resolve"))
		resolve(argv[2], argv[3]);
	return 0;
}
