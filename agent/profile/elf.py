"""The functions of an ELF file. A container may have made it, to do harm: reads are bounded, and nothing is mapped.

A file that is mapped and cut short meanwhile would end the agent (SIGBUS). Names are read one by one, when they are
asked for, as most never are.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Symbols that are read of a table, and functions that are kept of a file. A browser has about half a million.
MOST_SYMBOLS, MOST_FUNCTIONS = 4_000_000, 2_000_000
#: Headers of each kind that are read, and the bytes of a name. Names of C++ have some hundred.
MOST_HEADERS, MOST_NAME = 4096, 1024
#: Symbols that are read at a time.
_AT_ONCE = 1 << 16
#: How many functions that begin before an address are asked whether they reach it: one may lie within another.
_ENCLOSING = 8
#: elf(5)
_MAGIC, _LITTLE = b"\x7fELF", 1
_LOAD, _EXECUTABLE = 1, 1
_SYMTAB, _DYNSYM = 2, 11
_KINDS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_RANKS = np.array([0, 2, 1, 0], np.uint8)  # by binding: local, global, weak, others
_FUNCTION = np.dtype([("begin", "<u8"), ("size", "<u4"), ("name", "<u4")])
_LONGEST, _FARTHEST = (1 << 32) - 1, 1 << 62
_SYMBOL = {
    1: np.dtype([("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"), ("at", "<u2")]),
    2: np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("at", "<u2"), ("value", "<u8"), ("size", "<u8")]),
}


class NotElf(Exception):
    """The file is damaged, or no ELF file for this machine."""


@dataclass(frozen=True)
class Segment:
    """A part of the file with code: where it lies in the file, and the addresses that it is linked for."""

    offset: int
    size: int
    address: int


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


class Functions:
    """The functions of a file by their addresses. The file itself is not held open."""

    def __init__(self, fd: int) -> None:
        """Read them. NotElf or OSError if that is not possible."""
        self._segments, sections, class_ = _read_headers(fd)
        self._names = _Section(0, 0, 0, 0)
        self._functions = np.empty(0, _FUNCTION)
        for kind in (_SYMTAB, _DYNSYM):  # the first has all that the second has, but strip(1) removes it
            table = next((each for each in sections if each.kind == kind and each.link < len(sections)), None)
            if table and not len(self._functions):
                self._names = sections[table.link]
                self._functions = _read_functions(fd, table, class_)

    @property
    def bytes(self) -> int:
        """The memory that they take."""
        return 1024 + self._functions.nbytes

    def address_of(self, offset: int) -> int | None:
        """The address that a place in the file is linked for; None if the place has no code."""
        for each in self._segments:
            if each.offset <= offset < each.offset + each.size:
                return offset - each.offset + each.address
        return None

    def find(self, address: int, fd: int) -> str:
        """The name of the function that an address lies in, from the file again; empty if none is known."""
        at = int(np.searchsorted(self._functions["begin"], np.uint64(address), side="right")) - 1
        for each in range(at, max(at - _ENCLOSING, -1), -1):
            begin, size, name = self._functions[each].tolist()
            if address < begin + size:
                return self._name(name, fd)
        return ""

    def _name(self, at: int, fd: int) -> str:
        names = self._names
        if at >= names.size or names.offset >= _FARTHEST:
            return ""
        data = os.pread(fd, min(MOST_NAME + 1, names.size - at), names.offset + at)
        name, end, _ = data.partition(b"\0")
        return decode(name[:MOST_NAME]) + "…" * (not end and len(name) > MOST_NAME)


def decode(name: bytes) -> str:
    """A name that may be any bytes, as text that every encoding has."""
    return name.decode("utf-8", "backslashreplace")


def _read_headers(fd: int) -> tuple[list[Segment], list[_Section], int]:
    """The segments that are to be run, all sections, and whether it is of 32 (1) or 64 bits (2)."""
    start = os.pread(fd, 64, 0)
    if len(start) < 52 or start[:4] != _MAGIC or start[5] != _LITTLE or start[4] not in (1, 2):
        raise NotElf
    wide = start[4] == 2
    try:
        where = struct.unpack_from("<QQ" if wide else "<II", start, 32 if wide else 28)
        sizes = struct.unpack_from("<HHHH", start, 54 if wide else 42)
    except struct.error:
        raise NotElf from None
    segments: list[Segment] = []
    for entry in _entries(fd, where[0], sizes[0], sizes[1], 56 if wide else 32):
        if wide:
            kind, flags, offset, address, _, in_file, _, _ = struct.unpack_from("<IIQQQQQQ", entry)
        else:
            kind, offset, address, _, in_file, _, flags, _ = struct.unpack_from("<IIIIIIII", entry)
        if kind == _LOAD and flags & _EXECUTABLE:
            segments.append(Segment(offset, in_file, address))
    sections: list[_Section] = []
    for entry in _entries(fd, where[1], sizes[2], sizes[3], 64 if wide else 40):
        _, kind, _, _, offset, size, link = struct.unpack_from("<IIQQQQI" if wide else "<IIIIIII", entry)
        sections.append(_Section(kind, offset, size, link))
    return segments, sections, start[4]


def _entries(fd: int, offset: int, size: int, number: int, least: int) -> Iterator[bytes]:
    if not number or size < least or offset >= _FARTHEST:
        return
    data = os.pread(fd, min(number, MOST_HEADERS) * size, offset)
    for at in range(0, len(data) - size + 1, size):
        yield data[at : at + size]


def _read_functions(fd: int, table: _Section, class_: int) -> npt.NDArray[np.void]:
    """The functions of a table in the order of their begins; of several at one place the best known comes last."""
    form = _SYMBOL[class_]
    number = min(table.size // form.itemsize, MOST_SYMBOLS)
    parts: list[npt.NDArray[np.void]] = []
    ranks: list[npt.NDArray[np.uint8]] = []
    room = MOST_FUNCTIONS
    for first in range(0, number if table.offset < _FARTHEST else 0, _AT_ONCE):
        data = os.pread(fd, min(_AT_ONCE, number - first) * form.itemsize, table.offset + first * form.itemsize)
        symbols = np.frombuffer(data[: len(data) // form.itemsize * form.itemsize], form)
        # a function with a size: where one without ends, nobody knows
        wanted = np.isin(symbols["info"] & 15, _KINDS) & (symbols["at"] != 0) & (symbols["size"] > 0)
        found = symbols[wanted][:room]
        part = np.empty(len(found), _FUNCTION)
        part["begin"], part["name"] = found["value"], found["name"]
        part["size"] = np.minimum(found["size"], _LONGEST)
        parts.append(part)
        ranks.append(_RANKS[np.minimum(found["info"] >> 4, len(_RANKS) - 1)])
        room -= len(found)
        if not room or len(symbols) < _AT_ONCE:
            break
    if not parts:
        return np.empty(0, _FUNCTION)
    functions = np.concatenate(parts)
    parts.clear()
    order = np.lexsort((np.concatenate(ranks), functions["begin"]))
    return functions[order]
