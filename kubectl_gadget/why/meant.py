"""Tables: causes of failed calls, words for what calls do, and words by which programs report errors."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

from gadget import syscalls
from kubectl_gadget.why.arguments import meaning
from kubectl_gadget.why.noted import NO_ANSWER, NO_REPLY, Failure

_EXEC = ("execve", "execveat")
_FORK = ("clone", "clone3", "fork", "vfork")
_MEMORY = ("mmap", "brk", "mremap", "mprotect", "shmget", "shmat", "mlock", "mlock2", "mlockall")
#: What only a capability allows: capabilities(7).
PRIVILEGED = {
    "bind": "CAP_NET_BIND_SERVICE",
    "capset": "CAP_SETPCAP",
    "chown": "CAP_CHOWN",
    "chroot": "CAP_SYS_CHROOT",
    "clock_settime": "CAP_SYS_TIME",
    "fchown": "CAP_CHOWN",
    "fchownat": "CAP_CHOWN",
    "init_module": "CAP_SYS_MODULE",
    "finit_module": "CAP_SYS_MODULE",
    "lchown": "CAP_CHOWN",
    "mknod": "CAP_MKNOD",
    "mlock": "CAP_IPC_LOCK",
    "mlock2": "CAP_IPC_LOCK",
    "mlockall": "CAP_IPC_LOCK",
    "mknodat": "CAP_MKNOD",
    "mount": "CAP_SYS_ADMIN",
    "move_mount": "CAP_SYS_ADMIN",
    "fsopen": "CAP_SYS_ADMIN",
    "pivot_root": "CAP_SYS_ADMIN",
    "ptrace": "CAP_SYS_PTRACE",
    "reboot": "CAP_SYS_BOOT",
    "sched_setscheduler": "CAP_SYS_NICE",
    "setdomainname": "CAP_SYS_ADMIN",
    "setgid": "CAP_SETGID",
    "setgroups": "CAP_SETGID",
    "sethostname": "CAP_SYS_ADMIN",
    "setns": "CAP_SYS_ADMIN",
    "setpriority": "CAP_SYS_NICE",
    "setregid": "CAP_SETGID",
    "setresgid": "CAP_SETGID",
    "setresuid": "CAP_SETUID",
    "setreuid": "CAP_SETUID",
    "settimeofday": "CAP_SYS_TIME",
    "setuid": "CAP_SETUID",
    "socket": "CAP_NET_RAW",
    "prlimit64": "CAP_SYS_RESOURCE",
    "setrlimit": "CAP_SYS_RESOURCE",
    "swapon": "CAP_SYS_ADMIN",
    "umount2": "CAP_SYS_ADMIN",
    "unshare": "CAP_SYS_ADMIN",
}


#: What container runtimes' profiles refuse, and the kernel by itself does not, or seldom.
_FILTERED = ("add_key", "bpf", "io_uring_setup", "kcmp", "keyctl", "personality", "perf_event_open", "request_key",
             "userfaultfd", "clone3", "process_vm_readv", "quotactl", "open_by_handle_at")  # fmt: skip


class Meant(NamedTuple):
    """What a failure of some calls with some errors means. No calls: any. serious: programs do not fail so idly."""

    cause: str
    errors: tuple[str, ...]
    calls: tuple[str, ...] = ()
    serious: bool = False


#: The first that fits counts.
MEANT = (
    Meant("missing-program", ("ENOENT", "ENOTDIR"), _EXEC),
    Meant("not-executable", ("EACCES", "EPERM", "EISDIR"), _EXEC, serious=True),
    Meant("wrong-format", ("ENOEXEC", "ELIBBAD"), _EXEC, serious=True),
    Meant("inotify", ("ENOSPC",), ("inotify_add_watch",), serious=True),
    Meant("inotify", ("EMFILE",), ("inotify_init", "inotify_init1"), serious=True),
    Meant("processes", ("EAGAIN",), _FORK, serious=True),
    Meant("memory", ("ENOMEM",), serious=True),
    Meant("memory", ("EAGAIN",), _MEMORY, serious=True),
    Meant("descriptors", ("EMFILE", "ENFILE"), serious=True),
    Meant("disk", ("ENOSPC", "EDQUOT"), serious=True),
    Meant("file-size", ("EFBIG",), serious=True),
    Meant("read-only", ("EROFS",), serious=True),
    Meant("address-in-use", ("EADDRINUSE",), serious=True),
    Meant("address-not-available", ("EADDRNOTAVAIL",), ("bind", "connect", "sendto"), serious=True),
    Meant("refused", ("ECONNREFUSED",)),
    Meant("no-answer", (NO_ANSWER, NO_REPLY), serious=True),
    Meant("seccomp", ("EPERM",), _FILTERED, serious=True),
    Meant("no-answer", ("ETIMEDOUT",), ("connect", "read", "recvfrom", "recvmsg", "write", "sendto", "sendmsg")),
    Meant("unreachable", ("ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN"), ("connect", "sendto", "sendmsg")),
    Meant("reset", ("ECONNRESET", "EPIPE", "ECONNABORTED")),
    Meant("capability", ("EPERM",), tuple(name for name in PRIVILEGED)),
    Meant("capability", ("EPERM",), ("ioctl",)),
    Meant("capability", ("EACCES",), ("bind",), serious=True),
    Meant("missing-file", ("ENOENT", "ENOTDIR")),
    Meant("permission", ("EACCES", "EPERM"), serious=True),
    Meant("missing-file", ("ELOOP",), serious=True),
    Meant("missing-file", ("EISDIR", "ENAMETOOLONG", "ENXIO", "ENODEV"), ("open", "openat", "openat2", "creat")),
    Meant("missing-file", ("EISDIR",), ("read", "readv", "pread64")),
)

#: How users would say what a call wanted to do with its subject.
VERBS = {
    **dict.fromkeys(("open", "openat", "openat2", "creat"), "open"),
    **dict.fromkeys(("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
                     "readlinkat", "statfs"), "find"),
    **dict.fromkeys(_EXEC, "run"),
    **dict.fromkeys(_FORK, "start a process"),
    **dict.fromkeys(("mmap", "brk", "mremap", "shmget", "shmat"), "get memory"),
    **dict.fromkeys(("mlock", "mlock2", "mlockall"), "lock memory"),
    **dict.fromkeys(("mkdir", "mkdirat"), "make the folder"),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), "remove"),
    **dict.fromkeys(("chown", "lchown", "fchown", "fchownat"), "change the owner of"),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "fchmodat2"), "change the mode of"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "rename"),
    **dict.fromkeys(("symlink", "symlinkat", "link", "linkat"), "link"),
    **dict.fromkeys(("truncate", "ftruncate", "fallocate"), "change the size of"),
    **dict.fromkeys(("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg",
                     "fsync", "fdatasync", "copy_file_range", "sendfile"), "write to"),
    **dict.fromkeys(("read", "readv", "pread64", "recvfrom", "recvmsg"), "read from"),
    **dict.fromkeys(("setuid", "setreuid", "setresuid", "setgid", "setregid", "setresgid", "setgroups"),
                    "change its user or group"),
    **dict.fromkeys(("inotify_init", "inotify_init1"), "watch files"),
    **dict.fromkeys(("setrlimit", "prlimit64"), "raise a limit"),
    "inotify_add_watch": "watch",
    "ioctl": "change a device or a network",
    "connect": "connect to",
    "bind": "listen on",
    "listen": "listen on",
    "chdir": "change to the folder",
    "chroot": "change its root to",
    "mount": "mount",
    "umount2": "unmount",
    "socket": "make a socket",
    "pipe": "make a pipe",
    "pipe2": "make a pipe",
    **dict.fromkeys(("dup", "dup2", "dup3"), "copy a descriptor"),
    **dict.fromkeys(("epoll_create", "epoll_create1", "eventfd", "eventfd2", "signalfd4", "timerfd_create"),
                    "wait for events"),
    "memfd_create": "get memory",
    "socketpair": "make a socket",
    "fcntl": "lock",
    "accept": "accept a connection on",
    "accept4": "accept a connection on",
    "unshare": "make a namespace",
    "setns": "enter a namespace",
    "sethostname": "set the host's name",
    "ptrace": "trace a process",
    "prctl": "change its own settings",
}  # fmt: skip
SHORT = {
    "ENOENT": "no such file",
    "ENOTDIR": "a part of the path is no folder",
    "EACCES": "permission denied",
    "EPERM": "not permitted",
    "ECONNREFUSED": "connection refused",
    "ETIMEDOUT": "no answer",
    "ENETUNREACH": "network unreachable",
    "EHOSTUNREACH": "host unreachable",
    NO_ANSWER: "nobody answered",
    NO_REPLY: "nothing came",
    "ENOEXEC": "no program of this machine, and no script with #!",
}
#: Other words by which programs tell an error than those of strerror(3), in lower case, and mean nothing else.
_SYNONYMS = {
    NO_ANSWER: ("timed out", "timeout", "time out", "deadline exceeded", "operation now in progress"),
    NO_REPLY: ("timed out", "timeout", "time out", "deadline exceeded", "temporarily unavailable"),
    "ENOENT": ("no such file", "nosuchfile"),
    "EPERM": ("permission denied",),
    "ETIMEDOUT": ("timed out", "timeout", "time out"),
    "EADDRNOTAVAIL": ("assign requested",),
    "ENOSPC": ("no space", "disk full", "disk is full", "limit of inotify", "limit on inotify"),
    "EMFILE": ("too many open files",),
    "ENFILE": ("too many open files",),
    "ENOMEM": ("cannot allocate", "can't allocate", "out of memory", "memoryerror", "bad_alloc", "not enough space",
               "insufficient memory"),
    "EAGAIN": ("temporarily unavailable", "can't fork", "cannot fork", "can't start new thread",
               "pthread_create failed", "newosproc"),
    "EROFS": ("read-only file",),
    "ENOEXEC": ("exec format error",),
    "ECONNRESET": ("reset by peer", "connection reset"),
    "EFBIG": ("file size limit",),
}  # fmt: skip
#: Likewise, but they may be about something else that has nothing to do with a call.
_HINTS = {
    NO_ANSWER: ("in progress", "deadline", "unreachable", "connect to", "to connect", "not connect to",
                "connection failed", "connection to"),
    NO_REPLY: ("deadline", "reply", "response", "answer"),
    "ENOENT": ("not found", "does not exist", "doesn't exist", "cannot find", "can't find", "missing", "no such"),
    "EACCES": ("access denied", "accessdenied", "forbidden"),
    "EPERM": ("not allowed",),
    "ECONNREFUSED": ("refused",),
    "EADDRINUSE": ("in use",),
    "EADDRNOTAVAIL": ("not available",),
    "EAGAIN": ("unable to create",),
    "EROFS": ("read-only", "readonly"),
    "ENOEXEC": ("cannot execute", "syntax error", "not found"),
    "ECONNRESET": ("closed",),
    "EPIPE": ("closed",),
    "ENETUNREACH": ("unreachable", "no route"),
    "EHOSTUNREACH": ("unreachable", "no route"),
    "EFBIG": ("too large",),
}  # fmt: skip
#: Files that programs look for as a matter of course, and do without.
IDLE = re.compile(
    r"/zoneinfo|/etc/(ld\.so\.(preload|nohwcap|cache)|localtime|nsswitch\.conf|gai\.conf|resolv\.conf|host\.conf|hosts|passwd"
    r"|group|services|terminfo|inputrc|profile)|locale|gconv|/nscd/|hsperfdata|pyvenv\.cfg|\.pth$|__pycache__|\.pyc$"
    r"|/glibc-hwcaps/|python\d*\.zip|pybuilddir|/sys/(fs/cgroup|kernel/mm|devices|class|module)|/proc/|/dev/(tty|shm|log|console)"
    r"|SELinux|selinux|/usr/share/(zoneinfo|terminfo)|package\.json$|\.dll$|/etc/ssl/|openssl\.cnf|\.jsa$"
    r"|/\.(local|config|cache)/|/\.\w+rc$|/usr/lib/(jvm|ssl|locale)|/(site|dist)-packages$|/Modules/Setup\.local$"
    r"|node_modules|classlist|/sitecustomize|/usercustomize|\.abi3\.so$|cpython-"
)
#: What programs do as they end, whether there is something to clean or not.
CLEANS = ("unlink", "unlinkat", "rmdir", "kill")
LIBRARY = re.compile(r"\.so(\.\d+)*$")
#: What calls fail with in every program's life, to try again or to learn what there is.
ORDINARY = ("EAGAIN", "EINTR", "EINPROGRESS", "EALREADY", "ENOTTY", "EINVAL", "ESPIPE", "ECHILD", "ESRCH", "EEXIST",
            "ENOSYS", "ENOTSOCK", "ENOPROTOOPT", "ENOTCONN", "EBADF", "ENODATA", "EOPNOTSUPP", "ENOTSUP", "ERANGE",
            "EFAULT", "ENOTEMPTY")  # fmt: skip
#: What a line has in it that tells an error.
ERROR_LINE = re.compile(
    r"(?i)\b(error|fatal|fail(ed|ure)?|panic|cannot|can't|could not|couldn't|unable|invalid|denied|missing|refused|"
    r"required|not set|abort|exception|must|no such|not found|file exists|(?:does not|doesn't) exist)\b"
)
#: What fails for a whole file system: a program may name the folder in which it wanted to make a file.
_OF_MOUNTS = ("EROFS", "ENOSPC", "EDQUOT")
#: What a line has in it that tells of an error which does not matter.
HARMLESS = re.compile(
    r"(?i)\b(ignor(?:ed|ing)|skipp(?:ed|ing)|(?:using|with) (?:the |its )?defaults?|fall(?:s|ing)? back|optional|"
    r"continuing|not fatal|non-fatal|harmless)\b"
)
#: A name that is shorter is found in other words.
_SHORTEST = 4


def what_failed(failure: Failure) -> Meant | None:
    """What a failure means; None if such failures are in every program's life."""
    return _meant(failure.error, failure.name)


@lru_cache(4096)
def _meant(error: str, name: str) -> Meant | None:
    for meant in MEANT:
        if error in meant.errors and (name in meant.calls or (not meant.calls and name in VERBS)):
            return meant
    return None


def mentions_subject(text: str, failure: Failure) -> bool:
    """Whether text names what a call was about: by its whole name, a file by its last part, a peer by host or port."""
    subject = failure.subject
    if mentions(text, subject.rstrip("/") or subject):
        return True
    if failure.name in ("connect", "bind", "sendto") and ":" in subject:
        host, _, port = subject.rpartition(":")
        return mentions(text, host.strip("[]")) or (port in text and bool(_port(port).search(text)))
    folder, _, base = subject.rstrip("/").rpartition("/")
    if failure.error in _OF_MOUNTS and len(folder) >= _SHORTEST and mentions(text, folder):
        return True
    return len(base) >= _SHORTEST and mentions(text, base)


def mentions(text: str, name: str) -> bool:
    """Whether a name is in text, and is no part of a longer one."""
    return bool(name) and name in text and bool(_whole(name).search(text))


@lru_cache(1024)
def _whole(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?!/?\.?[\w-])")


@lru_cache(256)
def _port(port: str) -> re.Pattern[str]:
    """A port as addresses have it, and not a number or a time: ":6379", "port 6379", "('redis', 6379)"."""
    return re.compile(rf"""(?i)(?:(?<!\b\d\d):|\bport\W{{1,3}}|['"], ?){port}(?!\w|\.\d)""")


@lru_cache(1024)
def mentions_another_error(text: str, error: str) -> bool:
    """Whether text has the message of another error than this one, and not its own."""
    lower = text.lower()
    return not mentions_error(text, error) and any(message in lower for message in _messages())


@cache
def _messages() -> tuple[str, ...]:
    """What strerror(3) says of errors, but what is a word of other texts."""
    return tuple(text.lower() for _, text in syscalls.errors().values() if " " in text and len(text) > _SHORTEST * 2)


@lru_cache(4096)
def mentions_error(text: str, error: str, *, hints: bool = True) -> bool:
    """Whether text names an error, by its name, its message or in other words; hints are vague."""
    lower = text.lower()
    return any(word in lower for word in _words_for(error, hints))


@lru_cache(512)
def _words_for(error: str, hints: bool) -> tuple[str, ...]:
    vague = _HINTS.get(error, ()) if hints else ()
    return (meaning(error).lower(), error.lower(), *_SYNONYMS.get(error, ()), *vague)
