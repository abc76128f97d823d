"""The memory that was copied for a call's arguments, put together from the slots of a ring that hold its pieces."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gadget.syscalls import Capture, How
from kubectl_gadget.strace import Captured

#: How much room there is behind a call's arguments, each of which takes a word of it.
_ROOM, _ROOM_MAX, _WORD = 64, 63, 8


class Piece(NamedTuple):
    """A part of a text: text is None if it could not be read, left are the bytes that follow, of a string 1 or more.

    part counts from 0 in further slots, and is -1 for the one beside the arguments.
    """

    part: int
    text: bytes | None
    left: int


#: By the sequence of its call and by argument: the pieces in order.
Further = dict[int, dict[int, list[Piece]]]


def further(more: npt.NDArray[np.void], no_data: int) -> Further:
    """What further slots hold."""
    found: Further = {}
    assert more.dtype.fields
    knows_left = "left" in more.dtype.fields
    full = more.dtype["data"].itemsize - 1
    for row in more:
        text = None if row["length"] == no_data else _bytes(row, more.dtype, "data")
        left = int(row["left"]) if knows_left else int(text is not None and len(text) == full)
        pieces = found.setdefault(int(row["owner"]), {}).setdefault(int(row["argument"]), [])
        pieces.append(Piece(int(row["part"]), text, left))
    for arguments in found.values():
        for pieces in arguments.values():
            pieces.sort(key=lambda piece: piece.part)
    return found


def beside(row: np.void, no_data: int) -> dict[int, list[Piece]]:
    """The piece beside a call's arguments. A string that fills the room there goes on in another slot."""
    if row["length"] == no_data:
        return {}
    words = int(row["shape"]) >> 4
    text = _bytes(row, row.dtype, "args", words * _WORD)
    full = min(_ROOM - words * _WORD, _ROOM_MAX) - 1
    return {int(row["argument"]) & 7: [Piece(-1, text, int(len(text) == full))]}


def _bytes(row: np.void, kind: np.dtype[np.void], name: str, skip: int = 0) -> bytes:
    """The row["length"] bytes that begin skip bytes into a field. numpy takes NULs at its end for padding."""
    assert kind.fields
    start = kind.fields[name][1] + skip
    return row.tobytes()[start : start + int(row["length"])]


def joined(pieces: list[Piece], first: int) -> tuple[bytes, int]:
    """The text up to the first piece that is missing, and how many bytes are known to follow it."""
    data, left, part = b"", 1, first
    for piece in pieces:
        if piece.part != part or piece.text is None:
            break
        data, left, part = data + piece.text, piece.left, piece.part + 1
    return data, left


def strings(pieces: list[Piece]) -> Captured | None:
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
    row: np.void, capture: Capture | None, args: tuple[int, ...], result: int | None, pieces: list[Piece]
) -> Captured | None:
    """An argument's text, with the length that it really had. None if none could be read."""
    how = capture.how if capture else None
    if how == How.STRINGS:
        return strings(pieces)
    inline = pieces[0].part == -1
    if not any(piece.text is not None for piece in pieces):
        return None
    data, left = joined(pieces, -1 if inline else 0)
    size = len(data) + left
    counts: dict[str, Any] = {}
    if capture and how == How.BYTES_ARG:
        size = args[capture.size]
    elif how == How.BYTES_RESULT:
        size = result or 0
    elif capture and how == How.BYTES_FIXED:
        size = capture.size
    elif capture and how == How.BITS:
        size = bytes_of_bits(args[capture.size])
    elif how in (How.BYTES_POINTED, How.VECTOR, How.MESSAGE) and inline:
        names = row.dtype.names or ()
        size = int(row["size"]) if "size" in names else len(data)
        if how != How.BYTES_POINTED and "size" in names:
            counts = {"buffers": int(row["buffers"]), "skipped": int(row["skipped"])}
    return Captured(data, max(size, len(data)), **counts)
