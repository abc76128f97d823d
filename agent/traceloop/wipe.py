"""Zeroes the rest of older records in a slot: the program writes only what a call has.

Only bytes that a record says are its own may leave the node, as --redact looked only at these.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.traceloop.rings import NO_DATA, About, Records, Snapshot, as_bytes
from gadget import syscalls

_WORD = 8
_COUNTED = (syscalls.How.BYTES_POINTED, syscalls.How.VECTOR, syscalls.How.MESSAGE)
#: Fields at the end of a slot, where text may be, that calls with _COUNTED text have.
_COUNTS = ("size", "buffers", "skipped")
#: Fields that only records of some kinds have.
_SET_BY = {
    "result": ("KIND_CALL", "KIND_EXEC", "KIND_THREAD_EXIT", "KIND_PROCESS_EXIT"),
    "number": ("KIND_CALL", "KIND_NO_RETURN", "KIND_EXEC"),
}
_NUMBERS = 1 << 16

Mask = npt.NDArray[np.bool_]


def wipe(about: About, snapshot: Snapshot) -> None:
    """Zero, in place, every byte of a snapshot's records that no record says is its own."""
    if len(snapshot.calls):
        _wipe_calls(about, snapshot.calls)
    if len(snapshot.more):
        more = snapshot.more
        lengths = np.where(more["length"] == NO_DATA, 0, more["length"]).astype(np.int64)
        _keep_text(more, _offset(more, "data"), lengths)
        _wipe_gaps(more)


def _wipe_calls(about: About, calls: Records) -> None:
    names = calls.dtype.names or ()
    kinds, unknown = enum_of(about, "kind"), enum_of(about, "constant").get("NUMBER_UNKNOWN", 0)
    shape, kind = calls["shape"], calls["shape"] & 7
    is_call = kind == kinds.get("KIND_CALL", 0)
    numbers = np.minimum(calls["number"], _NUMBERS - 1) if "number" in names else np.zeros(len(calls), np.uint16)
    known, counted = _plan(about.machine)
    words = (shape >> 4).astype(np.int64)
    # of a call that the table does not have all registers are shown
    words[is_call & (words == 0) & ~known[numbers]] = calls.dtype["args"].shape[0]
    has_text = calls["length"] != NO_DATA
    kept = {name: calls[name].copy() for name in _COUNTS if name in names}
    _keep_text(calls, _offset(calls, "args"), words * _WORD + np.where(has_text, calls["length"], 0))
    counts = is_call & has_text & counted[numbers]
    for name, values in kept.items():
        rows = counts | (is_call & (numbers == unknown)) if name == "size" and unknown else counts
        calls[name][rows] = values[rows]
    for name, setters in _SET_BY.items():
        if name in names:
            calls[name][~np.isin(kind, [kinds[each] for each in setters if each in kinds])] = 0
    _keep_string(calls, "comm")
    _wipe_gaps(calls)


def _keep_text(records: Records, start: int, lengths: npt.NDArray[np.int64]) -> None:
    """Zero what is behind so many bytes from start, up to the end of each record."""
    tail = as_bytes(records)[:, start:]
    tail[np.arange(tail.shape[1]) >= lengths[:, None]] = 0


def _keep_string(records: Records, name: str) -> None:
    """Zero what is behind the first NUL of a field."""
    if name in (records.dtype.names or ()):
        start = _offset(records, name)
        field = as_bytes(records)[:, start : start + records.dtype[name].itemsize]
        field[np.logical_or.accumulate(field == 0, axis=1)] = 0


def _wipe_gaps(records: Records) -> None:
    """Zero the bytes between fields."""
    unused = np.ones(records.dtype.itemsize, np.bool_)
    for name in records.dtype.names or ():
        unused[_offset(records, name) :][: records.dtype[name].itemsize] = False
    as_bytes(records)[:, unused] = 0


@cache
def _plan(machine: str) -> tuple[Mask, Mask]:
    """For each number, whether the table of calls has it, and whether its text is counted."""
    known, counted = np.zeros((2, _NUMBERS), np.bool_)
    if machine in syscalls.MACHINES:
        known[list(syscalls.table(machine))] = True
        counted[[number for number, plan in syscalls.plan(machine).items() if plan[0].how in _COUNTED]] = True
    return known, counted


def enum_of(about: About, name: str) -> dict[str, int]:
    """The numbers of an enum of the ring's own layout, by their names."""
    values: Any = next((field["values"] for field in about.layout.get("names", ()) if field["name"] == name), {})
    return {each: int(number) for number, each in values.items()}


def _offset(records: Records, name: str) -> int:
    assert records.dtype.fields
    return int(records.dtype.fields[name][1])
