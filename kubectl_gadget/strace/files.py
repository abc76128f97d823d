"""Structures about files, as strace writes them; structures.py says what may go wrong."""

from __future__ import annotations

from functools import cache
from struct import unpack_from

from gadget import syscalls
from kubectl_gadget.strace.scalars import enumeration, hexadecimal
from kubectl_gadget.strace.structures import flag_set

#: st_mode and st_rdev of struct stat, whose st_size is at 48 on both machines
_MODE, _DEVICE = {"x86_64": 24, "aarch64": 16}, {"x86_64": 40, "aarch64": 32}
_SIZE = 48


def device(value: int) -> str:
    """A device number."""
    return f"makedev({hexadecimal(value >> 8 & 0xFFF)}, {hexadecimal(value & 0xFF | value >> 12 & 0xFFF00)})"


@cache
def _kinds(machine: str) -> dict[int, str]:
    return {value: name for name, value in syscalls.flags(machine, "MODE_TYPE").items()}


_SPECIAL = {0o4000: "S_ISUID", 0o2000: "S_ISGID", 0o1000: "S_ISVTX"}


def mode(value: int, machine: str) -> str:
    """A file's type and permissions."""
    kind = _kinds(machine).get(value & 0o170000)
    if not kind:
        return f"0{value:03o}"
    return "|".join([kind, *(name for bit, name in _SPECIAL.items() if value & bit), f"0{value & 0o777:03o}"])


def _what(value: int, machine: str, prefix: str, size: int, number: str) -> str:
    is_device = _kinds(machine).get(value & 0o170000) in ("S_IFCHR", "S_IFBLK")
    shown = f"{prefix}_mode={mode(value, machine)}"
    return f"{shown}, {number if is_device else f'{prefix}_size={size}'}, ..."


def stat(data: bytes, machine: str) -> str:
    """Struct stat."""
    (value,), (size,) = unpack_from("<I", data, _MODE[machine]), unpack_from("<q", data, _SIZE)
    (number,) = unpack_from("<Q", data, _DEVICE[machine])
    return f"{{{_what(value, machine, 'st', size, f'st_rdev={device(number)}')}}}"


def statx(data: bytes, machine: str) -> str:
    """Struct statx, whose device numbers are behind what was copied."""
    (mask, _, attributes), (value,) = unpack_from("<IIQ", data), unpack_from("<H", data, 28)
    (size,) = unpack_from("<Q", data, 40)
    shown = f"stx_mask={flag_set(machine, 'STATX')(mask)}, stx_attributes={hexadecimal(attributes)}"
    return f"{{{shown}, stx_mode={mode(value, machine)}, stx_size={size}, ...}}"


def statfs(data: bytes, machine: str) -> str:
    """Struct statfs."""
    kind, block, blocks, free, available = unpack_from("<5Q", data)
    name = enumeration(syscalls.flags(machine, "FILESYSTEM"), hexadecimal)(kind)
    shown = f"f_type={name}, f_bsize={block}, f_blocks={blocks}, f_bfree={free}, f_bavail={available}"
    return f"{{{shown}, ...}}"


def flock(data: bytes, machine: str, holder: bool = False) -> str:
    """Struct flock; who holds the lock if holder."""
    kind, whence, start, length, pid = unpack_from("<hhxxxxqqi", data)
    shown = f"l_type={enumeration(syscalls.flags(machine, 'F_LOCK'))(kind)}"
    shown += f", l_whence={enumeration(syscalls.flags(machine, 'SEEK'))(whence)}, l_start={start}, l_len={length}"
    return f"{{{shown}, l_pid={pid}}}" if holder else f"{{{shown}}}"
