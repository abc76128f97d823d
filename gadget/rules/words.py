"""The words that arguments of events have for flags and requests, as Falco writes them (driver/flags_table.c).

Their numbers are those of the gadgets' own enums, and of Python where it has the same on every machine.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from functools import cache

from gadget.catalog import find

_MODES = ("XOTH", "WOTH", "ROTH", "XGRP", "WGRP", "RGRP", "XUSR", "WUSR", "RUSR", "SVTX", "SGID", "SUID")


@cache
def _flags(gadget: str, field: str) -> Callable[[int], str]:
    column = find(gadget).schema[field]
    names: Callable[[int], str] = column.means.names(column)  # type: ignore[attr-defined]
    return names


def open_flags(value: int) -> str:
    """Of open(2), with x86's values."""
    return _flags("opensnoop", "flags")(value)


def namespaces(value: int) -> str:
    """Of unshare(2) and setns(2)."""
    return _flags("privsnoop", "namespaces")(value)


def mount_flags(value: int) -> str:
    """Of mount(2), without the MS_, as Falco has them."""
    return _flags("mountsnoop", "flags")(value & 0xFFFF_FFFF).replace("MS_", "")


def mode(value: int) -> str:
    """Of chmod(2)."""
    return "|".join(f"S_I{name}" for name in _MODES if value & getattr(stat, f"S_I{name}")) or "0"


@cache
def family(value: int) -> str:
    """A domain of socket(2); the number if it has no name."""
    try:
        return socket.AddressFamily(value).name
    except ValueError:
        return str(value)


@cache
def _requests() -> dict[str, dict[int, str]]:
    """The requests of ptrace(2) and bpf(2): privsnoop numbers those of each call from a start of its own."""
    found: dict[str, dict[int, str]] = {}
    numbers = sorted((int(number), word) for number, word in find("privsnoop").schema["request"].values.items())
    for call, first in (("ptrace", "traceme"), ("bpf", "map create")):
        start = next(number for number, word in numbers if word == first)
        prefix = f"{call.upper()}_"
        found[call] = {
            number - start: prefix + word.upper().replace(" ", "_")
            for number, word in numbers
            if start <= number < start + (1 << 16)
        }
    return found


def request(call: str, number: int) -> str:
    """A request of ptrace(2) or a command of bpf(2); the number if it has no name."""
    return _requests()[call].get(number, str(number))


@cache
def _capabilities() -> list[tuple[int, str]]:
    return sorted((int(number), name) for number, name in find("capable").schema["capability"].values.items())


def capabilities(mask: int) -> str:
    """The names of capabilities with blanks between them."""
    return " ".join(name for number, name in _capabilities() if mask >> number & 1)
