"""--redact: masks text that matches before it leaves the node."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from agent.traceloop.rings import NO_DATA, Snapshot, as_bytes
from gadget import catalog
from gadget.errors import UsageError

#: A piece of a text: so many bytes of a record.
Piece = npt.NDArray[np.uint8]


#: Further buffers of a call have numbers from here on. They are one text, which the C library cuts as it likes.
_SHIFT = catalog.constants("traceloop", "constant")["BEYOND_SHIFT"]
_BUFFER = catalog.constants("traceloop", "beyond")["BEYOND_BUFFER"]


class Redactor:
    """Replaces what patterns match in the text of calls by as many asterisks."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Mask what any of patterns matches. UsageError if one is no regular expression."""
        try:
            self._patterns = [re.compile(os.fsencode(pattern)) for pattern in patterns]
        except re.error as error:
            raise UsageError(f"--redact: {error}") from None

    def __call__(self, snapshot: Snapshot) -> None:
        """Mask in place. A match may reach over all pieces of an argument's text, and all strings of a list."""
        for pieces in _texts(snapshot):
            text = b"".join(piece.tobytes() for piece in pieces)
            hidden = self._hidden(text)
            at = 0
            for piece in pieces:
                piece[hidden[at : at + len(piece)]] = ord("*")
                at += len(piece)

    def mask(self, data: bytes) -> bytes:
        """The same of one text."""
        masked = np.frombuffer(data, np.uint8).copy()
        masked[self._hidden(data)] = ord("*")
        return masked.tobytes()

    def _hidden(self, text: bytes) -> npt.NDArray[np.bool_]:
        """Which bytes to mask. Those between arguments are NULs: they match as spaces too, and stay."""
        matched = bytearray(len(text))
        for form in {text, text.replace(b"\0", b" ")}:
            for pattern in self._patterns:
                for match in pattern.finditer(form):
                    matched[match.start() : match.end()] = b"\1" * len(match[0])
        hidden = np.frombuffer(matched, np.bool_)
        hidden[np.frombuffer(text, np.uint8) == 0] = False
        return hidden


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
