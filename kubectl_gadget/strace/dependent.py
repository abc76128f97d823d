"""Arguments whose meaning another argument of the call decides, or its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import unpack_from
from typing import Any

from gadget import syscalls
from gadget.syscalls import Argument
from kubectl_gadget.strace import files
from kubectl_gadget.strace.calls import Call, Captured
from kubectl_gadget.strace.decoders import ArgumentDecoder, Meaning, address, captured, text_of
from kubectl_gadget.strace.files import flock
from kubectl_gadget.strace.scalars import enumeration, hexadecimal, pointer, quote, signed
from kubectl_gadget.strace.structures import (
    EPOLL_EVENT_SIZES,
    Structure,
    credentials,
    epoll_event,
    error_number,
    flag_set,
    ints,
    linger,
    open_flags,
    signal_name,
    timeval,
)


def same(show: Callable[[Call, int], str]) -> Meaning:
    """The same text for people and for JSON."""
    return lambda machine, argument: ArgumentDecoder(show, show)


def _int(call: Call, index: int) -> int:
    return signed(call.args[index], 32)


def _lookup(machine: str, *sets: str) -> Mapping[str, Callable[[int], str]]:
    return {name: enumeration(syscalls.flags(machine, name)) for name in sets}


def protocol(machine: str, argument: Argument) -> ArgumentDecoder:
    """A socket's protocol: numbers mean what its family says."""
    families = syscalls.flags(machine, "ADDRESS_FAMILY")
    internet, netlink = _lookup(machine, "IPPROTO", "NETLINK").values()
    by_family = {families["AF_INET"]: internet, families["AF_INET6"]: internet, families["AF_NETLINK"]: netlink}

    def show(call: Call, index: int) -> str:
        return by_family.get(_int(call, 0), str)(_int(call, index))

    return ArgumentDecoder(show, show)


#: The sets that hold the options of a level.
_OPTIONS = {"SOL_SOCKET": "SO", "SOL_TCP": "TCP", "SOL_IP": "IP", "SOL_IPV6": "IPV6", "SOL_UDP": "UDP"}


def socket_option(machine: str, argument: Argument) -> ArgumentDecoder:
    """The name of a socket option: numbers mean what its level says."""
    levels, found = syscalls.flags(machine, "SOL"), _lookup(machine, *_OPTIONS.values())
    by_level = {levels[level]: found[name] for level, name in _OPTIONS.items()}

    def show(call: Call, index: int) -> str:
        return by_level.get(_int(call, index - 1), str)(_int(call, index))

    return ArgumentDecoder(show, show)


def socket_option_value(limit: int) -> Meaning:
    """The value of a socket option: mostly an int."""

    def meaning(machine: str, argument: Argument) -> ArgumentDecoder:
        known = syscalls.flags(machine, "SO")
        special: dict[int, Structure] = {
            known["SO_ERROR"]: error_number,
            known["SO_LINGER"]: linger,
            known["SO_PEERCRED"]: credentials,
            known["SO_RCVTIMEO_OLD"]: timeval,
            known["SO_SNDTIMEO_OLD"]: timeval,
        }
        socket_level = syscalls.flags(machine, "SOL")["SOL_SOCKET"]

        def show(call: Call, index: int, found: Captured) -> str:
            structure = special.get(_int(call, index - 1)) if _int(call, index - 2) == socket_level else None
            if structure or found.size == len(found.data) == 4:
                return (structure or ints)(found.data, call.machine)
            return quote(found.data[:limit], found.size > min(limit, len(found.data)))

        return captured(show)

    return meaning


def fcntl_argument(machine: str, argument: Argument) -> ArgumentDecoder:
    """What a command of fcntl takes."""
    commands = syscalls.flags(machine, "FCNTL")
    shows: dict[int, Callable[[int], str]] = {
        commands["F_SETFD"]: flag_set(machine, "FD"),
        commands["F_SETFL"]: open_flags(machine),
        commands["F_SETLEASE"]: enumeration(syscalls.flags(machine, "F_LOCK")),
        commands["F_ADD_SEALS"]: flag_set(machine, "F_SEAL"),
        commands["F_SETSIG"]: signal_name(machine),
    }
    getters = [commands[name] for name in ("F_GETLK", "F_OFD_GETLK")]
    locks = [*getters, *(commands[name] for name in ("F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW"))]
    shows.update(dict.fromkeys(locks, pointer))
    for name in ("F_DUPFD", "F_DUPFD_CLOEXEC", "F_SETOWN", "F_SETPIPE_SZ"):
        shows[commands[name]] = str

    def lock(call: Call, index: int, found: Captured) -> str:
        asks = _int(call, index - 1) in getters
        if asks and (call.failed or call.result is None):
            raise ValueError("the kernel has not written it")
        return flock(found.data, call.machine, asks)

    locked = captured(lock)

    def show(call: Call, index: int) -> str:
        if _int(call, index - 1) in locks:
            return locked.text(call, index)
        found, value = shows.get(_int(call, index - 1), hexadecimal), call.args[index]
        return found(value if found in (pointer, hexadecimal) else signed(value, 32))

    return ArgumentDecoder(show, show)


def prctl_argument(machine: str, argument: Argument) -> ArgumentDecoder:
    """The first argument of an option of prctl."""
    options = syscalls.flags(machine, "PRCTL")
    signals, capability = signal_name(machine), enumeration(syscalls.flags(machine, "CAPABILITY"))
    ambient = enumeration(syscalls.flags(machine, "CAP_AMBIENT"))
    capabilities = (options["PR_CAPBSET_READ"], options["PR_CAPBSET_DROP"])
    decimal = {options[name] for name in ("PR_SET_DUMPABLE", "PR_SET_KEEPCAPS", "PR_SET_CHILD_SUBREAPER",
               "PR_SET_NO_NEW_PRIVS", "PR_SET_TIMERSLACK", "PR_SET_THP_DISABLE")}  # fmt: skip

    def show(call: Call, index: int) -> str:
        option, value = _int(call, index - 1), call.args[index]
        if option == options["PR_SET_NAME"] and index in call.captured:
            found = call.captured[index]
            return quote(found.data, found.size > len(found.data))
        if option == options["PR_SET_PDEATHSIG"]:
            return signals(value)
        if option in capabilities or option == options["PR_CAP_AMBIENT"]:
            return (capability if option in capabilities else ambient)(value)
        return str(value) if option in decimal else hexadecimal(value)

    def value(call: Call, index: int) -> Any:
        named = _int(call, index - 1) == options["PR_SET_NAME"] and index in call.captured
        return text_of(call.captured[index].data) if named else call.args[index]

    return ArgumentDecoder(show, value)


def prctl_second_argument(machine: str, argument: Argument) -> ArgumentDecoder:
    """The second argument of an option of prctl."""
    ambient = syscalls.flags(machine, "PRCTL")["PR_CAP_AMBIENT"]
    capability = enumeration(syscalls.flags(machine, "CAPABILITY"))
    return same(lambda call, index: (capability if _int(call, 0) == ambient else hexadecimal)(call.args[index]))(
        machine, argument
    )


def futex_operation(machine: str, argument: Argument) -> ArgumentDecoder:
    """FUTEX_WAIT_PRIVATE and the like, with flags."""
    known = syscalls.flags(machine, "FUTEX_FLAG")
    private, realtime = known["FUTEX_PRIVATE_FLAG"], known["FUTEX_CLOCK_REALTIME"]
    name = enumeration(syscalls.flags(machine, "FUTEX"))

    def show(call: Call, index: int) -> str:
        value = call.args[index] & 0xFFFFFFFF
        text = name(value & ~(private | realtime))
        if text.endswith("/"):
            return f"{hexadecimal(value)} /* FUTEX_??? */"
        return text + ("_PRIVATE" if value & private else "") + ("|FUTEX_CLOCK_REALTIME" if value & realtime else "")

    return ArgumentDecoder(show, show)


def only_if(condition: Callable[[Call], bool], meaning: Meaning, otherwise: Meaning = address) -> Meaning:
    """One meaning or another, which the call decides."""

    def chosen(machine: str, argument: Argument) -> ArgumentDecoder:
        yes, no = meaning(machine, argument), otherwise(machine, argument)
        return ArgumentDecoder(
            lambda call, index: (yes if condition(call) else no).text(call, index),
            lambda call, index: (yes if condition(call) else no).value(call, index),
        )

    return chosen


def futex_number(machine: str, argument: Argument) -> ArgumentDecoder:
    """The last number of a futex call: a set of bits, or what to compare with."""
    command = 0x7F
    operations = syscalls.flags(machine, "FUTEX")
    bitset = (operations["FUTEX_WAIT_BITSET"], operations["FUTEX_WAKE_BITSET"])

    def show(call: Call, index: int) -> str:
        value = call.args[index] & 0xFFFFFFFF
        if call.args[1] & command not in bitset:
            return str(value)
        return "FUTEX_BITSET_MATCH_ANY" if value == 0xFFFFFFFF else hexadecimal(value)

    return ArgumentDecoder(show, show)


def ioctl_request(machine: str, argument: Argument) -> ArgumentDecoder:
    """The name of an ioctl, or what its bits say, as _IOC of the kernel's headers packs them."""

    def unknown(value: int) -> str:
        direction = ("_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE")[value >> 30]
        parts = (value >> 8 & 0xFF, value & 0xFF, value >> 16 & 0x3FFF)
        return f"_IOC({direction}, {', '.join(map(hexadecimal, parts))})"

    name = enumeration(syscalls.flags(machine, "IOCTL"), unknown)
    return same(lambda call, index: name(call.args[index] & 0xFFFFFFFF))(machine, argument)


def clone_flags(machine: str, argument: Argument) -> ArgumentDecoder:
    """Flags, and the signal that the child's end sends."""
    names, signals = flag_set(machine, "CLONE"), signal_name(machine)

    def show(call: Call, index: int) -> str:
        value = call.args[index]
        parts = [names(value & ~0xFF)] if value & ~0xFF else []
        return "|".join([*parts, signals(value & 0xFF)] if value & 0xFF or not parts else parts)

    return ArgumentDecoder(show, show)


def device(machine: str, argument: Argument) -> ArgumentDecoder:
    """A device number."""
    return same(lambda call, index: files.device(call.args[index]))(machine, argument)


def file_mode(machine: str, argument: Argument) -> ArgumentDecoder:
    """A file's type and permissions."""
    return same(lambda call, index: files.mode(call.args[index] & 0xFFFF, machine))(machine, argument)


def _array(items: list[str], more: bool) -> str:
    return f"[{', '.join([*items, '...'] if more else items)}]"


def polled(call: Call, index: int, found: Captured, events: str) -> str:
    """An array of struct pollfd; events says whether to show what was asked for or what came."""
    names, items, at = flag_set(call.machine, "POLL"), [], 4 if events == "events" else 6
    count = min(call.args[1] & 0xFFFFFFFF, len(found.data) // 8)
    for place in range(0, count * 8, 8):
        (descriptor,), (bits,) = unpack_from("<i", found.data, place), unpack_from("<H", found.data, place + at)
        if bits or events == "events":
            items.append(f"{{fd={descriptor}, {events}={names(bits)}}}")
    return _array(items, count < call.args[1] & 0xFFFFFFFF)


def poll_descriptors(machine: str, argument: Argument) -> ArgumentDecoder:
    """What poll waits for."""
    return captured(lambda call, index, found: polled(call, index, found, "events"))


def epoll_events(machine: str, argument: Argument) -> ArgumentDecoder:
    """What epoll_wait found: as many as its result."""
    size = EPOLL_EVENT_SIZES[machine]

    def show(call: Call, index: int, found: Captured) -> str:
        count = call.result or 0
        places = range(0, min(count * size, len(found.data) // size * size), size)
        return _array([epoll_event(found.data[place:], machine) for place in places], len(places) < count)

    inner = captured(show)
    return same(lambda call, index: inner.text(call, index) if call.result else "[]")(machine, argument)
