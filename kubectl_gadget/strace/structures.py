"""Structures that calls point to, as strace writes them.

Each function makes text from the bytes that were copied. Processes choose these bytes, and the copy may be short: then
struct.error or another ValueError says that there is nothing to show but the pointer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from ipaddress import IPv4Address
from socket import AF_INET6, inet_ntop
from struct import Struct, unpack_from

from gadget import syscalls
from kubectl_gadget.strace.scalars import choice_and_flags, enumeration, flags, hexadecimal, pointer, quote

#: Makes text from bytes of a machine.
Structure = Callable[[bytes, str], str]
_RLIM_INFINITY = (1 << 64) - 1
_SIGNALS = 64
EPOLL_EVENT_SIZES = {"x86_64": 12, "aarch64": 16}
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def _pair(first: str, second: str, layout: str = "<qq") -> Structure:
    read = Struct(layout).unpack_from

    def show(data: bytes, machine: str) -> str:
        one, two = read(data)
        return f"{{{first}={one}, {second}={two}}}"

    return show


timespec = _pair("tv_sec", "tv_nsec")
timeval = _pair("tv_sec", "tv_usec")
linger = _pair("l_onoff", "l_linger", "<ii")
utimbuf = _pair("actime", "modtime")


def _interval(part: Structure) -> Structure:
    def show(data: bytes, machine: str) -> str:
        return f"{{it_interval={part(data, machine)}, it_value={part(data[16:], machine)}}}"

    return show


itimerspec = _interval(timespec)
itimerval = _interval(timeval)


def timevals(data: bytes, machine: str) -> str:
    """Two of them: access and modification time."""
    return f"[{timeval(data, machine)}, {timeval(data[16:], machine)}]"


def timespecs(data: bytes, machine: str) -> str:
    """Two of them: access and modification time, with what utimensat takes for special."""
    special = {_UTIME_NOW: "UTIME_NOW", _UTIME_OMIT: "UTIME_OMIT"}
    _, first, _, second = unpack_from("<qqqq", data)
    texts = (special.get(first) or timespec(data, machine), special.get(second) or timespec(data[16:], machine))
    return f"[{', '.join(texts)}]"


def ints(data: bytes, machine: str) -> str:
    """An array of int."""
    if not data or len(data) % 4:
        raise ValueError(data)
    return "[" + ", ".join(str(value) for (value,) in Struct("<i").iter_unpack(data)) + "]"


def error_number(data: bytes, machine: str) -> str:
    """An int that is an errno."""
    (number,) = unpack_from("<i", data)
    return f"[{syscalls.errors()[number][0] if number in syscalls.errors() else number}]"


def credentials(data: bytes, machine: str) -> str:
    """Struct ucred."""
    pid, uid, gid = unpack_from("<iii", data)
    return f"{{pid={pid}, uid={uid}, gid={gid}}}"


def rlimit(infinity: str) -> Structure:
    """Struct rlimit, with that name for no limit."""

    def limit(value: int) -> str:
        if value == _RLIM_INFINITY:
            return infinity
        return f"{value // 1024}*1024" if value > 1024 and not value % 1024 else str(value)

    def show(data: bytes, machine: str) -> str:
        current, most = unpack_from("<QQ", data)
        return f"{{rlim_cur={limit(current)}, rlim_max={limit(most)}}}"

    return show


@cache
def signal_name(machine: str) -> Callable[[int], str]:
    """The name of a signal by its number."""
    return lambda number: syscalls.signal_name(number).removeprefix("signal ")


def sigset(data: bytes, machine: str) -> str:
    """A set of signals; when most are in it, those that are not."""
    (bits,) = unpack_from("<Q", data)
    inverted = bits.bit_count() >= _SIGNALS * 2 // 3
    if inverted:
        bits ^= (1 << _SIGNALS) - 1
    name = signal_name(machine)
    names = [name(number + 1).removeprefix("SIG") for number in range(_SIGNALS) if bits >> number & 1]
    return f"{'~' if inverted else ''}[{' '.join(names)}]"


def sigaction(data: bytes, machine: str) -> str:
    """Struct sigaction as the kernel has it."""
    handler, options, restorer = unpack_from("<QQQ", data)
    handlers = {0: "SIG_DFL", 1: "SIG_IGN"}
    names = flag_set(machine, "SIG_FLAG")
    text = f"{{sa_handler={handlers.get(handler) or hex(handler)}, sa_mask={sigset(data[24:], machine)}"
    text += f", sa_flags={names(options & 0xFFFFFFFF)}"
    restored = options & syscalls.flags(machine, "SIG_FLAG")["SA_RESTORER"]
    return text + (f", sa_restorer={pointer(restorer)}}}" if restored else "}")


#: Names that strace writes after others of a higher value.
_LAST = ("SA_NOCLDSTOP", "SA_NOCLDWAIT", "SA_SIGINFO", "O_TMPFILE", "O_DIRECTORY", "EFD_NONBLOCK", "SFD_NONBLOCK",
         "SOCK_NONBLOCK", "TFD_NONBLOCK", "W_OK", "X_OK")  # fmt: skip


@cache
def flag_set(machine: str, name: str, zero: str = "") -> Callable[[int], str]:
    """Shows flags of a named set."""
    return flags(syscalls.flags(machine, name), zero, order=_LAST)


@cache
def open_flags(machine: str) -> Callable[[int], str]:
    """Shows what open takes: an access mode and flags."""
    return choice_and_flags(3, syscalls.flags(machine, "OPEN_ACCESS"), flag_set(machine, "OPEN"))


def _huge_page_size(name: str, others: Callable[[int], str], always: bool) -> Callable[[int], str]:
    """Shows flags whose upper six bits are the logarithm of a page size. Other flags of 0 are shown only if always."""
    shift, mask = 26, 0x3F  # include/uapi/asm-generic/hugetlb_encode.h

    def show(value: int) -> str:
        size, rest = value >> shift & mask, value & ~(mask << shift)
        shown = [others(rest)] if always or rest or not size else []
        return "|".join([*shown, f"{size}<<{name}"] if size else shown)

    return show


@cache
def mmap_flags(machine: str) -> Callable[[int], str]:
    """Shows the flags of mmap."""
    others = choice_and_flags(0xF, syscalls.flags(machine, "MAP_TYPE"), flag_set(machine, "MAP"))
    return _huge_page_size("MAP_HUGE_SHIFT", others, True)


@cache
def memfd_flags(machine: str) -> Callable[[int], str]:
    """Shows the flags of memfd_create."""
    return _huge_page_size("MFD_HUGE_SHIFT", flag_set(machine, "MEMFD"), False)


def open_how(data: bytes, machine: str) -> str:
    """Struct open_how."""
    opened, mode, resolve = unpack_from("<QQQ", data)
    shown = f", mode=0{mode:03o}" if mode else ""
    shown += f", resolve={flag_set(machine, 'RESOLVE')(resolve)}"
    return f"{{flags={open_flags(machine)(opened)}{shown}}}"


def clone_args(data: bytes, machine: str) -> str:
    """Struct clone_args, as far as strace shows it."""
    options, pidfd, child, parent, signal, stack, size, tls = unpack_from("<8Q", data)
    text = f"{{flags={flag_set(machine, 'CLONE')(options)}"
    known = syscalls.flags(machine, "CLONE")
    text += f", pidfd={pointer(pidfd)}" if options & known["CLONE_PIDFD"] else ""
    text += f", child_tid={pointer(child)}" if options & (
        known["CLONE_CHILD_SETTID"] | known["CLONE_CHILD_CLEARTID"]
    ) else ""  # fmt: skip
    text += f", parent_tid={pointer(parent)}" if options & known["CLONE_PARENT_SETTID"] else ""
    text += f", exit_signal={signal_name(machine)(signal)}, stack={pointer(stack)}, stack_size={hexadecimal(size)}"
    return text + (f", tls={pointer(tls)}}}" if options & known["CLONE_SETTLS"] else "}")


def wait_status(data: bytes, machine: str) -> str:
    """What wait4 says of a child."""
    (status,) = unpack_from("<I", data)
    name, signal, code = signal_name(machine), status & 0x7F, status >> 8 & 0xFF
    if status == 0xFFFF:
        text = "WIFCONTINUED(s)"
    elif not signal:
        text = f"WIFEXITED(s) && WEXITSTATUS(s) == {code}"
    elif signal == 0x7F:
        text = f"WIFSTOPPED(s) && WSTOPSIG(s) == {name(code)}"
    else:
        text = f"WIFSIGNALED(s) && WTERMSIG(s) == {name(signal)}" + (" && WCOREDUMP(s)" if status & 0x80 else "")
    return f"[{{{text}}}]"


def epoll_event(data: bytes, machine: str) -> str:
    """Struct epoll_event, which is packed on x86."""
    (events,), (value,) = unpack_from("<I", data), unpack_from("<Q", data, EPOLL_EVENT_SIZES[machine] - 8)
    return f"{{events={flag_set(machine, 'EPOLL')(events)}, data={{u32={value & 0xFFFFFFFF}, u64={value}}}}}"


def _network(family: str, data: bytes) -> str:
    port = int.from_bytes(data[2:4])
    if family == "AF_INET":
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{IPv4Address(data[4:8])}")}}'
    (flow,) = unpack_from(">I", data, 4)
    scope = unpack_from("<I", data, 24)[0]
    return (
        f"{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl({flow})"
        f', inet_pton(AF_INET6, "{inet_ntop(AF_INET6, data[8:24])}", &sin6_addr), sin6_scope_id={scope}}}'
    )


@cache
def _families(machine: str) -> Callable[[int], str]:
    return enumeration(syscalls.flags(machine, "ADDRESS_FAMILY"))


def sockaddr(data: bytes, machine: str) -> str:
    """A socket's address."""
    family = _families(machine)(unpack_from("<H", data)[0])
    if family in ("AF_INET", "AF_INET6"):
        return _network(family, data)
    if family == "AF_UNIX":
        path = data[2:]
        if not path:
            return "{sa_family=AF_UNIX}"
        shown = "@" + quote(path[1:]) if path[:1] == b"\0" else quote(path.partition(b"\0")[0])
        return f"{{sa_family=AF_UNIX, sun_path={shown}}}"
    if family == "AF_NETLINK":
        pid, groups = unpack_from("<II", data, 4)
        return f"{{sa_family=AF_NETLINK, nl_pid={pid}, nl_groups={groups:08x}}}"
    return f"{{sa_family={family}, sa_data={quote(data[2:])}}}"
