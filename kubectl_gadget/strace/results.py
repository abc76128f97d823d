"""What a call returned, as strace writes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from gadget import syscalls
from kubectl_gadget.strace.attributes import descriptor_list
from kubectl_gadget.strace.calls import ERROR_MAX, Call
from kubectl_gadget.strace.dependent import polled
from kubectl_gadget.strace.scalars import hexadecimal, octal
from kubectl_gadget.strace.structures import Structure, flag_set, open_flags, timespec, timeval

_TIME = 16  # bytes of struct timespec and of struct timeval

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


def _left(call: Call, index: int, show: Structure) -> list[str]:
    """What is left of a timeout that the kernel has written over the one that was given."""
    found = call.captured.get(index)
    return [f"left {show(found.data, call.machine)}"] if found and len(found.data) >= _TIME else []


def _poll_result(call: Call, value: int) -> str:
    if not value:
        return "0 (Timeout)"
    found = call.captured.get(0)
    return f"{value} ({polled(call, 0, found, 'revents')})" if found else str(value)


def _ppoll_result(call: Call, value: int) -> str:
    shown, left = _poll_result(call, value), _left(call, 2, timespec)
    return f"{shown.removesuffix(')')}, {left[0]})" if left and shown.endswith(")") and value else shown


def _select_result(show: Structure) -> Callable[[Call, int], str]:
    """What select found: the kernel writes it over the sets that were given."""

    def text(call: Call, value: int) -> str:
        if not value:
            return "0 (Timeout)"
        sets = [(name, call.captured.get(index)) for index, name in ((1, "in"), (2, "out"))]
        found = [f"{name} {descriptor_list(each.data)}" for name, each in sets if each and any(each.data)]
        parts = ", ".join([*found, *_left(call, 4, show)])
        return f"{value} ({parts})" if parts else str(value)

    return text


_RESULTS: dict[str, Callable[[Call, int], str]] = {
    **dict.fromkeys(("brk", "mmap", "mremap", "shmat"), lambda call, value: hexadecimal(value & (1 << 64) - 1)),
    "fcntl": _fcntl_result,
    "poll": _poll_result,
    "ppoll": _ppoll_result,
    "pselect6": _select_result(timespec),
    "select": _select_result(timeval),
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
