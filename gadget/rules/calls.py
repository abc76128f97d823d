"""System calls as rules ask about them: the fields evt.… and fd.… of an event of the gadget `detect`."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from gadget.endpoints import unmapped
from gadget.kinds.times import exact_clock
from gadget.rules import words
from gadget.rules.processes import ProcessRow
from gadget.syscalls import errors

SUCCESS = "SUCCESS"
OPENS = ("open", "openat", "openat2")
_O_ACCMODE, _O_WRONLY, _O_RDWR, _O_CREAT, _O_TMPFILE = 3, 1, 2, 0o100, 0o20000000
_EXECUTABLE = 0o111
_TYPES = {
    "f": "file", "d": "directory", "4": "ipv4", "6": "ipv6", "u": "unix", "p": "pipe", "e": "event", "n": "netlink",
    "s": "signalfd", "l": "eventpoll", "i": "inotify", "t": "timerfd", "b": "bpf", "r": "io_uring", "m": "memfd",
    "P": "pidfd",
}  # fmt: skip
_PROTOCOLS = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp", 255: "raw"}
#: The calls that make a descriptor, or are given one to do something with.
DESCRIPTORS = frozenset((
    *OPENS, "creat", "connect", "accept", "accept4", "listen", "bind", "socket", "sendto", "sendmsg", "recvfrom",
    "recvmsg", "dup", "dup2", "dup3", "fchmod", "finit_module", "setns", "memfd_create",
))  # fmt: skip
#: The calls that make a descriptor of which the kernel tells the number alone.
_NUMBERED = ("bpf", "userfaultfd")
#: The calls in which the other end is the client.
_SERVING = ("accept", "accept4", "listen", "bind")


@dataclass(frozen=True)
class Values:
    """What an event has beside its process, as Python's values. Texts may have bytes that are no UTF-8, escaped.

    time_ns is since 1970, boot_ns since boot. args are the call's six arguments. The paths are absolute and normalised,
    raw is as it was passed. src and dst are addresses of 16 bytes and ports.
    """

    type: str
    time_ns: int
    boot_ns: int
    result: int
    fd: int
    flags: int
    mode: int
    args: Sequence[int]
    tid: int
    fd_type: str
    protocol: int
    family: int
    connected: bool
    name_changed: bool
    src: tuple[bytes, int]
    dst: tuple[bytes, int]
    path: str
    raw: str
    to: str
    to_raw: str
    data: bytes


class CallFields:
    """The fields of an event, except those of its process."""

    def __init__(self, values: Values, number: int, process: ProcessRow) -> None:
        self.values, self.number, self.process = values, number, process

    def get(self, key: str, /) -> Any:
        """The value of a field; None if it is missing."""
        if made := _FIELDS.get(key):
            return made(self)
        for prefix in ("evt.arg.", "evt.rawarg."):
            if key.startswith(prefix):
                return self.argument(key.removeprefix(prefix))
        if key.startswith("evt.arg["):
            return self._argument_at(key[len("evt.arg[") : -1])
        return None

    def argument(self, name: str) -> Any:
        """An argument in Falco's form; None if the event has no argument with that name."""
        made = _ARGUMENTS.get(self.values.type, {}).get(name)
        return made(self) if made else None

    def arguments(self) -> str:
        """All of them: name=value name=value."""
        given = ((name, made(self)) for name, made in _ARGUMENTS.get(self.values.type, {}).items())
        return " ".join(f"{name}={value}" for name, value in given if value is not None)

    def _argument_at(self, text: str) -> Any:
        made = list(_ARGUMENTS.get(self.values.type, {}).values())
        if not (text.isascii() and text.isdecimal()):
            return self.argument(text)
        return made[int(text)](self) if int(text) < len(made) else None

    @property
    def res(self) -> str:
        """SUCCESS, or the name of the error."""
        return (
            SUCCESS if self.values.result >= 0 else errors().get(-self.values.result, (str(-self.values.result), ""))[0]
        )

    @property
    def has_descriptor(self) -> bool:
        """Whether it is about a descriptor."""
        return self.values.type in DESCRIPTORS

    @property
    def is_socket(self) -> bool:
        """Whether its descriptor is a socket over IP."""
        return self.values.fd_type in ("4", "6")

    @property
    def is_server(self) -> bool:
        """Whether the process is the server."""
        return self.values.type in _SERVING

    def end(self, *, own: bool) -> tuple[bytes, int] | None:
        """An end of a socket, its address as 4 or 16 bytes; None if there is none."""
        address, port = self.values.src if own else self.values.dst
        address = unmapped(address)
        return (address, port) if self.is_socket and (port or any(address)) else None

    @property
    def name(self) -> str | None:
        """fd.name: a path, or both ends."""
        if not self.is_socket:
            return self.values.path or None
        ends = [_shown(self.end(own=own)) for own in ((False, True) if self.is_server else (True, False))]
        if all(ends):
            return "->".join(end for end in ends if end)
        return ends[0] or ends[1]

    @property
    def is_file(self) -> bool:
        """Whether its descriptor is, or in a failed call would have been, a file or a folder."""
        return self.values.fd_type in ("f", "d", "o")


def _shown(end: tuple[bytes, int] | None) -> str | None:
    return f"{ip_address(end[0])}:{end[1]}" if end else None


def _end(which: str, part: int) -> Callable[[CallFields], Any]:
    """Address (0) or port (1) of the server, the client, the local or the remote end."""

    def found(call: CallFields) -> Any:
        own = {"s": call.is_server, "c": not call.is_server, "l": True, "r": False}[which]
        end = call.end(own=own)
        return end[part] if end else None

    return found


def _both(part: int) -> Callable[[CallFields], Any]:
    def found(call: CallFields) -> Any:
        ends = [end for end in (call.end(own=True), call.end(own=False)) if end]
        return tuple(end[part] for end in ends) or None

    return found


def _domains(which: str) -> Callable[[CallFields], Any]:
    address = _end(which, 0)

    def found(call: CallFields) -> Any:
        of = address(call)
        names = call.process.domains(of) if of else ()
        return names[0] if names else None

    return found


def _number(call: CallFields) -> int | None:
    if call.values.type in _NUMBERED:
        return max(call.values.result, -1)
    return call.values.fd if call.has_descriptor else None


def _directory(call: CallFields) -> str | None:
    path = call.name
    return (posixpath.dirname(path) or "/") if path and call.is_file else None


def _filename(call: CallFields) -> str | None:
    if not call.name or not call.is_file or (call.values.result < 0 and call.values.type in (*OPENS, "creat")):
        return None
    return posixpath.basename(call.name) or "/"


def _opens(wanted: Callable[[Values], Any]) -> Callable[[CallFields], bool]:
    return lambda call: call.values.type in OPENS and bool(wanted(call.values))


def _is_open_exec(call: CallFields) -> bool:
    values = call.values
    creates = values.flags & _O_CREAT or values.flags & _O_TMPFILE == _O_TMPFILE
    return values.type in (*OPENS, "creat") and bool(creates and values.mode & _EXECUTABLE)


def _family(call: CallFields) -> str | None:
    return {"4": "ip", "6": "ip", "u": "unix"}.get(call.values.fd_type)


def _time(form: str) -> Callable[[CallFields], str]:
    return lambda call: time.strftime(form, time.localtime(call.values.time_ns // 1_000_000_000))


def _clock(call: CallFields) -> str:
    return exact_clock(call.values.time_ns)


_FIELDS: Mapping[str, Callable[[CallFields], Any]] = {
    "evt.type": lambda call: call.values.type,
    "syscall.type": lambda call: call.values.type,
    "evt.num": lambda call: call.number,
    "evt.source": lambda call: "syscall",
    "evt.time": _clock,
    "evt.time.s": _time("%H:%M:%S"),
    "evt.datetime": lambda call: f"{_time('%Y-%m-%d ')(call)}{_clock(call)}",
    "evt.datetime.s": _time("%Y-%m-%d %H:%M:%S"),
    "evt.rawtime": lambda call: call.values.time_ns,
    "evt.rawtime.s": lambda call: call.values.time_ns // 1_000_000_000,
    "evt.rawtime.ns": lambda call: call.values.time_ns % 1_000_000_000,
    "evt.res": lambda call: call.res,
    "evt.rawres": lambda call: call.values.result,
    "evt.failed": lambda call: call.values.result < 0,
    "evt.dir": lambda call: "<",
    "evt.count": lambda call: 1,
    "evt.args": CallFields.arguments,
    "evt.info": CallFields.arguments,
    "evt.buffer": lambda call: call.values.data or None,
    "evt.is_open_read": _opens(lambda values: values.flags & _O_ACCMODE != _O_WRONLY),
    "evt.is_open_write": _opens(lambda values: values.flags & _O_ACCMODE in (_O_WRONLY, _O_RDWR)),
    "evt.is_open_exec": _is_open_exec,
    "fd.num": _number,
    "fd.name": lambda call: call.name if call.has_descriptor else None,
    "fd.nameraw": lambda call: call.values.raw or None if call.has_descriptor else None,
    "fd.directory": _directory,
    "fd.filename": _filename,
    "fd.typechar": lambda call: call.values.fd_type or None,
    "fd.type": lambda call: _TYPES.get(call.values.fd_type),
    "fd.l4proto": lambda call: _PROTOCOLS.get(call.values.protocol) if call.is_socket else None,
    "fd.sockfamily": _family,
    "fd.is_server": lambda call: call.is_server if call.is_socket else None,
    "fd.connected": lambda call: call.values.connected if call.is_socket else None,
    "fd.name_changed": lambda call: call.values.name_changed if call.is_socket else None,
    "fd.ip": _both(0),
    "fd.net": _both(0),
    "fd.port": _both(1),
    **{f"fd.{which}ip": _end(which, 0) for which in "sclr"},
    **{f"fd.{which}net": _end(which, 0) for which in "sclr"},
    **{f"fd.{which}port": _end(which, 1) for which in "sclr"},
    **{f"fd.{which}ip.name": _domains(which) for which in "sclr"},
    "fs.path.name": lambda call: call.values.path or None,
    "fs.path.nameraw": lambda call: call.values.raw or None,
    "thread.tid": lambda call: call.values.tid,
    "thread.ismain": lambda call: call.values.tid == call.process.process.key.pid,
    "proc.duration": lambda call: call.values.boot_ns - call.process.process.key.start,
}

Argument = Callable[[CallFields], Any]


def _at(number: int, bits: int = 32) -> Argument:
    """A signed number among the call's arguments."""

    def found(call: CallFields) -> str:
        value = call.values.args[number] & (1 << bits) - 1
        return str(value - (1 << bits) if value >> bits - 1 else value)

    return found


def _result(call: CallFields) -> str:
    return call.res


def _descriptor(call: CallFields) -> str:
    return str(call.values.result)


def _path(call: CallFields) -> str | None:
    return call.values.path or None


def _to(call: CallFields) -> str | None:
    return call.values.to or None


def _to_raw(call: CallFields) -> str | None:
    return call.values.to_raw or None


def _mode(call: CallFields) -> str:
    return words.mode(call.values.mode)


def _octal(call: CallFields) -> str:
    return f"0{call.values.mode:o}" if call.values.mode else "0"


def _open_flags(call: CallFields) -> str:
    return words.open_flags(call.values.flags)


def _data(call: CallFields) -> str | None:
    return call.values.data.decode("utf-8", "surrogateescape") or None


def _exe_flags(call: CallFields) -> str:
    program = call.process.process
    flags = {"EXE_WRITABLE": program.writable, "EXE_UPPER_LAYER": program.upper_layer, "EXE_FROM_MEMFD": program.memfd}
    return "|".join(name for name, is_set in flags.items() if is_set) or "0"


def _user(call: CallFields) -> str | None:
    return call.process.user(call.values.args[0] & 0xFFFF_FFFF)


def _of_process(field: str) -> Argument:
    return lambda call: call.process.get(field)


def _same(names: str, arguments: Mapping[str, Argument]) -> dict[str, Mapping[str, Argument]]:
    return dict.fromkeys(names.split(), arguments)


_ANSWER = {"res": _result}
_SENT = {**_ANSWER, "data": _data, "fd": _at(0), "size": _at(2), "tuple": lambda call: call.name}
_MOVED = {"oldpath": _path, "newpath": _to}
_BOTH_FOLDERS = {"olddirfd": _at(0), "oldpath": _path, "newdirfd": _at(2), "newpath": _to}
_ARGUMENTS: Mapping[str, Mapping[str, Argument]] = {
    **_same(
        "execve execveat",
        {
            **_ANSWER,
            "exe": _of_process("proc.exe"),
            "args": _of_process("proc.args"),
            "tid": lambda call: str(call.values.tid),
            "pid": lambda call: str(call.process.process.key.pid),
            "ptid": _of_process("proc.ppid"),
            "cwd": _of_process("proc.cwd"),
            "comm": _of_process("proc.name"),
            "env": _of_process("proc.env"),
            "tty": _of_process("proc.tty"),
            "vpgid": _of_process("proc.vpgid"),
            "loginuid": _of_process("user.loginuid"),
            "flags": _exe_flags,
            "uid": _of_process("user.uid"),
            "trusted_exepath": _of_process("proc.exepath"),
            "gid": _of_process("group.gid"),
            "filename": _path,
        },
    ),
    "open": {"fd": _descriptor, "name": _path, "flags": _open_flags, "mode": _octal},
    **_same(
        "openat openat2", {"fd": _descriptor, "dirfd": _at(0), "name": _path, "flags": _open_flags, "mode": _octal}
    ),
    "creat": {"fd": _descriptor, "name": _path, "mode": _octal},
    "connect": {
        **_ANSWER,
        "tuple": lambda call: call.name,
        "fd": _at(0),
        "addr": lambda call: _shown(call.end(own=False)),
    },
    **_same("accept accept4", {"fd": _descriptor, "tuple": lambda call: call.name}),
    "listen": {**_ANSWER, "fd": _at(0), "backlog": _at(1)},
    "bind": {**_ANSWER, "fd": _at(0), "addr": lambda call: _shown(call.end(own=True))},
    "socket": {
        "fd": _descriptor,
        "domain": lambda call: words.family(call.values.args[0]),
        "type": _at(1),
        "proto": _at(2),
    },
    **_same("sendto sendmsg recvfrom recvmsg", _SENT),
    "dup": {"res": _descriptor, "oldfd": _at(0)},
    **_same("dup2 dup3", {"res": _descriptor, "oldfd": _at(0), "newfd": _at(1)}),
    "link": {**_ANSWER, **_MOVED},
    "linkat": {**_ANSWER, "olddir": _at(0), "oldpath": _path, "newdir": _at(2), "newpath": _to},
    "symlink": {**_ANSWER, "target": _to_raw, "linkpath": _path},
    "symlinkat": {**_ANSWER, "target": _to_raw, "linkdirfd": _at(1), "linkpath": _path},
    "unlink": {**_ANSWER, "path": _path},
    "unlinkat": {**_ANSWER, "dirfd": _at(0), "name": _path, "flags": _at(2)},
    "rename": {**_ANSWER, **_MOVED},
    **_same("renameat renameat2", {**_ANSWER, **_BOTH_FOLDERS}),
    "rmdir": {**_ANSWER, "path": _path},
    "mkdir": {**_ANSWER, "path": _path, "mode": _octal},
    "mkdirat": {**_ANSWER, "dirfd": _at(0), "path": _path, "mode": _octal},
    "chmod": {**_ANSWER, "filename": _path, "mode": _mode},
    "fchmod": {**_ANSWER, "fd": _at(0), "mode": _mode},
    "fchmodat": {**_ANSWER, "dirfd": _at(0), "filename": _path, "mode": _mode},
    "ptrace": {
        **_ANSWER,
        "request": lambda call: words.request("ptrace", call.values.args[0]),
        "pid": _at(1),
        "addr": lambda call: hex(call.values.args[2]),
        "data": lambda call: hex(call.values.args[3]),
    },
    "init_module": {**_ANSWER, "length": _at(1, 64), "uargs": _data},
    "finit_module": {**_ANSWER, "fd": _at(0), "uargs": _data, "flags": _at(2)},
    "setns": {**_ANSWER, "fd": _at(0), "nstype": lambda call: words.namespaces(call.values.args[1])},
    "unshare": {**_ANSWER, "flags": lambda call: words.namespaces(call.values.args[0])},
    "setuid": {**_ANSWER, "uid": _user},
    "bpf": {"fd": _descriptor, "cmd": lambda call: words.request("bpf", call.values.args[0])},
    "userfaultfd": {**_ANSWER, "flags": _at(0)},
    "memfd_create": {"fd": _descriptor, "name": _data, "flags": _at(1)},
    "mount": {**_ANSWER, "dev": _to_raw, "dir": _path, "flags": lambda call: words.mount_flags(call.values.args[3])},
    "umount2": {**_ANSWER, "name": _path, "flags": _at(1)},
}
