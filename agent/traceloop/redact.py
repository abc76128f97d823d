"""--redact: masks text that matches before it leaves the node."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from agent.masking import Masker
from agent.traceloop.rings import NO_DATA, Snapshot, as_bytes
from gadget import catalog

#: A piece of a text: so many bytes of a record.
Piece = npt.NDArray[np.uint8]


#: Further buffers of a call have numbers from here on. They are one text, which the C library cuts as it likes.
_SHIFT = catalog.constants("traceloop", "constant")["BEYOND_SHIFT"]
_BUFFER = catalog.constants("traceloop", "beyond")["BEYOND_BUFFER"]


class Redactor(Masker):
    """Masks in the text of calls."""

    def __call__(self, snapshot: Snapshot) -> None:
        """Mask in place. A match may reach over all pieces of an argument's text, and all strings of a list."""
        for pieces in _texts(snapshot):
            text = b"".join(piece.tobytes() for piece in pieces)
            hidden = self.hidden(text)
            at = 0
            for piece in pieces:
                piece[hidden[at : at + len(piece)]] = ord("*")
                at += len(piece)


def _texts(snapshot: Snapshot) -> Iterator[list[Piece]]:
    """The pieces of each argument's text."""
    calls, more = snapshot.calls, snapshot.more
    texts: dict[tuple[int, int], list[Piece]] = {}
    ended = set()  # the last slot of a string is not full
    assert calls.dtype.fields and more.dtype.fields
    begin = calls.dtype.fields["args"][1]
    for row, call in zip(as_bytes(calls), calls, strict=True):
        if call["length"] != NO_DATA:
            start = begin + (int(call["shape"]) >> 4) * 8
            texts[int(call["sequence"]), int(call["argument"]) & 7] = [row[start : start + int(call["length"])]]
    begin = more.dtype.fields["data"][1]
    for row, item in zip(as_bytes(more), more, strict=True):
        if item["length"] == NO_DATA:
            continue
        argument = int(item["argument"])
        buffer = argument >> _SHIFT >= _BUFFER
        key = int(item["owner"]), argument & (1 << _SHIFT) - 1 if buffer else argument
        if key in ended and not buffer:
            texts[key].append(np.zeros(1, np.uint8))  # the next string of a list
        texts.setdefault(key, []).append(row[begin : begin + int(item["length"])])
        if item["length"] < len(row) - begin - 1:
            ended.add(key)
    yield from texts.values()
