"""Causes that a call which failed shows. A table says what a failure means; the rest finds out which one mattered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kubectl_gadget.strace import Call
from kubectl_gadget.values import short_duration
from kubectl_gadget.why import now
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain, quoted
from kubectl_gadget.why.history import NO_ANSWER, NO_REPLY, Failure, History, meaning

_EXEC = ("execve", "execveat")
_FORK = ("clone", "clone3", "fork", "vfork")
_MEMORY = ("mmap", "brk", "mremap", "mprotect", "shmget", "shmat", "mlock", "mlockall")
#: What only a capability allows: capabilities(7).
_PRIVILEGED = {
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
    Meant("capability", ("EPERM",), tuple(name for name in _PRIVILEGED)),
    Meant("capability", ("EACCES",), ("bind",), serious=True),
    Meant("missing-file", ("ENOENT", "ENOTDIR")),
    Meant("permission", ("EACCES", "EPERM", "ELOOP"), serious=True),
    Meant("missing-file", ("EISDIR", "ENAMETOOLONG", "ENXIO", "ENODEV")),
)

#: How users would say what a call wanted to do with its subject.
_VERBS = {
    **dict.fromkeys(("open", "openat", "openat2", "creat"), "open"),
    **dict.fromkeys(("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
                     "readlinkat", "statfs"), "find"),
    **dict.fromkeys(_EXEC, "run"),
    **dict.fromkeys(_FORK, "start a process"),
    **dict.fromkeys(("mmap", "brk", "mremap", "mlock", "mlockall", "shmget", "shmat"), "get memory"),
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
    "inotify_add_watch": "watch",
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
    "dup": "copy a descriptor",
    "fcntl": "lock",
    "accept": "accept a connection on",
    "accept4": "accept a connection on",
    "unshare": "make a namespace",
    "setns": "enter a namespace",
    "sethostname": "set the host's name",
    "ptrace": "trace a process",
    "prctl": "change its own settings",
}  # fmt: skip
_SHORT = {
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
#: Other words by which programs tell an error than those of strerror(3), in lower case.
_SYNONYMS = {
    NO_ANSWER: ("timed out", "timeout", "time out", "in progress", "deadline", "unreachable", "connect"),
    NO_REPLY: ("timed out", "timeout", "time out", "temporarily unavailable", "deadline", "reply", "response",
               "answer"),
    "ENOENT": ("no such file", "not found", "does not exist", "doesn't exist", "cannot find", "can't find", "missing",
               "no such", "nosuchfile"),
    "EACCES": ("permission denied", "access denied", "accessdenied", "forbidden"),
    "EPERM": ("not permitted", "permission denied", "not allowed"),
    "ECONNREFUSED": ("connection refused", "refused"),
    "ETIMEDOUT": ("timed out", "timeout", "time out"),
    "EADDRINUSE": ("in use",),
    "EADDRNOTAVAIL": ("not available", "assign requested"),
    "ENOSPC": ("no space", "disk full", "disk is full", "limit of inotify", "limit on inotify"),
    "EMFILE": ("too many open files",),
    "ENFILE": ("too many open files",),
    "ENOMEM": ("cannot allocate", "can't allocate", "out of memory", "memoryerror", "bad_alloc", "not enough space",
               "insufficient memory"),
    "EAGAIN": ("temporarily unavailable", "can't fork", "cannot fork", "can't start new thread", "unable to create",
               "pthread_create failed", "newosproc"),
    "EROFS": ("read-only", "readonly"),
    "ENOEXEC": ("exec format error", "cannot execute", "syntax error", "not found"),
    "ECONNRESET": ("reset by peer", "connection reset", "closed"),
    "EPIPE": ("broken pipe", "closed"),
    "ENETUNREACH": ("unreachable", "no route"),
    "EHOSTUNREACH": ("unreachable", "no route"),
    "EFBIG": ("too large", "file size limit"),
}  # fmt: skip
#: Files that programs look for as a matter of course, and do without.
_IDLE = re.compile(
    r"/etc/(ld\.so\.(preload|nohwcap|cache)|localtime|nsswitch\.conf|gai\.conf|resolv\.conf|host\.conf|hosts|passwd"
    r"|group|services|terminfo|inputrc|profile)|locale|gconv|/nscd/|hsperfdata|pyvenv\.cfg|\.pth$|__pycache__|\.pyc$"
    r"|/glibc-hwcaps/|python\d*\.zip|pybuilddir|/sys/(fs/cgroup|kernel/mm|devices|class|module)|/proc/|/dev/(tty|shm)"
    r"|SELinux|selinux|/usr/share/(zoneinfo|terminfo)|package\.json$|\.dll$|/etc/ssl/|openssl\.cnf|\.jsa$"
    r"|/usr/lib/(jvm|ssl|locale)|node_modules|classlist|/sitecustomize|/usercustomize|\.abi3\.so$|cpython-"
)
#: What programs do as they end, whether there is something to clean or not.
_CLEANS = ("unlink", "unlinkat", "rmdir", "kill")
_LIBRARY = re.compile(r"\.so(\.\d+)*$")
_AGAIN = ("EAGAIN", "EINTR", "EINPROGRESS", "EALREADY", "ENOTTY", "EINVAL", "ESPIPE", "ECHILD", "ESRCH", "EEXIST",
          "ENOSYS", "ENOTSOCK", "ENOPROTOOPT", "ENOTCONN", "EBADF", "ENODATA", "EOPNOTSUPP", "ENOTSUP", "ERANGE",
          "EFAULT", "ENOTEMPTY")  # fmt: skip


@dataclass
class Candidate:
    """Failures that were alike: the last one, and how many there were. rank: in the chain of ends, 0 is the first.

    places are the paths at which one name was looked for.
    """

    meant: Meant
    last: Failure
    count: int
    rank: int
    places: set[str]


def what_failed(failure: Failure) -> Meant | None:
    """What a failure means; None if such failures are in every program's life."""
    for meant in MEANT:
        if failure.error in meant.errors and (
            failure.name in meant.calls or (not meant.calls and failure.name in _VERBS)
        ):
            return meant
    return None


def find(facts: Facts) -> Iterator[Finding]:
    """Findings of the calls that failed, of the process whose end it was and of those that it waited for."""
    history = facts.history
    for candidate in _candidates(history):
        yield _finding(facts, candidate)


def _candidates(history: History) -> list[Candidate]:
    chain = {pid: rank for rank, pid in enumerate(history.chain)}
    found: dict[tuple[str, str, str], Candidate] = {}
    for failure in history.failures:
        meant = what_failed(failure)
        if meant is None or (failure.error in _AGAIN and not meant.serious):
            continue
        rank = chain.get(failure.call.pid, len(chain) + 1)
        # a name that is looked for in one folder after another is one thing that is missing
        base = failure.subject.rpartition("/")[2] if failure.error == "ENOENT" else failure.subject
        key = (meant.cause, failure.name if meant.serious else "", base or failure.name)
        if known := found.get(key):
            known.last, known.count, known.rank = failure, known.count + 1, min(known.rank, rank)
            known.places.add(failure.subject)
        else:
            found[key] = Candidate(meant, failure, 1, rank, {failure.subject})
    return list(found.values())


def _recovered(history: History, failure: Failure) -> bool:
    """Whether its process came to what it wanted by another path or address afterwards, or was there before."""
    pid, subject = failure.call.pid, failure.subject
    if not subject:
        return False
    if failure.name == "connect":
        port = subject.rpartition(":")[2]
        return any(time > failure.call.time_ns and name.rpartition(":")[2] == port
                   for (owner, name), time in history.reached.items() if owner == pid and ":" in name)  # fmt: skip
    base = subject.rstrip("/").rpartition("/")[2]
    return any(
        time > failure.call.time_ns and name.rpartition("/")[2] == base
        for (owner, name), time in history.reached.items()
        if owner == pid
    )


def mentions_subject(text: str, failure: Failure) -> bool:
    """Whether text names what a call was about."""
    subject = failure.subject
    if not subject:
        return False
    if failure.name in ("connect", "bind", "sendto") and ":" in subject:
        host, _, port = subject.rpartition(":")
        return subject in text or bool(re.search(rf"(?<!\d){re.escape(port)}(?!\d)", text)) or host.strip("[]") in text
    base = subject.rstrip("/").rpartition("/")[2]
    return subject in text or (len(base) > 2 and base in text)


def mentions_error(text: str, error: str) -> bool:
    """Whether text names an error, by its name, its message or in other words."""
    lower = text.lower()
    words = (meaning(error).lower(), error.lower(), *_SYNONYMS.get(error, ()))
    return any(word in lower for word in words)


def _finding(facts: Facts, candidate: Candidate) -> Finding:
    history, failure, meant = facts.history, candidate.last, candidate.meant
    call = failure.call
    words = history.words_after(call.time_ns)
    before = history.last_words()[: -len(words) or None]
    about, error = mentions_subject(words, failure), mentions_error(words, failure.error)
    work = history.work_after(failure.at, call.pid)
    bad = bool(facts.status)
    recovered = _recovered(history, failure)
    last = not about and error and _is_last(history, failure)
    weight = _base(about, error, work, silent=not words and not before, last=last)
    if meant.serious and candidate.rank <= len(history.chain):
        weight += 44 if work <= 2 and not (about or error) else 15
    if failure.name in _CLEANS and not (about and error):
        weight -= 40
    if facts.code == 127 and meant.cause == "missing-file":  # what a shell looked for: said.toml tells it
        weight -= 8
    weight += min(candidate.count, 8) if meant.cause in ("refused", "no-answer", "unreachable") else 0
    in_chain = candidate.rank < len(history.chain)
    weight -= 4 * candidate.rank if in_chain else 8 if about and error else 25
    if recovered and not (about and error):
        weight -= 45
    if _IDLE.search(failure.subject) and not (about and error):
        weight -= 40
    said = _said(words, failure)
    if about or error:
        weight += _lateness(words, said)
    elif in_chain and bad and failure is _last_of_note(history):
        weight = max(weight, 44 + min(candidate.count - 1, 30))
    cause = meant.cause
    if cause == "permission" and failure.error == "EPERM" and (call.pid, failure.subject) in history.made:
        cause = "seccomp"  # its own file: nothing else refuses that
    if cause == "missing-file" and _LIBRARY.search(failure.subject):
        cause = "missing-library"
        weight -= 0 if about else 30
    if cause == "wrong-format" and re.search("x7fELF|exec format|cannot execute", words, re.IGNORECASE):
        weight = 99
    if cause in ("refused", "no-answer") and failure.subject.endswith(":53"):
        cause = "dns"
    forced = (about and error) or (last and _is_only(history, failure))
    forced = forced or (work == 0 and (not words or error) and not before)
    certain = bad and in_chain and not recovered and forced
    return Finding(
        cause=cause,
        sentence=_sentence(facts, candidate, said),
        weight=min(weight, 99.0),
        certain=certain,
        evidence=(call, *_ending(history, call, said)),
        details=_details(facts, candidate),
        told=said,
    )


def _is_last(history: History, failure: Failure) -> bool:
    """Whether no call of its process failed so afterwards: then it is the one that was told."""
    later = (each for each in history.failures if each.at > failure.at and each.call.pid == failure.call.pid)
    return not any(each.error == failure.error for each in later)


def _is_only(history: History, failure: Failure) -> bool:
    """Whether nothing else failed so in the processes whose end it was."""
    alike = (each for each in history.failures if each.error == failure.error and each.call.pid in history.chain)
    return all(each.subject == failure.subject for each in alike)


def _base(about: bool, error: bool, work: int, *, silent: bool, last: bool) -> float:
    """How much speaks for a failure by what was said after it, and by what its program still did."""
    if about and error:
        return 88
    if error:
        return 82 if last else 78 if work < 10 else 60
    if about:
        return 60 if work < 40 else 45
    near = 58 if silent else 45
    return near * 0.8**work if work else near


def _lateness(words: str, said: str) -> float:
    """0 to 14: what was said last counts most."""
    if not said:
        return 0
    lines = [line for line in words.splitlines() if line.strip()]
    return 14 if lines and lines[-1] == said else 6 * (words.rfind(said) + len(said)) / (len(words) + 1)


def _last_of_note(history: History) -> Failure | None:
    """The last failure of the processes whose end it was that is not a matter of course."""
    for failure in reversed(history.failures):
        if failure.call.pid not in history.chain or what_failed(failure) is None or failure.name in _CLEANS:
            continue
        if failure.error not in _AGAIN and not _IDLE.search(failure.subject) and not _recovered(history, failure):
            return failure
    return None


def _said(words: str, failure: Failure) -> str:
    """The line of output that tells a failure: that which names it, else the last that tells the error."""
    lines = [line for line in words.splitlines() if line.strip()]
    tests: tuple[Callable[[str], bool], ...] = (
        lambda line: mentions_subject(line, failure) and mentions_error(line, failure.error),
        lambda line: mentions_error(line, failure.error),
        lambda line: mentions_subject(line, failure),
    )
    for test in tests:
        if found := [line for line in lines if test(line)]:
            return found[-1]
    return ""


def _sentence(facts: Facts, candidate: Candidate, said: str) -> str:
    failure, history = candidate.last, facts.history
    verb = _VERBS.get(failure.name, f"{failure.name}:" if failure.subject else failure.name)
    subject = plain(facts.names.get(failure.subject, failure.subject))
    short = _SHORT.get(failure.error, meaning(failure.error).lower())
    who = "it"
    if failure.call.pid != history.main and (name := history.program(failure.call.pid)):
        who = plain(name, 40)
    times = f", {candidate.count} times" if candidate.count > 2 else ""
    if len(candidate.places) > 1:
        subject, times = plain(failure.subject.rpartition("/")[2]), f", in {len(candidate.places)} folders"
    error = f" ({failure.error})" if failure.error.startswith("E") else ""
    what = f"{who} could not {verb}{f' {subject}' if subject else ''}: {short}{error}{times}"
    return what + _until_end(facts, failure.call, said)


def _until_end(facts: Facts, call: Call, said: str) -> str:
    """What was said about it, and how much later the container ended."""
    last = facts.history.words_after(call.time_ns).strip().splitlines()[-1:]
    words = (
        f"; it said {quoted(said, 100)}" if said else f"; its last words were {quoted(last[0], 100)}" if last else ""
    )
    over = max((end.time_ns for ends in facts.history.ends.values() for end in ends), default=0)
    if not over or facts.running:
        return words
    later = f"ended {short_duration(max(0, over - call.time_ns))} later"
    return f"{words} and {later}" if said else f"{words}; it {later}"


def _ending(history: History, call: Call, said: str) -> Sequence[Call]:
    """The calls behind a failure that show what it led to: what said it, and the end."""
    after = [entry for entry in history.entries if isinstance(entry, Call) and entry.time_ns > call.time_ns]
    words = said.strip()[:24]
    telling = [each for each in after if words and words in _written(each)][:1]
    ending = [each for each in after if each.result is None and each.pid in history.chain][-1:]
    return [*telling, *ending]


def _written(call: Call) -> str:
    found = call.captured.get(1)
    return found.data.decode("utf-8", "backslashreplace") if found else ""


def _details(facts: Facts, candidate: Candidate) -> tuple[str, ...]:
    """What else is known of what a failure was about."""
    failure, found = candidate.last, []
    if candidate.meant.cause == "capability" and (needed := _PRIVILEGED.get(failure.name)):
        found.append(f"that takes {needed}")
    if candidate.meant.cause == "permission" and (failure.call.pid, failure.subject) in facts.history.made:
        found.append(f"it made that itself, so a seccomp profile or a security module refuses {failure.name}")
    if candidate.meant.cause == "seccomp":
        found.append(f"the kernel seldom refuses {failure.name} by itself: a seccomp profile does")
    if failure.name.startswith("inotify") and not facts.live:
        found.append("the node's limits are fs.inotify.max_user_instances and fs.inotify.max_user_watches")
    if note := facts.notes.get(failure.subject):
        found.append(note)
    if facts.kubernetes:
        for path, what in facts.kubernetes.mounts.items():
            if failure.subject == path or failure.subject.startswith(path.rstrip("/") + "/"):
                found.append(f"the pod mounts {plain(what)} at {plain(path)}")
    return (*found, *now.details(facts, failure, candidate.meant.cause))
