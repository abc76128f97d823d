"""Seccomp profiles of the OCI runtime specification: made from calls, and asked about calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gadget import syscalls
from gadget.errors import UsageError
from gadget.text import counted
from kubectl_gadget.advise.seccomp.collect import CallingWorkload

ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
#: What --default-action is called.
ACTIONS = {"errno": ERRNO, "kill": "SCMP_ACT_KILL_PROCESS", "log": "SCMP_ACT_LOG"}
#: Of each machine, what its calls and those of its 32-bit programs are called.
ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
#: What runc calls between loading the profile and starting the program, by strace of runc 1.1; what its runtime (Go's)
#: may call at any time; and what newer ones may call in place of these.
RUNTIME = (
    *("capget", "capset", "chdir", "close", "epoll_ctl", "execve", "faccessat2", "fchown", "fcntl", "fstat", "fstatfs"),
    *("futex", "getcwd", "getdents64", "getpid", "getppid", "newfstatat", "openat", "prctl", "read", "setgid"),
    *("setgroups", "setuid", "write"),
    *("epoll_pwait", "gettid", "madvise", "mmap", "munmap", "nanosleep", "rt_sigaction", "rt_sigprocmask"),
    *("sched_yield", "sigaltstack", "tgkill"),
    *("close_range", "fchdir", "openat2", "statx"),
)
#: What the kernel itself lets every program call: to end, to return from a signal, to go on after one.
KERNEL = ("exit", "exit_group", "restart_syscall", "rt_sigreturn")
KERNEL_COMPAT = ("sigreturn",)
ENOSYS = 38  # asm-generic/errno.h
#: What a runtime reads is a file of some ten kilobytes.
MOST_BYTES = 4 << 20
LEAST_SURE = "of runc and of the kernel, not seen: a container cannot begin or end without"
CLONE3 = "so that libc calls clone, as where the kernel has no clone3"


def make(workload: CallingWorkload, action: str) -> dict[str, Any]:
    """The profile that allows what a workload called, and what its runtime needs.

    A comment says what each rule is for: runtimes read over members that they do not know.
    """
    seen, machines = workload.names, sorted({*workload.calls, *workload.compat})
    needed = {
        name
        for machine in machines
        for name in (*RUNTIME, *KERNEL, *(KERNEL_COMPAT if machine in workload.compat else ()))
        if name in _known(machine, compat=machine in workload.compat)
    }
    rules: list[dict[str, Any]] = [{"names": sorted(seen), "action": ALLOW, "comment": f"seen: {evidence(workload)}"}]
    if needed - seen:
        rules.append({"names": sorted(needed - seen), "action": ALLOW, "comment": LEAST_SURE})
    if "clone3" not in seen and "clone" in seen and action != ACTIONS["log"]:
        rules.append({"names": ["clone3"], "action": ERRNO, "errnoRet": ENOSYS, "comment": CLONE3})
    return {"defaultAction": action, "architectures": _architectures(workload), "syscalls": rules}


def evidence(workload: CallingWorkload) -> str:
    """What the profile of a workload is from, in a few words."""
    seconds = (workload.last - workload.first) // 10**9
    return f"{counted(workload.containers, 'container')} of {workload}, watched for {_duration(seconds)}"


def _duration(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _known(machine: str, *, compat: bool) -> set[str]:
    tables = [syscalls.table(machine), *([syscalls.compat_table(machine)] if compat else [])]
    return {call.name for table in tables for call in table.values()}


def _architectures(workload: CallingWorkload) -> list[str]:
    found = {ARCHITECTURES[machine][0] for machine in (*workload.calls, *workload.compat)}
    return sorted(found | {ARCHITECTURES[machine][1] for machine in workload.compat}, key=_order)


def _order(architecture: str) -> int:
    return [each for both in ARCHITECTURES.values() for each in both].index(architecture)


def file_name(workload: CallingWorkload) -> str:
    """What the file of a workload's profile is called, without its suffix."""
    parts = (workload.namespace, workload.name, workload.container)
    return re.sub(r"[^A-Za-z0-9_.-]", "_", ".".join(part for part in parts if part)).lstrip(".-") or "_"


# reading


@dataclass(frozen=True)
class Profile:
    """A profile that somebody has. allowed and sometimes by name; architectures are empty if it names none."""

    default: str
    architectures: frozenset[str]
    rules: Mapping[str, str]
    sometimes: frozenset[str]

    def action(self, name: str) -> str:
        """What becomes of a call, ALLOW or another action."""
        return self.rules.get(name, self.default)

    def allows(self, name: str) -> bool:
        """Whether a call happens. One that does by its arguments counts as allowed."""
        return name in self.sometimes or lets_pass(self.action(name))

    def has(self, architecture: str) -> bool:
        """Whether calls of an architecture are looked at; the others end the program."""
        return not self.architectures or architecture in self.architectures

    def allowed(self) -> set[str]:
        """The names that rules allow."""
        return {name for name, action in self.rules.items() if lets_pass(action)} | set(self.sometimes)


def lets_pass(action: str) -> bool:
    """Whether a call happens by an action."""
    return action in (ALLOW, "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")


def read(path: Path) -> Profile:
    """The profile in a file, also in Docker's form. UsageError if it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("too long")
        return parse(msgspec.json.decode(data))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a seccomp profile: {error}") from None


class _Rule(msgspec.Struct):
    """What becomes of calls; older files have one call a rule."""

    action: str
    names: list[str] | None = None
    name: str = ""
    args: Any = None
    includes: Any = None
    excludes: Any = None

    @property
    def has_conditions(self) -> bool:
        """Whether it holds for some of these calls alone."""
        return any((self.args, self.includes, self.excludes))


class _Architecture(msgspec.Struct, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _File(msgspec.Struct, rename="camel"):
    """A profile as it is written, in the OCI's form or in Docker's."""

    default_action: str
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    syscalls: list[_Rule] | None = None


def parse(content: Any) -> Profile:
    """A profile. libseccomp takes the rule without conditions if there is one; of several the last one.

    Raises:
        ValueError: It is none.

    """
    file = msgspec.convert(content, _File)
    architectures = set(file.architectures or ())
    for each in file.arch_map or ():
        architectures |= {each.architecture, *(each.sub_architectures or ())}
    rules: dict[str, str] = {}
    sometimes: set[str] = set()
    for rule in file.syscalls or ():
        names = [rule.name] if rule.names is None else rule.names
        if not rule.has_conditions:
            rules.update(dict.fromkeys(names, rule.action))
        elif lets_pass(rule.action):
            sometimes.update(names)
    return Profile(file.default_action, frozenset(architectures), rules, frozenset(sometimes))
