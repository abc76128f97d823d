"""A recording's packed records as calls, signals, ends and gaps, in the order of time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.rows import decode_text
from gadget.schema import Field, record_dtype
from kubectl_gadget.strace import Call, Captured


class End(NamedTuple):
    """A thread that ended; the last of its process if last says so. status as wait(2) gives it."""

    time_ns: int
    pid: int
    tid: int
    comm: str
    status: int
    last: bool
    oom: bool


class Signal(NamedTuple):
    """A signal as it was delivered. where is the address of a fault, or who sent it."""

    time_ns: int
    pid: int
    tid: int
    comm: str
    number: int
    code: int
    where: int


class Gap(NamedTuple):
    """Calls that are not there: overwritten while they were read, or never written."""

    missing: int


Entry = Call | End | Signal | Gap


#: Beyond this a thread's wait is told by the clock alone, nanoseconds: the counts wrap after an hour.
_LONG = 1_000_000_000
#: Added to the number of a 32-bit call, whose name no table here has.
_32BIT = 1 << 16
#: Further text by the sequence of its call and by argument: the pieces in order.
Further = dict[int, dict[int, list[tuple[int, bytes]]]]


class Reader:
    """Reads the replies about one recording, in their order."""

    def __init__(self) -> None:
        """Nothing has been read."""
        self._before: dict[int, np.void] = {}
        self._next = -1

    def entries(self, reply: pb.TraceloopReadReply) -> list[Entry]:
        """What a reply adds. A gap stands before the first entry behind it."""
        layout = orjson.loads(reply.layout)
        records = {name: [Field.from_json(item) for item in fields] for name, fields in layout.items()}
        calls = np.frombuffer(reply.calls, record_dtype(records["call"]))
        more = np.frombuffer(reply.more, record_dtype(records["more"]))
        names = {field.name: field.values for field in records["names"]}
        kinds = {int(value): name for value, name in names["kind"].items()}
        constants = {name: int(value) for value, name in names["constant"].items()}
        bit_32, no_data = constants["SHAPE_32BIT"], constants["NO_DATA"]
        further = _further(more[more["length"] != no_data])
        gaps = self._gaps(calls)
        found: list[Entry] = []
        for at in np.argsort(calls["time"], kind="stable").tolist():
            row = calls[at]
            if gap := gaps.get(at):
                found.append(Gap(gap))
            kind = kinds[int(row["shape"]) & 7]
            who = (int(row["time"]) + reply.clock_offset_ns, int(row["pid"]), int(row["tid"]), decode_text(row["comm"]))
            waited = self._wait(row)
            args = tuple(row["args"].tolist())
            if kind == "KIND_SIGNAL":
                found.append(Signal(*who, args[0], _signed(args[1]), args[2]))
            elif kind in ("KIND_THREAD_EXIT", "KIND_PROCESS_EXIT"):
                found.append(End(*who, int(row["result"]), kind == "KIND_PROCESS_EXIT", bool(args[0])))
            else:
                number = int(row["number"]) | (_32BIT if int(row["shape"]) & bit_32 else 0)
                result = None if kind == "KIND_NO_RETURN" else int(row["result"])
                texts = _texts(row, further.pop(int(row["sequence"]), {}), no_data)
                if kind == "KIND_EXEC":  # the arguments are one text here; those of the call are gone with its memory
                    texts = {argument: [b"".join(pieces)] for argument, pieces in texts.items()}
                    args = (0,) * len(args)
                captured = _captured(reply.machine, number, args, result, texts, more.dtype["data"].itemsize - 1)
                found.append(Call(who[0], waited, *who[1:], reply.machine, number, args, result, captured))
        return found

    def _gaps(self, calls: npt.NDArray[np.void]) -> dict[int, int]:
        """How many records are missing before a record, by its index. They are counted as they begin."""
        gaps = {}
        for at in np.argsort(calls["sequence"]).tolist():
            count = int(calls["count"][at])
            if self._next >= 0 and 0 < (count - self._next & 0xFFFFFFFF) < 1 << 31:
                gaps[at] = count - self._next & 0xFFFFFFFF
            if self._next < 0 or (count - self._next & 0xFFFFFFFF) < 1 << 31:
                self._next = count + 1 & 0xFFFFFFFF
        return gaps

    def _wait(self, row: np.void) -> int | None:
        """Nanoseconds that a thread was not running since its last record; None for its first.

        The scheduler counts what it ran, up to when it last looked. On one CPU the difference of both says exactly
        what is between; each CPU has its own clock, so for a thread that moved it is the time that passed less what
        it ran, to a tick.
        """
        tid = int(row["tid"])
        before = self._before.get(tid)
        self._before[tid] = row
        if before is None:
            return None
        passed = int(row["time"] - before["time"])
        ran = _difference(row, before, "ran")
        if passed < _LONG and int(row["argument"]) >> 3 == int(before["argument"]) >> 3:
            return max(0, _difference(row, before, "placed") - ran)
        return max(0, passed - ran)


def _difference(row: np.void, before: np.void, name: str) -> int:
    """Nanoseconds between two counts in units of 1,024 that wrap at 32 bits."""
    return (int(row[name]) - int(before[name]) & 0xFFFFFFFF) << 10


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _further(more: npt.NDArray[np.void]) -> Further:
    found: Further = {}
    for row in more:
        pieces = found.setdefault(int(row["owner"]), {}).setdefault(int(row["argument"]), [])
        pieces.append((int(row["part"]), _text_of(row, more.dtype, "data")))
    for arguments in found.values():
        for pieces in arguments.values():
            pieces.sort()
    return found


def _text_of(row: np.void, kind: np.dtype[np.void], name: str, skip: int = 0) -> bytes:
    """The text of row["length"] bytes that begins skip bytes into a field. numpy takes NULs at its end for padding."""
    assert kind.fields
    start = kind.fields[name][1] + skip
    return row.tobytes()[start : start + int(row["length"])]


def _texts(row: np.void, further: dict[int, list[tuple[int, bytes]]], no_data: int) -> dict[int, list[bytes]]:
    """The pieces of a call's text by argument."""
    texts = {argument: [text for _, text in pieces] for argument, pieces in further.items()}
    if row["length"] != no_data:
        own = _text_of(row, row.dtype, "args", (int(row["shape"]) >> 4) * 8)
        texts.setdefault(int(row["argument"]) & 7, []).insert(0, own)
    return texts


def _captured(
    machine: str, number: int, args: tuple[int, ...], result: int | None, texts: dict[int, list[bytes]], full: int
) -> dict[int, Captured]:
    """The text of each argument, with the length that it really had. A further piece of full bytes fills its slot."""
    plan = {capture.argument: capture for capture in syscalls.plan(machine).get(number, ())}
    captured = {}
    for argument, pieces in texts.items():
        capture = plan.get(argument)
        how = capture.how if capture else None
        data = b"".join(pieces)
        if how == syscalls.How.STRINGS and len(pieces) > 1:
            data = b"".join(piece + b"\0" for piece in pieces)
        size = len(data)
        if capture and how == syscalls.How.BYTES_ARG:
            size = args[capture.size]
        elif how == syscalls.How.BYTES_RESULT:
            size = result or 0
        elif how == syscalls.How.STRING and len(pieces) > 1 and len(pieces[-1]) == full:
            size += 1  # at least: it was cut
        captured[argument] = Captured(data, max(size, len(data)))
    return captured
