"""Rows of events of one size, as the programs pack them: their numbers, texts and paths."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gadget.rules.keys import Words
from gadget.schema import Field, Schema

Bytes = npt.NDArray[np.uint8]


class Packed(Protocol):
    """Rows of one size, one after the other."""

    @property
    def record_size(self) -> int:
        """Bytes of each."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def rows(self) -> bytes:
        """All of them."""


class Section:
    """Rows of one size."""

    def __init__(self, schema: Schema, data: Bytes) -> None:
        """The rows that are the rows of data."""
        self.bytes, self.text_at = data, schema.text_offset
        self.rows = data.view(schema.dtype(data.shape[1]))[:, 0]

    @classmethod
    def of(cls, schema: Schema, packed: Packed) -> Section:
        """All rows of a section of a batch."""
        return cls(schema, np.frombuffer(packed.rows, np.uint8).reshape(packed.count, packed.record_size))

    def only(self, schema: Schema, chosen: npt.NDArray[np.bool_]) -> Section:
        """Some of the rows."""
        return self if chosen.all() else Section(schema, self.bytes[chosen])

    def __len__(self) -> int:
        return len(self.bytes)

    def words(self, spans: Sequence[slice], *more: Bytes) -> Words:
        """Some of the bytes of each row side by side, and more, filled up to whole words."""
        parts = [*(self.bytes[:, span] for span in spans), *more]
        words = np.zeros((len(self), -(-sum(part.shape[1] for part in parts) // 8)), np.uint64)
        found, at = words.view(np.uint8), 0
        for part in parts:
            if width := part.shape[1]:  # each is one item for numpy, which would else go byte by byte
                found[:, at : at + width].view(f"V{width}")[:] = part.view(f"V{width}")
                at += width
        return words

    def comm(self, at: int) -> str:
        """The name of a row's thread."""
        return decoded(bytes(self.rows["comm"][at]).rstrip(b"\0"))

    def text(self, at: int, where: Any) -> bytes:
        """The text that a slice of a row names."""
        start = self.text_at + int(where["offset"])
        return self.bytes[at, start : start + int(where["length"])].tobytes()

    def path(self, at: int, where: Any) -> str:
        """A path of a row, as it was passed or from the root; empty if there is none."""
        text = self.text(at, where)
        if not where["as_given"]:
            text = (b"/\xe2\x80\xa6/" if where["cut"] else b"/") + b"/".join(text.split(b"/")[-2::-1])
        return decoded(text)


def spans(fields: Iterable[Field]) -> list[slice]:
    """Where fields are, those side by side as one."""
    found: list[slice] = []
    for each in sorted(fields, key=lambda field: field.offset):
        if found and found[-1].stop == each.offset:
            found[-1] = slice(found[-1].start, each.offset + each.size)
        else:
            found.append(slice(each.offset, each.offset + each.size))
    return found


def decoded(text: bytes) -> str:
    """Text of a process; what is no UTF-8 is escaped."""
    return text.decode("utf-8", "surrogateescape")


def joined(folder: str, path: str) -> str:
    """A path from the root without . and .. in it; one whose folder is not known stays as it is."""
    whole = posixpath.join(folder, path.lstrip("/")) if folder else path
    return posixpath.normpath(f"/{whole.lstrip('/')}") if whole.startswith("/") else whole
