"""One container's ring: its notes, its state, its calls. Layout and protocol: bpf/traceloop/ring.h.

A ring describes itself: its notes hold the layout of what the kernel writes, so that any agent can read it, also from a
file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from agent.bpf import libbpf
from agent.bpf.bpffs import digest, open_pinned
from agent.bpf.ring import fence
from agent.clock import clock_offset
from agent.containers.identity import Container
from gadget import catalog
from gadget.schema import Field, record_dtype

RECORDS = ("call", "more", "state", "names")

_CONSTANTS = catalog.constants("traceloop", "constant")
END_INIT, NO_DATA = catalog.constants("traceloop", "end")["END_INIT"], _CONSTANTS["NO_DATA"]
ABOUT_BYTES, BUSY, MORE = (_CONSTANTS[name] for name in ("ABOUT_BYTES", "SEQUENCE_BUSY", "SEQUENCE_MORE"))
SPARES, FIRST_MISSED = _CONSTANTS["SPARES"], _CONSTANTS["FIRST_MISSED"]
STATE_BYTES, SLOT_BYTES = (catalog.record("traceloop", name).itemsize for name in ("state", "call"))

#: In the key of a saved ring, and above every cgroup id.
SAVED = 1 << 63
#: Without these fields a record cannot be read here.
_NEEDED = {
    "state": {"head", "calls", "dropped", "ended", "status", "known", "oom"},
    "call": {"sequence", "time", "length", "argument", "shape", "args"},
    "more": {"sequence", "owner", "argument", "length", "data"},
}
#: What they need not have; what is there is a number too. Of other members it is not asked what they are.
_OPTIONAL = {"first", "number", "result", "size", "buffers", "skipped"}

Records = npt.NDArray[np.void]
Positions = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class About:
    """A ring's notes. created in CLOCK_BOOTTIME, nanoseconds; layout as in the catalogue, by record.

    clock_offset is that to the wall clock when the ring was saved to a file; 0 in one that is in use. recorded is since
    when the program has written to it; 0 in those of an older agent.
    """

    container: Container
    cgroup_id: int
    created: int
    machine: str
    layout: dict[str, Any]
    clock_offset: int = 0
    recorded: int = 0

    @classmethod
    def from_json(cls, data: bytes) -> About:
        """The notes that data holds, up to its first NUL. ValueError if there are none."""
        try:
            found = orjson.loads(data.split(b"\0", 1)[0])
            about = cls(**{**found, "container": Container(**found["container"])})
            for record, needed in _NEEDED.items():
                kind = about.dtype(record)
                numbers = (needed | _OPTIONAL) & set(kind.names or ()) - {"args", "data"}
                if not needed <= set(kind.names or ()) or not all(map(_is_number, map(kind.__getitem__, numbers))):
                    raise ValueError(f"its {record} records are not complete")
            if not all(map(_is_enum, about.layout.get("names", ()))):
                raise ValueError("its names are of no numbers")
            if about.dtype("call")["args"].subdtype is None or len(about.dtype("call")["args"].shape) != 1:
                raise ValueError("its calls have no list of arguments")
            first = [dict(about.dtype(record).fields or {})["sequence"] for record in ("call", "more")]
            if any((each[0], each[1]) != (np.dtype(np.uint64), 0) for each in first):
                raise ValueError("its records do not begin with their sequence")
            if about.slot_bytes % 8 or about.slot_bytes != about.dtype("more").itemsize:
                raise ValueError("its records are of different sizes")
            if any(type(each) is not int for each in about.numbers) or not 0 <= about.cgroup_id < SAVED:
                raise ValueError("it has no numbers where they belong")
            if not all(isinstance(text, str) for text in (about.machine, *asdict(about.container).values()) if text):
                raise ValueError("it has no names where they belong")
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a ring's notes: {error}") from None
        return about

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those in it."""
        return self.cgroup_id, self.created, self.clock_offset, self.recorded

    def to_json(self) -> bytes:
        """As bytes."""
        return orjson.dumps(asdict(self))

    @cached_property
    def state_bytes(self) -> int:
        """The size of what the kernel keeps beside the calls."""
        return self.dtype("state").itemsize

    @cached_property
    def slot_bytes(self) -> int:
        """The size of a record of a call or of more of its text."""
        return self.dtype("call").itemsize

    def dtype(self, record: str) -> np.dtype[np.void]:
        """The numpy type of a record in this ring."""
        return self._dtypes[record]

    @cached_property
    def _dtypes(self) -> dict[str, np.dtype[np.void]]:
        return {name: record_dtype([Field.from_json(item) for item in self.layout[name]]) for name in _NEEDED}


def _is_number(kind: np.dtype[Any]) -> bool:
    return kind.kind in "iu" and not kind.shape


def _is_enum(item: Any) -> bool:
    values = Field.from_json(item).values
    return all(isinstance(name, str) and number.isdecimal() and len(number) < 19 for number, name in values.items())


@cache
def own_layout() -> dict[str, Any]:
    """The layout that this agent's program writes."""
    return {name: catalog.record_fields("traceloop", name) for name in RECORDS}


class Snapshot(NamedTuple):
    """What a ring held at a moment, in the order of positions; none of it torn.

    unread counts the slots that should hold something and were being written. pending are the positions, in order, that
    were given out and may be published yet.
    """

    state: dict[str, int]
    calls: Records
    more: Records
    unread: int
    pending: Positions = np.empty(0, np.uint64)

    def until(self, position: int) -> Snapshot:
        """The calls up to a position, each with all of its further slots. Those of other calls say nothing."""
        calls = self.calls[self.calls["sequence"] >> np.uint64(2) <= position]
        return self._replace(calls=calls, more=self.more[np.isin(self.more["owner"], calls["sequence"])])

    def whole(self) -> Snapshot:
        """Every call, with its further slots."""
        return self.until(SAVED)


def ring_bytes(slots: int) -> int:
    """The size of a ring of slots slots."""
    return ABOUT_BYTES + STATE_BYTES + (slots + 1) * SLOT_BYTES


def memory_bytes(size: int) -> int:
    """What a ring of size bytes takes: whole pages, and one for what the kernel has to say of it (array_map_alloc)."""
    return (-(-size // mmap.PAGESIZE) + 1) * mmap.PAGESIZE


def create(size: int) -> int:
    """A new empty ring of size bytes; its file descriptor."""
    options = libbpf.MapCreateOptions(sz=ctypes.sizeof(libbpf.MapCreateOptions), map_flags=libbpf.BPF_F_MMAPABLE)
    return libbpf.check(
        libbpf.library().bpf_map_create(libbpf.BPF_MAP_TYPE_ARRAY, b"traceloop", 4, size, 1, ctypes.byref(options)),
        "ring for traceloop",
    )


class Ring:
    """A ring that is pinned in bpffs, or was saved to a file."""

    def __init__(self, path: Path, *, saved: bool = False) -> None:
        """The ring at path. ValueError or OSError if there is none."""
        self.path = path
        self.saved = saved
        fd = self._open()
        self._size = os.fstat(fd).st_size if saved else libbpf.map_info(fd).value_size
        os.close(fd)
        with closing(self._map()) as data:
            self.about = About.from_json(data[:ABOUT_BYTES])
        if self._size < ABOUT_BYTES + self.about.state_bytes + 2 * self.about.slot_bytes:
            raise ValueError("too short for a ring")

    @property
    def key(self) -> int:
        """What clients call it by. Of saved ones several may have the same cgroup id, of different boots."""
        return SAVED | int(digest(os.fsencode(self.path.name)), 16) if self.saved else self.about.cgroup_id

    @property
    def clock_offset(self) -> int:
        """Nanoseconds from the clock of its times to the wall clock."""
        return self.about.clock_offset or clock_offset()

    def _open(self) -> int:
        return os.open(self.path, os.O_RDONLY) if self.saved else open_pinned(self.path)

    def _map(self) -> mmap.mmap:
        fd = self._open()
        try:
            if self.saved:
                return mmap.mmap(fd, self._size, prot=mmap.PROT_READ)
            return mmap.mmap(fd, -(-self._size // mmap.PAGESIZE) * mmap.PAGESIZE)
        finally:
            os.close(fd)

    def state(self) -> dict[str, int]:
        """The numbers that the kernel keeps."""
        with closing(self._map()) as data:
            return _state(self.about, data[ABOUT_BYTES : ABOUT_BYTES + self.about.state_bytes])

    def set_state(self, **values: int) -> None:
        """Set numbers of the state."""
        kind = self.about.dtype("state")
        with closing(self._map()) as data:
            state = np.frombuffer(data, kind, 1, ABOUT_BYTES)
            for name, value in values.items():
                state[name] = value
            del state

    def span(self) -> tuple[int, int]:
        """When the oldest and the newest kept calls were, in CLOCK_BOOTTIME, nanoseconds; zeros if there are none."""
        return span(self.snapshot().calls)

    def snapshot(self, after: int = 0) -> Snapshot:
        """What the ring holds, from positions above after on. The kernel goes on writing meanwhile."""
        with closing(self._map()) as data:
            return read(self.about, data, self._size, after)

    def save(self, target: Path) -> None:
        """Write the ring to a file."""
        about = replace(self.about, clock_offset=self.clock_offset).to_json().ljust(ABOUT_BYTES, b"\0")
        with closing(self._map()) as data:
            target.write_bytes(about + data[ABOUT_BYTES : self._size])


def span(calls: Records) -> tuple[int, int]:
    """When the oldest and the newest of calls were, in CLOCK_BOOTTIME, nanoseconds; zeros if there are none."""
    return (int(calls["time"].min()), int(calls["time"].max())) if len(calls) else (0, 0)


def _state(about: About, data: bytes) -> dict[str, int]:
    row = np.frombuffer(data, about.dtype("state"), 1)[0]
    assert row.dtype.names
    return {name: int(row[name]) if name in row.dtype.names else 0 for name in {*_NEEDED["state"], "first"}}


def read(about: About, data: Any, size: int, after: int = 0) -> Snapshot:
    """A snapshot of a ring's bytes, which others may be writing to."""
    start, slot = ABOUT_BYTES + about.state_bytes, about.slot_bytes
    slots = (size - start) // slot - 1
    state = _state(about, bytes(data[ABOUT_BYTES:start]))
    live = np.frombuffer(data, np.uint64, slots * slot // 8, start).reshape(slots, -1)[:, 0]
    before = live.copy()
    fence()
    copied = np.frombuffer(bytes(data[start : start + slots * slot]), np.uint8).reshape(slots, slot)
    fence()
    behind = live.copy()
    del live
    stable = (behind == before) & (before & np.uint64(BUSY) == 0) & (before != 0)
    position = before >> np.uint64(2)
    wanted = stable & (position > after) & (position + np.uint64(slots) > state["head"])
    order = np.flatnonzero(wanted)[np.argsort(position[wanted])]
    further = before[order] & np.uint64(MORE) != 0
    expected = min(state["head"] - after, slots) if state["head"] > after else 0
    return Snapshot(
        state,
        _records(about, "call", copied[order[~further]]),
        _records(about, "more", copied[order[further]]),
        max(0, expected - len(order)),
        _pending(state["head"], after, behind, stable),
    )


def _pending(head: int, after: int, sequences: npt.NDArray[np.uint64], stable: npt.NDArray[np.bool_]) -> Positions:
    """Positions of the last lap up to head whose slots are not published, and not taken by a later one either."""
    given = np.uint64(head) - np.arange(len(sequences), dtype=np.uint64)[::-1]
    given = given[(given > after) & (given <= head)]  # where less than a lap has been given out it wraps
    slots = (given - np.uint64(1)) % np.uint64(len(sequences))
    holds = sequences[slots] >> np.uint64(2)
    pending: Positions = given[(holds < given) | (holds == given) & ~stable[slots]]
    return pending


def _records(about: About, name: str, rows: npt.NDArray[np.uint8]) -> Records:
    return np.ascontiguousarray(rows).view(about.dtype(name))[:, 0] if len(rows) else np.empty(0, about.dtype(name))


def as_bytes(records: Records) -> npt.NDArray[np.uint8]:
    """The bytes of each record, a row for each; not a copy."""
    return records.view(np.uint8).reshape(-1, records.dtype.itemsize)
