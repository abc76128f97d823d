"""A recording's packed records as rows of plain numbers: column by column, as numpy is slow at single values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from gadget.checks import LONGEST_SCHEMA, check_fields
from gadget.schema import Field, record_dtype

#: Bytes of a record, many times what there is: slots of rings have 128.
LARGEST_RECORD = 4096
_TITLES = {"BEYOND_NAME": "name", "BEYOND_CONTROL": "control"}


class Layout(NamedTuple):
    """What a ring's notes tell of its records. Constants that an older program did not have are 0.

    args is where a call's arguments begin in its record.
    """

    call: np.dtype[np.void]
    more: np.dtype[np.void]
    args: int
    kinds: Mapping[int, str]
    no_data: int
    placed_bits: int
    number_unknown: int
    shape_32bit: int
    beyond_shift: int
    titles: Mapping[int, str]
    buffers: int

    def beyond(self, argument: int) -> str | int:
        """What of an argument a text is, if it is not what the argument points to; else 0."""
        which = argument >> self.beyond_shift if self.beyond_shift else 0
        return which and self.titles.get(which, which - self.buffers)


@lru_cache(16)  # agents of one version have the same
def find_layout(text: str) -> Layout:
    """The layout that a text is of, as JSON. An error of many kinds if it makes no sense."""
    if len(text) > LONGEST_SCHEMA:
        raise ValueError("a layout too long")
    records = {name: [Field.from_json(item) for item in fields] for name, fields in orjson.loads(text).items()}
    for fields in records.values():
        check_fields(fields, LARGEST_RECORD)
    call, more = record_dtype(records["call"]), record_dtype(records["more"])
    values = {field.name: field.values for field in records["names"]}
    constants = {name: int(value) for value, name in values["constant"].items()}
    beyond = {name: int(value) for value, name in values.get("beyond", {}).items()}
    assert call.fields
    if constants.get("PLACED_BITS", 0) > 32:
        raise ValueError("counts of more bits than they have")
    return Layout(
        call,
        more,
        call.fields["args"][1],
        {int(value): name for value, name in values["kind"].items()},
        constants.get("NO_DATA", 0),
        constants.get("PLACED_BITS", 0),
        constants.get("NUMBER_UNKNOWN", 0),
        constants.get("SHAPE_32BIT", 0),
        constants.get("BEYOND_SHIFT", 0),
        {beyond[name]: title for name, title in _TITLES.items() if name in beyond},
        beyond.get("BEYOND_BUFFER", 0),
    )


class CallRow(NamedTuple):
    """A record of a call: what bpf/traceloop/ring.h says. size is None in one of an older program."""

    sequence: int
    time: int
    placed: int
    ran: int
    pid: int
    tid: int
    result: int
    number: int
    shape: int
    length: int
    argument: int
    comm: bytes
    args: list[int]
    size: int | None
    buffers: int
    skipped: int


_NUMBERS = ("sequence", "time", "placed", "ran", "pid", "tid", "result", "number", "shape", "length", "argument")


def rows_of(calls: npt.NDArray[np.void]) -> list[CallRow]:
    """Records of calls, as they lie."""
    names = calls.dtype.names or ()
    sizes: list[Any] = [repeat(None), repeat(0), repeat(0)]
    if "size" in names:
        sizes = [column(calls, name) for name in ("size", "buffers", "skipped")]
    numbers = [column(calls, name) for name in _NUMBERS]
    # as Row._make does, which is not in C
    make = partial(tuple.__new__, CallRow)
    return list(map(make, zip(*numbers, calls["comm"].tolist(), calls["args"].tolist(), *sizes, strict=False)))


def column(records: npt.NDArray[np.void], name: str) -> list[int]:
    """A field of all records. ValueError if it is no number."""
    values = records[name]
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise ValueError(f"{name} is no number")
    found: list[int] = values.tolist()
    return found
