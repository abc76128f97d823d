"""What recorded calls were given: names, numbers, texts and addresses."""

from __future__ import annotations

from functools import cache, lru_cache
from ipaddress import ip_address

from gadget import syscalls
from gadget.kinds.texts import decode_text
from gadget.syscalls import How
from kubectl_gadget.strace import Call

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
#: Calls that open a file, and which argument is its path; flags are behind it.
OPENS = {"open": 0, "openat": 1, "openat2": 1, "creat": 0}
#: What the kernel calls an argument that is a path.
_PATHS = frozenset(("filename", "path", "pathname", "oldname", "dir_name", "library", "old"))


def call_name(call: Call) -> str:
    """What a call is called."""
    return syscalls.find(call.machine, call.number).name


def error_name(number: int) -> str:
    """The name of an errno."""
    return syscalls.errors().get(number, (f"errno {number}", ""))[0]


@cache
def meaning(error: str) -> str:
    """strerror(3)'s text for an error's name."""
    return next((text for name, text in syscalls.errors().values() if name == error), error)


def endpoint(data: bytes) -> str:
    """The address in a struct sockaddr: ADDRESS:PORT or a path; empty if it is of another family."""
    if len(data) < 2:
        return ""
    family = int.from_bytes(data[:2], "little")
    if family == _AF_INET and len(data) >= 8:
        return f"{ip_address(data[4:8])}:{int.from_bytes(data[2:4], 'big')}"
    if family == _AF_INET6 and len(data) >= 24:
        address = ip_address(data[8:24])
        mapped = getattr(address, "ipv4_mapped", None)
        return f"{mapped or f'[{address}]'}:{int.from_bytes(data[2:4], 'big')}"
    if family == _AF_UNIX:
        path = data[2:]
        return f"@{decode_text(path[1:].rstrip(bytes(1)))}" if path[:1] == b"\0" else decode_text(path.split(b"\0")[0])
    return ""


def signed(value: int) -> int:
    """An argument that is an int, such as a descriptor."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def text_of(call: Call, argument: int) -> str:
    """What an argument points to, as text; empty if that was not recorded."""
    found = call.captured.get(argument)
    return decode_text(found.data) if found else ""


def data_of(call: Call, argument: int) -> bytes:
    """What an argument points to; empty if that was not recorded."""
    found = call.captured.get(argument)
    return found.data if found else b""


def strings_of(call: Call, argument: int) -> tuple[str, ...]:
    """The strings that an argument points to, as those of execve."""
    data = data_of(call, argument)
    return tuple(decode_text(item) for item in data.removesuffix(b"\0").split(b"\0")) if data else ()


@lru_cache(4096)
def _path_index(machine: str, number: int) -> int | None:
    names = syscalls.find(machine, number).arguments
    plan = syscalls.pointed(machine, number)
    paths = (index for index, each in plan.items() if each.how == How.STRING and names[index].name in _PATHS)
    return next(paths, None)


def path_argument(call: Call) -> int | None:
    """Which of a call's arguments is a path, the first if there are two; None if none is."""
    return _path_index(call.machine, call.number)
