"""What the arguments of each call mean. The kernel's headers tell names and types; the rest is here, in one table."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

from gadget import syscalls
from gadget.syscalls import Argument, Capture, Syscall
from kubectl_gadget.strace import attributes, files, ioctls, siginfo
from kubectl_gadget.strace.calls import Call
from kubectl_gadget.strace.decoders import (
    ArgumentDecoder,
    Meaning,
    address,
    after_success,
    bits,
    choice_and_bits,
    directory,
    hex_number,
    length_of,
    mode,
    names,
    number,
    of_capture,
    shown,
    signed_number,
    strings,
    structure,
)
from kubectl_gadget.strace.dependent import (
    clone_flags,
    device,
    epoll_events,
    fcntl_argument,
    file_mode,
    futex_number,
    futex_operation,
    ioctl_request,
    only_if,
    poll_descriptors,
    prctl_argument,
    prctl_second_argument,
    protocol,
    socket_option,
    socket_option_value,
)
from kubectl_gadget.strace.messages import message, messages, vector
from kubectl_gadget.strace.structures import (
    clone_args,
    epoll_event,
    ints,
    itimerspec,
    itimerval,
    memfd_flags,
    mmap_flags,
    open_flags,
    open_how,
    rlimit,
    sigaction,
    signal_name,
    sigset,
    sockaddr,
    timespec,
    timespecs,
    timeval,
    timevals,
    utimbuf,
    wait_status,
)

_FUTEX_TIMED = (0, 6, 9, 11, 13)  # FUTEX_WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2


def _futex_waits(call: Call) -> bool:
    return call.args[1] & 0x7F in _FUTEX_TIMED


def _overwritten(call: Call) -> bool:
    """Whether what is left of a sleep was written over the request, as sleep(3) wants it, before the copy was made."""
    name = syscalls.find(call.machine, call.number).name
    request, left = call.args[0:2] if name == "nanosleep" else call.args[2:4]
    return call.failed and request == left


def _asked(call: Call) -> bool:
    """Whether select's sets still are those that it was given: when it succeeds the kernel writes what it found."""
    return call.failed


def _has_event(call: Call) -> bool:
    """EPOLL_CTL_DEL ignores its event."""
    return call.args[1] & 0xFFFFFFFF != syscalls.flags(call.machine, "EPOLL_CTL")["EPOLL_CTL_DEL"]


#: "call.argument" in the kernel's names, with * for any, to what it means. The first that fits counts.
MEANINGS: dict[str, Meaning] = {
    "access.mode faccessat.mode faccessat2.mode": bits("ACCESS", "F_OK"),
    "accept4.flags": bits("SOCKET_FLAG"),
    "arch_prctl.option": names("ARCH"),
    "arch_prctl.addr mmap.addr brk.brk mremap.*addr shmat.shmaddr": address,
    "bpf.attr": attributes.bpf,
    "bpf.cmd": names("BPF"),
    "clock_*.which_clock timer_create.which_clock timerfd_create.clockid futex_*.clockid": names("CLOCK"),
    "clock_nanosleep.flags timer_settime.flags": bits("TIMER_SET"),
    "*.rmtp": only_if(lambda call: call.failed, structure(timespec)),
    "*.rqtp": only_if(lambda call: not _overwritten(call), structure(timespec)),
    "clone.flags": clone_flags,
    "clone.stack clone.tls": address,
    "clone3.uargs": structure(clone_args),
    "close_range.fd close_range.max_fd": number,
    "close_range.flags": bits("CLOSE_RANGE"),
    "epoll_create1.flags": bits("EPOLL_CREATE"),
    "epoll_ctl.event": only_if(_has_event, structure(epoll_event)),
    "epoll_ctl.op": names("EPOLL_CTL"),
    "epoll_*wait*.events": epoll_events,
    "eventfd2.flags": bits("EVENTFD"),
    "execve.envp execveat.envp": strings(0),
    "faccessat2.flags": bits("AT_ACCESS"),
    "fallocate.mode": bits("FALLOC"),
    "*fadvise64*.advice": names("FADVISE"),
    "fanotify_mark.fd": directory,
    "fanotify_mark.flags": bits("FAN_MARK"),
    "fanotify_mark.mask": bits("FAN"),
    "fcntl.arg": fcntl_argument,
    "fcntl.cmd": names("FCNTL"),
    "flock.cmd": bits("FLOCK"),
    "*fstat*.statbuf stat.statbuf lstat.statbuf": structure(files.stat),
    "*statfs.buf": structure(files.statfs),
    "statx.buffer": structure(files.statx),
    "fsconfig.cmd": names("FSCONFIG"),
    "fsmount.flags": bits("FSMOUNT"),
    "fsmount.ms_flags": bits("MOUNT_ATTR"),
    "fsopen.flags": bits("FSOPEN"),
    "fspick.flags": bits("FSPICK"),
    "futex.op": futex_operation,
    "futex.utime": only_if(_futex_waits, structure(timespec), number),
    "futex.val3": futex_number,
    "getitimer.which setitimer.which": names("ITIMER"),
    "getpriority.which setpriority.which": names("PRIORITY"),
    "getrandom.flags": bits("RANDOM"),
    "getrusage.who": names("RUSAGE"),
    "getsockopt.level setsockopt.level": names("SOL"),
    "getsockopt.optname setsockopt.optname": socket_option,
    "inotify_add_watch.mask": bits("INOTIFY"),
    "inotify_init1.flags": bits("INOTIFY_INIT"),
    "io_uring_enter.flags": bits("IO_URING_ENTER"),
    "io_uring_setup.p": structure(attributes.io_uring),
    "io_uring_register.op": names("IO_URING_REGISTER"),
    "ioctl.arg": ioctls.argument,
    "ioctl.cmd": ioctl_request,
    "keyctl.arg2": attributes.key,
    "keyctl.arg[345]": hex_number,
    "keyctl.cmd": names("KEYCTL"),
    "add_key.destringid request_key.destringid": names("KEY_SPEC", str),
    "landlock_add_rule.rule_attr": structure(attributes.landlock_rule),
    "landlock_add_rule.rule_type": names("LANDLOCK_RULE"),
    "landlock_create_ruleset.attr": structure(attributes.landlock_ruleset),
    "landlock_create_ruleset.flags": bits("LANDLOCK_CREATE"),
    "lseek.whence": names("SEEK"),
    "madvise.behavior process_madvise.behavior": names("MADVISE"),
    "membarrier.cmd": names("MEMBARRIER"),
    "memfd_create.flags": shown(memfd_flags),
    "mknod*.dev": device,
    "mknod*.mode": file_mode,
    "mlock2.flags": bits("MLOCK"),
    "mlockall.flags": bits("MCL"),
    "mmap.flags": shown(mmap_flags),
    "mmap.off": hex_number,
    "mmap.prot mprotect.prot pkey_mprotect.prot": bits("PROT"),
    "mount.flags": bits("MOUNT"),
    "move_mount.ms_flags": bits("MOVE_MOUNT"),
    "mremap.flags": bits("MREMAP"),
    "msgget.msgflg semget.semflg shmget.flag": attributes.ipc_flags,
    "msgget.key semget.key shmget.key": attributes.ipc_key,
    "msync.flags": bits("MSYNC"),
    "open.flags openat.flags open_by_handle_at.flags mq_open.oflag": shown(open_flags),
    "open_tree.flags mount_setattr.flags": bits("OPEN_TREE"),
    "openat2.how": structure(open_how),
    "pidfd_open.flags": bits("PIDFD"),
    "pipe2.flags dup3.flags": bits("OPEN"),
    "pipe*.fildes socketpair.fds": structure(ints),
    "poll.ufds ppoll.fds": poll_descriptors,
    "preadv*.pos_l pwritev*.pos_l": attributes.offset,
    "prctl.arg2": prctl_argument,
    "prctl.arg3": prctl_second_argument,
    "prctl.arg[45]": hex_number,
    "prctl.option": names("PRCTL"),
    "preadv2.flags pwritev2.flags": bits("RW"),
    "prlimit64.*_rlim": structure(rlimit("RLIM64_INFINITY")),
    "prlimit64.resource getrlimit.resource setrlimit.resource": names("RLIMIT"),
    "ptrace.request": names("PTRACE"),
    "reboot.cmd": names("REBOOT"),
    "reboot.magic* rseq.rseq_len rseq.sig personality.personality": hex_number,
    "renameat2.flags": bits("RENAME"),
    "rt_sigprocmask.how": names("SIGPROCMASK"),
    "*setxattr.flags": bits("XATTR"),
    "sched_setscheduler.policy sched_get_priority_*.policy": names("SCHED"),
    "seccomp.flags": bits("SECCOMP_FILTER"),
    "seccomp.op": names("SECCOMP"),
    "sendmmsg.msg": messages,
    "*select*.inp *select*.outp *select*.exp": only_if(_asked, attributes.descriptors),
    "pselect6.timeout select.tvp ppoll.timeout": address,
    "send*.flags recv*.flags": bits("MSG"),
    "setns.nstype unshare.unshare_flags": bits("CLONE"),
    "shutdown.how": names("SHUTDOWN"),
    "signalfd4.flags": bits("SIGNALFD"),
    "socket.domain socketpair.domain": names("ADDRESS_FAMILY"),
    "socket.protocol socketpair.protocol": protocol,
    "socket.type socketpair.type": choice_and_bits(0xF, "SOCKET_TYPE", "SOCKET_FLAG"),
    "splice.flags tee.flags vmsplice.flags": bits("SPLICE"),
    "statx.flags": choice_and_bits(0x6000, "AT_STATX", "AT"),
    "statx.mask": bits("STATX"),
    "timerfd_create.flags": bits("TIMERFD"),
    "timerfd_settime.flags": bits("TIMERFD_SET"),
    "umask.mask": mode,
    "umount2.flags": bits("UMOUNT"),
    "unlinkat.flag": bits("AT_UNLINK"),
    "utimensat.utimes": structure(timespecs),
    "utimes.utimes futimesat.utimes": structure(timevals),
    "wait4.options waitid.options": bits("WAIT"),
    "wait4.stat_addr": only_if(lambda call: bool(call.result), structure(wait_status)),
    "waitid.infop": structure(siginfo.waited),
    "waitid.which": names("WAIT_ID"),
    "*at.flag linkat.flags execveat.flags fchmodat2.flags utimensat.flags": bits("AT"),
    "*.sig": shown(signal_name, "int"),
}  # fmt: skip
#: What a C type means, or the form of a name, where the table says nothing.
_STRUCTURES: dict[str, Meaning] = {
    "__kernel_itimerspec": structure(itimerspec),
    "__kernel_old_itimerval": structure(itimerval),
    "__kernel_old_timeval": structure(timeval),
    "__kernel_timespec": structure(timespec),
    "rlimit": structure(rlimit("RLIM_INFINITY")),
    "sigaction": structure(sigaction),
    "sigset_t": structure(sigset),
    "sockaddr": structure(sockaddr),
    "utimbuf": structure(utimbuf),
}
_DIRECTORY = re.compile(r"(old|new|from_|to_)?dfd")
_SIGNED = re.compile(r"\w*fd|fildes|fd_in|fd_out|user|group|r?[eus]?[ug]id")
_ADDRESS = re.compile(r"start|\w*addr")


def _by_type(call: Syscall, argument: Argument) -> Meaning:
    """What type and name of an argument say."""
    if not call.known:
        return hex_number
    if argument.is_pointer or "cap_user" in argument.kind:
        return address
    if argument.kind == "umode_t":
        return mode
    if _DIRECTORY.fullmatch(argument.name):
        return directory
    if _SIGNED.fullmatch(argument.name):
        return signed_number
    if argument.kind == "unsigned long" and _ADDRESS.fullmatch(argument.name):
        return address
    return hex_number if argument.name.endswith("flags") else number


def _by_capture(call: Syscall, capture: Capture, limit: int) -> Meaning:
    """What is known of user memory that was copied."""
    if call.name in ("getsockopt", "setsockopt"):
        return socket_option_value(limit)
    if capture.how is syscalls.How.VECTOR:
        return vector(limit, capture)
    if capture.how is syscalls.How.MESSAGE:
        return message(limit, capture)
    kind = call.arguments[capture.argument].kind.removeprefix("const ").removeprefix("struct ").removesuffix(" *")
    return _STRUCTURES.get(kind) or of_capture(capture, limit) or address


def _listed(call: Syscall, argument: Argument) -> Meaning | None:
    key = f"{call.name}.{argument.name}"
    return next(
        (meaning for keys, meaning in MEANINGS.items() for each in keys.split() if fnmatchcase(key, each)), None
    )


@lru_cache(4096)  # a process may call any number
def decoders(machine: str, number: int, limit: int) -> tuple[ArgumentDecoder, ...]:
    """How to show each argument of a call; of buffers no more than limit bytes."""
    call = syscalls.find(machine, number)
    captures = syscalls.pointed(machine, number)
    lengths = {
        capture.size: capture.argument for capture in captures.values() if capture.how is syscalls.How.BYTES_POINTED
    }
    found = []
    for index, argument in enumerate(call.arguments):
        capture = captures.get(index)
        meaning = _listed(call, argument)
        if meaning is None and capture:
            meaning = _by_capture(call, capture, limit)
        elif meaning is None and index in lengths:
            meaning = length_of(lengths[index])
        decoder = (meaning or _by_type(call, argument))(machine, argument)
        found.append(after_success(decoder) if capture and capture.after_success else decoder)
    return tuple(found)
