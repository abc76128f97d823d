"""--redact: masks text that matches before it leaves the node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from agent.traceloop.rings import NO_DATA, Snapshot
from gadget.errors import UsageError

#: A piece of a text: so many bytes of a record.
Piece = npt.NDArray[np.uint8]


class Redactor:
    """Replaces what patterns match in the text of calls by as many asterisks."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Mask what any of patterns matches. UsageError if one is no regular expression."""
        try:
            self._patterns = [re.compile(pattern.encode()) for pattern in patterns]
        except re.error as error:
            raise UsageError(f"--redact: {error}") from None

    def __call__(self, snapshot: Snapshot) -> None:
        """Mask in place. A match may reach over all pieces of an argument's text."""
        for pieces in _texts(snapshot):
            text = b"".join(piece.tobytes() for piece in pieces)
            masked = text
            for pattern in self._patterns:
                masked = pattern.sub(lambda match: b"*" * len(match[0]), masked)
            if masked != text:
                at = 0
                for piece in pieces:
                    piece[:] = np.frombuffer(masked, np.uint8, len(piece), at)
                    at += len(piece)


def _texts(snapshot: Snapshot) -> Iterator[list[Piece]]:
    """The pieces of each argument's text."""
    calls, more = snapshot.calls, snapshot.more
    texts: dict[tuple[int, int], list[Piece]] = {}
    assert calls.dtype.fields and more.dtype.fields
    begin = calls.dtype.fields["args"][1]
    for row, call in zip(calls.view(np.uint8).reshape(len(calls), -1), calls, strict=True):
        if call["length"] != NO_DATA:
            start = begin + (int(call["shape"]) >> 4) * 8
            texts[int(call["sequence"]), int(call["argument"]) & 7] = [row[start : start + int(call["length"])]]
    begin = more.dtype.fields["data"][1]
    for row, item in zip(more.view(np.uint8).reshape(len(more), -1), more, strict=True):
        if item["length"] == NO_DATA:
            continue
        piece = row[begin : begin + int(item["length"])]
        texts.setdefault((int(item["owner"]), int(item["argument"])), []).append(piece)
    yield from texts.values()
