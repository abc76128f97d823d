"""What a call returned, as strace writes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from gadget import syscalls
from kubectl_gadget.strace.calls import ERROR_MAX, Call
from kubectl_gadget.strace.dependent import polled
from kubectl_gadget.strace.scalars import hexadecimal, octal
from kubectl_gadget.strace.structures import flag_set, open_flags

#: Errors after which the kernel restarts the call, or not: no program sees them.
_RESTARTS = (512, 513, 514, 516)


def _fcntl_result(call: Call, value: int) -> str:
    commands = syscalls.flags(call.machine, "FCNTL")
    command = call.args[1] & 0xFFFFFFFF
    if command == commands["F_GETFL"]:
        return f"{hexadecimal(value)} (flags {open_flags(call.machine)(value)})"
    if command == commands["F_GETFD"]:
        return f"{value:#x} (flags {flag_set(call.machine, 'FD')(value)})" if value else "0"
    if command == commands["F_GET_SEALS"]:
        return f"{value:#x} (seals {flag_set(call.machine, 'F_SEAL')(value)})" if value else "0"
    return str(value)


def _poll_result(call: Call, value: int) -> str:
    if not value:
        return "0 (Timeout)"
    found = call.captured.get(0)
    return f"{value} ({polled(call, 0, found, 'revents')})" if found else str(value)


_RESULTS: dict[str, Callable[[Call, int], str]] = {
    **dict.fromkeys(("brk", "mmap", "mremap", "shmat"), lambda call, value: hexadecimal(value & (1 << 64) - 1)),
    "fcntl": _fcntl_result,
    "poll": _poll_result,
    "ppoll": _poll_result,
    "umask": lambda call, value: octal(value),
}


@lru_cache(4096)
def _result_decoder(machine: str, number: int) -> Callable[[Call, int], str] | None:
    return _RESULTS.get(syscalls.find(machine, number).name)


@cache
def _error(number: int) -> str:
    name, meaning = syscalls.errors().get(number, (f"ERRNO_{number}", f"Unknown error {number}"))
    return f"{'?' if number in _RESTARTS else -1} {name} ({meaning})"


def result(call: Call) -> str:
    """What it returned, as strace writes it."""
    value = call.result
    if value is None:
        return "?"
    if -ERROR_MAX <= value < 0:
        return _error(-value)
    show = _result_decoder(call.machine, call.number)
    return show(call, value) if show else str(value)
