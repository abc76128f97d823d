/* privs: calls that change or need privileges, a prime number of times each. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ATTACH   16 /* linux/ptrace.h */
#define NOBODY_HERE 4194303

static void repeat(int count, long number, long a, long b, long c, long d)
{
	while (count--)
		syscall(number, a, b, c, d, 0, 0);
}

static void in_child(int count, void (*work)(void))
{
	while (count--) {
		pid_t child = fork();

		if (!child) {
			work();
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

static void trace_me(void) { syscall(SYS_ptrace, 0, 0, 0, 0); }

static void change_user(void)
{
	syscall(SYS_setresgid, -1, 1234, -1);
	syscall(SYS_setuid, 65534);
	syscall(SYS_setuid, 0);
}

int main(void)
{
	repeat(13, SYS_unshare, CLONE_NEWUTS | CLONE_NEWIPC, 0, 0, 0);
	repeat(11, SYS_chroot, (long)"/", 0, 0, 0);
	repeat(5, SYS_chroot, (long)"/not/there", 0, 0, 0);
	repeat(7, SYS_memfd_create, (long)"memo", 0, 0, 0);
	in_child(3, trace_me);
	repeat(2, SYS_ptrace, ATTACH, NOBODY_HERE, 0, 0);
	repeat(17, SYS_seccomp, 2, 0, 0, 0);
	repeat(19, SYS_bpf, 5, 0, 0, 0);
	repeat(41, SYS_bpf, 1, 0, 0, 0);
	repeat(23, SYS_delete_module, (long)"no_such_module", 0, 0, 0);
	repeat(29, SYS_setns, -1, CLONE_NEWNET, 0, 0);
	in_child(31, change_user);
	repeat(37, SYS_keyctl, 0, -3, 0, 0);
	repeat(2, SYS_perf_event_open, 0, 0, -1, -1);
	repeat(3, SYS_io_uring_setup, 0, 0, 0, 0);
	repeat(5, SYS_userfaultfd, -1, 0, 0, 0);
	repeat(7, 446 /* landlock_restrict_self */, -1, 0, 0, 0);
	repeat(11, SYS_pivot_root, (long)"/not/there", (long)"/not/there", 0, 0);
	printf("done\n");
	fflush(stdout);
	return 0;
}
