"""What the common ioctls take and give, as strace writes it."""

from __future__ import annotations

from functools import cache
from struct import unpack_from

from gadget import syscalls
from gadget.syscalls import Argument
from kubectl_gadget.strace.calls import Call
from kubectl_gadget.strace.decoders import ArgumentDecoder
from kubectl_gadget.strace.scalars import hexadecimal, quote, signed
from kubectl_gadget.strace.structures import Structure, ints

_INT_IN = ("FIONBIO", "FIOASYNC", "TIOCSPGRP", "TIOCSPTLCK")
_INT_OUT = ("FIONREAD", "TIOCOUTQ", "TIOCGPGRP", "TIOCGSID", "TIOCGPTN", "SIOCATMARK")


def _int(data: bytes, machine: str) -> str:
    return ints(data[:4], machine)


def _winsize(data: bytes, machine: str) -> str:
    return "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}".format(*unpack_from("<4H", data))


def _termios(data: bytes, machine: str) -> str:
    return "{{c_iflag={:#x}, c_oflag={:#x}, c_cflag={:#x}, c_lflag={:#x}, ...}}".format(*unpack_from("<4I", data))


def _interface(data: bytes, machine: str) -> str:
    return f"{{ifr_name={quote(data[:16].partition(bytes(1))[0])}, ...}}"


@cache
def _structures(machine: str) -> dict[int, tuple[Structure, bool]]:
    """By command: what it points to, and whether the kernel writes it, so that it means something after success."""
    known = syscalls.flags(machine, "IOCTL")
    found: dict[str, tuple[Structure, bool]] = {
        **dict.fromkeys(_INT_IN, (_int, False)),
        **dict.fromkeys(_INT_OUT, (_int, True)),
        "TIOCGWINSZ": (_winsize, True),
        "TIOCSWINSZ": (_winsize, False),
        "TCGETS": (_termios, True),
        **dict.fromkeys(("TCSETS", "TCSETSW", "TCSETSF"), (_termios, False)),
        **{name: (_interface, False) for name in known if name.startswith("SIOCGIF") and name != "SIOCGIFCONF"},
    }
    return {known[name]: each for name, each in found.items() if name in known}


def argument(machine: str, argument: Argument) -> ArgumentDecoder:
    """What a command of ioctl takes."""
    numbers = {syscalls.flags(machine, "IOCTL").get("FICLONE")}

    def show(call: Call, index: int) -> str:
        command = call.args[index - 1] & 0xFFFFFFFF
        structure, written = _structures(machine).get(command, (None, False))
        found = call.captured.get(index)
        if structure and found and (not written or (call.result is not None and not call.failed)):
            return structure(found.data, machine) if len(found.data) >= 4 else hexadecimal(call.args[index])
        return str(signed(call.args[index], 32)) if command in numbers else hexadecimal(call.args[index])

    def value(call: Call, index: int) -> str | int:
        text = show(call, index)
        return text if text[:1] in "[{" else call.args[index]

    def safe(call: Call, index: int) -> str:
        try:
            return show(call, index)
        except (ValueError, ArithmeticError):
            return hexadecimal(call.args[index])

    return ArgumentDecoder(safe, value)
