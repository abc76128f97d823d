"""The memory that was copied for a call's arguments, put together from the slots of a ring that hold its pieces."""

from __future__ import annotations

from itertools import repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gadget.syscalls import Capture, How
from kubectl_gadget.strace import Captured
from kubectl_gadget.traceloop.rows import CallRow, Layout, column

#: How much room there is behind a call's arguments, each of which takes a word of it.
_ROOM, _ROOM_MAX, _WORD = 64, 63, 8
# to look them up in their class takes as long as all else
_STRINGS, _BYTES_ARG, _BYTES_RESULT, _BYTES_FIXED, _BITS, _BYTES_POINTED = (
    How.STRINGS, How.BYTES_ARG, How.BYTES_RESULT, How.BYTES_FIXED, How.BITS, How.BYTES_POINTED
)  # fmt: skip
_COUNTED = frozenset((How.BYTES_POINTED, How.VECTOR, How.MESSAGE))


class SlotText(NamedTuple):
    """A part of a text: text is None if it could not be read, left are the bytes that follow, of a string 1 or more.

    part counts from 0 in further slots, and is -1 for the one beside the arguments.
    """

    part: int
    text: bytes | None
    left: int


#: By the sequence of its call and by argument: the pieces in order.
Further = dict[int, dict[int, list[SlotText]]]


def further(more: npt.NDArray[np.void], data: bytes, no_data: int) -> Further:
    """What further slots hold, whose bytes data are."""
    found: Further = {}
    kind = more.dtype
    assert kind.fields
    size, (of_data, start, *_) = kind.itemsize, kind.fields["data"]
    full = of_data.itemsize - 1
    numbers = [column(more, name) for name in ("owner", "argument", "part", "length")]
    left = column(more, "left") if "left" in kind.fields else repeat(None)
    for at, (owner, argument, part, length, follows) in enumerate(zip(*numbers, left, strict=False)):
        begin = at * size + start
        text = None if length == no_data else data[begin : min(begin + length, (at + 1) * size)]
        if follows is None:
            follows = int(text is not None and len(text) == full)
        found.setdefault(owner, {}).setdefault(argument, []).append(SlotText(part, text, follows))
    for arguments in found.values():
        for pieces in arguments.values():
            if len(pieces) > 1:
                pieces.sort(key=lambda piece: piece.part)
    return found


def beside(row: CallRow, at: int, data: bytes, layout: Layout) -> SlotText:
    """The piece beside a call's arguments, whose record is the at-th of data.

    A string that fills the room there goes on in another slot.
    """
    skip, size = (row.shape >> 4) * _WORD, layout.call.itemsize
    begin = at * size + layout.args + skip
    text = data[begin : min(begin + row.length, (at + 1) * size)]
    full = min(_ROOM - skip, _ROOM_MAX) - 1
    return SlotText(-1, text, int(len(text) == full))


def joined(pieces: list[SlotText], first: int) -> tuple[bytes, int]:
    """The text up to the first piece that is missing, and how many bytes are known to follow it."""
    data, left, part = b"", 1, first
    for piece in pieces:
        if piece.part != part or piece.text is None:
            break
        data, left, part = data + piece.text, piece.left, piece.part + 1
    return data, left


def strings(pieces: list[SlotText]) -> Captured | None:
    """An argument list: part is which string, in the upper half how many there are. None if it could not be read."""
    count = pieces[0].part >> 4
    items, cut = [], []
    for number, piece in enumerate(pieces):
        if piece.part & 15 != number or piece.text is None:
            break
        items.append(piece.text + b"\0")
        if piece.left:
            cut.append(number)
    if not items and count:
        return Captured(b"", 1)
    data = b"".join(items)
    return Captured(data, len(data) + (len(items) < count), cut=frozenset(cut))


def bytes_of_bits(count: int) -> int:
    """As many bytes as a set of bits takes: it is made of longs."""
    return ((count & 0xFFFF) + 63) // 64 * 8


def captured(
    row: CallRow, capture: Capture | None, args: tuple[int, ...], result: int | None, pieces: list[SlotText]
) -> Captured | None:
    """An argument's text, with the length that it really had. None if none could be read."""
    how = capture.how if capture else None
    if how is _STRINGS:
        return strings(pieces)
    first = pieces[0]
    inline = first.part == -1
    if len(pieces) == 1 and inline:
        data, left = first.text, first.left
    elif any(piece.text is not None for piece in pieces):
        data, left = joined(pieces, -1 if inline else 0)
    else:
        data = None
    if data is None:
        return None
    size, buffers, skipped = len(data) + left, 1, 0
    if capture and how is _BYTES_ARG:
        size = args[capture.size]
    elif how is _BYTES_RESULT:
        size = result or 0
    elif capture and how is _BYTES_FIXED:
        size = capture.size
    elif capture and how is _BITS:
        size = bytes_of_bits(args[capture.size])
    elif inline and how in _COUNTED:
        size = len(data) if row.size is None else row.size
        if how is not _BYTES_POINTED and row.size is not None:
            buffers, skipped = row.buffers, row.skipped
    return Captured(data, max(size, len(data)), buffers, skipped)
