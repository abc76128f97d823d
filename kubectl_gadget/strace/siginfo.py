"""siginfo_t, of a signal and of waitid, as strace writes it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from struct import unpack_from

from gadget import syscalls

#: Signals whose positive codes have sets of names.
_NAMED = ("SIGBUS", "SIGCHLD", "SIGFPE", "SIGILL", "SIGIO", "SIGSEGV", "SIGSYS", "SIGTRAP")
#: sigaction(2): of these the kernel tells an address.
_FAULTS = ("SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGTRAP")
_CLD_EXITED = 1


@cache
def code_name(signal: str, code: int) -> str:
    """What si_code says of how a signal came about."""
    names = dict(syscalls.flags("x86_64", "SI"))
    if signal in _NAMED and code > 0:
        names = {**names, **syscalls.flags("x86_64", f"SI_{signal}")}
    return next((name for name, value in names.items() if value == code), str(code))


def is_fault(signal: str, code: int) -> bool:
    """Whether a signal tells of what the program did at an address."""
    return signal in _FAULTS and 0 < code != syscalls.flags("x86_64", "SI")["SI_KERNEL"]


def child_status(code: int, status: int) -> str:
    """How a child ended or stopped: a number, or the signal that did it."""
    return str(status) if code == _CLD_EXITED else syscalls.signal_name(status)


def called(word: int, machine: str) -> str:
    """The call that SIGSYS is about, by si_syscall and si_arch; linux/audit.h: bit 31 is of 64-bit machines."""
    compat = 0 if word >> 32 & 1 << 31 else syscalls.COMPAT
    return syscalls.find(machine, word & 0xFFFFFFFF | compat).name


def details(number: int, code: int, words: Sequence[int], machine: str) -> str:
    """What siginfo_t says: words are its union's first two, as far as they are known."""
    signal = syscalls.signal_name(number)
    shown = [f"si_signo={signal}", f"si_code={code_name(signal, code)}"]
    first, *others = words or [0]
    low, high = first & 0xFFFFFFFF, first >> 32
    if not words:
        pass
    elif is_fault(signal, code):
        shown.append(f"si_addr={hex(first) if first else 'NULL'}")
    elif signal == "SIGCHLD" and code > 0:
        shown += [f"si_pid={low}", f"si_uid={high}"]
        shown += [f"si_status={child_status(code, second & 0xFFFFFFFF)}" for second in others]
    elif signal == "SIGSYS" and code > 0:
        shown.append(f"si_call_addr={first:#x}")
        shown += [f"si_syscall=__NR_{called(second, machine)}" for second in others]
    elif code <= 0 and code_name(signal, code) != "SI_TIMER":
        shown += [f"si_pid={low}", f"si_uid={high}"]
    return f"{{{', '.join(shown)}}}"


def waited(data: bytes, machine: str) -> str:
    """What waitid says of a child, up to si_status."""
    number, _, code = unpack_from("<iii", data)
    pid, uid, status = unpack_from("<iii", data, 16)
    if not number:
        return "{}"
    told = details(number, code, (pid & 0xFFFFFFFF | (uid & 0xFFFFFFFF) << 32, status & 0xFFFFFFFF), machine)
    return f"{told.removesuffix('}')}, ...}}"
