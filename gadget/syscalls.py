"""System calls by machine: their names, numbers and arguments, and which user memory of each is worth copying.

The table is generated from the kernel's headers by build_syscalls.py. A machine is named as uname does: x86_64,
aarch64.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import orjson

from gadget.errors import UsageError

TABLE = Path(__file__).parent / "_generated" / "syscalls.json"
MACHINES = ("x86_64", "aarch64")
CAPTURES_MAX = 3
ARGUMENTS_MAX = 6
#: Added to the number of a 32-bit call.
COMPAT = 1 << 32
#: A call that took this long (nanoseconds) and then failed has waited for an answer.
WAITED_NS = 300_000_000


class How(IntEnum):
    """How the kernel side finds the length of the user memory at args[argument]. Its numbers are in its program."""

    STRING = 1  # up to NUL
    BYTES_ARG = 2  # args[size] bytes
    BYTES_RESULT = 3  # as many bytes as the result says, and no more than args[size]
    BYTES_FIXED = 4  # size bytes
    BYTES_POINTED = 5  # as many bytes as the u32 at args[size] says
    STRINGS = 6  # an array of pointers to strings, up to NULL
    VECTOR = 7  # struct iovec[args[size]]: the bytes it points to; no more than the result if after_success
    MESSAGE = 8  # struct msghdr: the bytes its iovecs point to; no more than the result if after_success
    BITS = 9  # a set of args[size] bits
    REST = 10  # struct iovec[args[size]]: the buffers behind the one that VECTOR copies
    HEADER = 11  # struct msghdr: name, control messages, the buffers behind the one that MESSAGE copies


@dataclass(frozen=True)
class Capture:
    """User memory to copy when a call returns. after_success: the memory means something only if the call succeeded."""

    argument: int
    how: How
    size: int = 0
    after_success: bool = False


@dataclass(frozen=True)
class Argument:
    """An argument's name and C type in the kernel's prototype, without __user."""

    name: str
    kind: str

    @property
    def is_pointer(self) -> bool:
        """Whether it is an address in user memory."""
        return self.kind.endswith("*")


@dataclass(frozen=True)
class Syscall:
    """A system call of one machine. known: the headers have its prototype.

    Without one its arguments are six registers.
    """

    name: str
    number: int
    arguments: tuple[Argument, ...]
    known: bool = True


@cache
def _table() -> Any:
    return orjson.loads(TABLE.read_bytes())


_REGISTERS = tuple(Argument(f"arg{index}", "unsigned long") for index in range(ARGUMENTS_MAX))


def _described(machine: str, which: str) -> dict[int, Syscall]:
    return {
        int(number): Syscall(
            name,
            int(number),
            _REGISTERS if arguments is None else tuple(Argument(*each) for each in arguments),
            arguments is not None,
        )
        for number, (name, arguments) in _table()["machines"][machine][which].items()
    }


@cache
def table(machine: str) -> dict[int, Syscall]:
    """Every system call of a machine by number."""
    return _described(machine, "calls")


@cache
def compat_table(machine: str) -> dict[int, Syscall]:
    """The calls of a machine's 32-bit programs by number.

    Calls with other arguments than the 64-bit ones have registers.
    """
    return _described(machine, "compat")


@lru_cache(4096)  # a process may call any number
def find(machine: str, number: int) -> Syscall:
    """The call of that number; one newer than the headers is named by its number, as strace does."""
    if number & COMPAT and (known := compat_table(machine).get(number & ~COMPAT)):
        return known
    bits = "_32bit" if number & COMPAT else ""
    return table(machine).get(number) or Syscall(
        f"syscall{bits}_{number & ~COMPAT:#x}", number & ~COMPAT, _REGISTERS, known=False
    )


@cache
def numbers(machine: str) -> dict[str, int]:
    """The number of each call of a machine by name."""
    return {call.name: number for number, call in table(machine).items()}


@cache
def flags(machine: str, name: str) -> dict[str, int]:
    """A set of names such as OPEN or SIGNAL, in the order of the header they come from."""
    return dict(_table()["machines"][machine]["sets"][name])


@cache
def errors() -> dict[int, tuple[str, str]]:
    """Name and meaning of each errno, of the kernel's own too: the same on all machines."""
    return {int(number): (name, meaning) for number, (name, meaning) in _table()["errors"].items()}


def match(patterns: Sequence[str]) -> frozenset[str]:
    """The names that patterns such as "open*,connect" choose, on any machine. UsageError for one that chooses none."""
    names = {name for machine in MACHINES for name in numbers(machine)}
    chosen: set[str] = set()
    for pattern in (part.strip() for item in patterns for part in item.split(",")):
        if not pattern:
            continue
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            near = get_close_matches(pattern, sorted(names), n=3, cutoff=0.5)
            raise UsageError(f"no system call {pattern!r}: " + (f"is it {' or '.join(near)}?" if near else "see man 2"))
        chosen |= found
    return frozenset(chosen)


#: Bytes of the structures that are copied whole. They are ABI, and the same on 64-bit machines.
_SIZES = {
    "__kernel_timespec": 16,
    "__kernel_old_timeval": 16,
    "__kernel_itimerspec": 32,
    "__kernel_old_itimerval": 32,
    "rlimit": 16,
    "rlimit64": 16,
    "sigset_t": 8,
    "sigaction": 32,
    "utimbuf": 16,
}
_LENGTH = re.compile(r"n|count|size|len|\w+(len|siz|size)|bytecount")
_OUT = re.compile(r"o(set|act|value|tmr|ld_\w+)")
_GETTER = re.compile(r"get|clock_get|timer_get|timerfd_get|sched_rr_get|rt_sigpending|sigaltstack")
_IN, _AFTER = False, True
_SELECT = (Capture(1, How.BITS, 0), Capture(2, How.BITS, 0), Capture(4, How.BYTES_FIXED, 16))
#: Up to the size of a file, in struct stat and struct statx.
_STAT, _STATX = 56, 48
#: What the prototypes do not tell, or tell wrong. None: nothing of the call is worth copying.
_EXCEPTIONS: dict[str, tuple[Capture, ...] | None] = {
    "clone3": (Capture(0, How.BYTES_ARG, 1),),
    "epoll_ctl": (Capture(3, How.BYTES_FIXED, 12),),
    "epoll_pwait": (Capture(1, How.BYTES_FIXED, 48, _AFTER),),
    "epoll_pwait2": (Capture(1, How.BYTES_FIXED, 48, _AFTER), Capture(3, How.BYTES_FIXED, 16)),
    "epoll_wait": (Capture(1, How.BYTES_FIXED, 48, _AFTER),),
    "execve": (Capture(0, How.STRING), Capture(1, How.STRINGS)),
    "execveat": (Capture(1, How.STRING), Capture(2, How.STRINGS)),
    "futimesat": (Capture(1, How.STRING), Capture(2, How.BYTES_FIXED, 32)),
    "fcntl": (Capture(2, How.BYTES_FIXED, 32),),  # struct flock; of most commands it is no address
    "fsconfig": (Capture(2, How.STRING), Capture(3, How.STRING)),
    "fstat": (Capture(1, How.BYTES_FIXED, _STAT, _AFTER),),
    "fstatfs": (Capture(1, How.BYTES_FIXED, 40, _AFTER),),
    "getcwd": (Capture(0, How.STRING, 0, _AFTER),),
    "getrandom": None,
    "getsockopt": (Capture(3, How.BYTES_POINTED, 4, _AFTER),),
    "init_module": (Capture(2, How.STRING),),
    "bpf": (Capture(1, How.BYTES_FIXED, 16),),
    "io_uring_setup": (Capture(1, How.BYTES_FIXED, 28),),
    "ioctl": (Capture(2, How.BYTES_FIXED, 36),),  # struct termios; what is longer is not shown
    "landlock_add_rule": (Capture(2, How.BYTES_FIXED, 12),),
    "landlock_create_ruleset": (Capture(0, How.BYTES_ARG, 1),),
    "lstat": (Capture(0, How.STRING), Capture(1, How.BYTES_FIXED, _STAT, _AFTER)),
    "modify_ldt": None,
    "mount": (Capture(0, How.STRING), Capture(1, How.STRING), Capture(2, How.STRING)),
    "newfstatat": (Capture(1, How.STRING), Capture(2, How.BYTES_FIXED, _STAT, _AFTER)),
    "openat2": (Capture(1, How.STRING), Capture(2, How.BYTES_ARG, 3)),
    "pipe": (Capture(0, How.BYTES_FIXED, 8, _AFTER),),
    "pipe2": (Capture(0, How.BYTES_FIXED, 8, _AFTER),),
    # of ppoll and select the kernel has written what is left over the timeout by the time of the copy, and of select
    # what it found over what was asked for
    "poll": (Capture(0, How.BYTES_FIXED, 32),),
    "ppoll": (Capture(0, How.BYTES_FIXED, 32), Capture(2, How.BYTES_FIXED, 16)),
    "prctl": (Capture(1, How.STRING),),  # PR_SET_NAME; of other options it is no address, and copying fails
    "process_vm_readv": (Capture(1, How.VECTOR, 2, _AFTER),),
    "process_vm_writev": (Capture(1, How.VECTOR, 2),),
    "pselect6": _SELECT,
    "recvmmsg": None,
    "recvmsg": (Capture(1, How.MESSAGE, 0, _AFTER), Capture(1, How.HEADER, 0, _AFTER)),
    "select": _SELECT,
    "sendmmsg": (Capture(1, How.MESSAGE), Capture(1, How.HEADER)),
    "sendmsg": (Capture(1, How.MESSAGE), Capture(1, How.HEADER)),
    "sendto": (Capture(1, How.BYTES_ARG, 2), Capture(4, How.BYTES_ARG, 5)),
    "setdomainname": (Capture(0, How.BYTES_ARG, 1),),
    "sethostname": (Capture(0, How.BYTES_ARG, 1),),
    "setsockopt": (Capture(3, How.BYTES_ARG, 4),),
    "socketpair": (Capture(3, How.BYTES_FIXED, 8, _AFTER),),
    "stat": (Capture(0, How.STRING), Capture(1, How.BYTES_FIXED, _STAT, _AFTER)),
    "statfs": (Capture(0, How.STRING), Capture(1, How.BYTES_FIXED, 40, _AFTER)),
    "statx": (Capture(1, How.STRING), Capture(4, How.BYTES_FIXED, _STATX, _AFTER)),
    "umount2": (Capture(0, How.STRING),),
    "utime": (Capture(0, How.STRING), Capture(1, How.BYTES_FIXED, 16)),
    "utimensat": (Capture(1, How.STRING), Capture(2, How.BYTES_FIXED, 32)),
    "utimes": (Capture(0, How.STRING), Capture(1, How.BYTES_FIXED, 32)),
    "wait4": (Capture(1, How.BYTES_FIXED, 4, _AFTER),),
    "waitid": (Capture(2, How.BYTES_FIXED, 28, _AFTER),),  # siginfo_t up to si_status
}
#: An epoll_event is packed on x86 only.
_AARCH64_EXCEPTIONS = {
    "epoll_ctl": (Capture(3, How.BYTES_FIXED, 16),),
    "epoll_pwait": (Capture(1, How.BYTES_FIXED, 64, _AFTER),),
    "epoll_pwait2": (Capture(1, How.BYTES_FIXED, 64, _AFTER), Capture(3, How.BYTES_FIXED, 16)),
}


def _captures(call: Syscall) -> Iterator[Capture]:
    """What the types and names of a call's arguments say."""
    for index, argument in enumerate(call.arguments):
        following = call.arguments[index + 1] if index + 1 < len(call.arguments) else Argument("", "")
        counted = bool(_LENGTH.fullmatch(following.name)) and not following.is_pointer
        kind = argument.kind.removeprefix("const ").removeprefix("struct ").removesuffix(" *")
        constant = argument.kind.startswith("const ")
        if not argument.is_pointer or kind.endswith("*"):
            continue
        if kind in ("char", "void") and counted:
            how = How.BYTES_ARG if constant else How.BYTES_RESULT
            yield Capture(index, how, index + 1, not constant)
        elif kind == "char" and constant:
            yield Capture(index, How.STRING)
        elif kind == "sockaddr":
            how = How.BYTES_POINTED if following.is_pointer else How.BYTES_ARG
            yield Capture(index, how, index + 1, following.is_pointer)
        elif kind == "iovec" and call.name != "process_madvise":
            yield Capture(index, How.VECTOR, index + 1, "read" in call.name)
            yield Capture(index, How.REST, index + 1, "read" in call.name)
        elif kind in _SIZES:
            out = bool(_OUT.fullmatch(argument.name) or (_GETTER.match(call.name) and not constant))
            yield Capture(index, How.BYTES_FIXED, _SIZES[kind], out)


@cache
def plan(machine: str) -> dict[int, tuple[Capture, ...]]:
    """The memory to copy for each call, by number. Calls without any are absent."""
    exceptions = {**_EXCEPTIONS, **(_AARCH64_EXCEPTIONS if machine == "aarch64" else {})}
    captures: dict[int, Iterable[Capture]] = {
        number: exceptions.get(call.name, ()) or () if call.name in exceptions else _captures(call)
        for number, call in table(machine).items()
    }
    planned = {number: tuple(each)[:CAPTURES_MAX] for number, each in captures.items()}
    return {number: each for number, each in planned.items() if each}


@cache
def pointed(machine: str, number: int) -> dict[int, Capture]:
    """The memory that is copied for each argument of a call, by argument; without further parts (REST, HEADER)."""
    beyond = (How.REST, How.HEADER)
    return {each.argument: each for each in plan(machine).get(number, ()) if each.how not in beyond}


_SIGRTMIN, _SIGRTMAX = 32, 64


@cache
def signal_name(number: int) -> str:
    """A signal's name as strace has it; they have the same numbers on both machines."""
    named = next((name for name, value in flags("x86_64", "SIGNAL").items() if value == number), "")
    if _SIGRTMIN <= number <= _SIGRTMAX:
        named = "SIGRTMIN" if number == _SIGRTMIN else f"SIGRT_{number - _SIGRTMIN}"
    return named or f"signal {number}"
