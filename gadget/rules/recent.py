"""What containers did of late: programs that they began, and calls of theirs that rules are asked about.

Of each container the newest are kept as the bytes of their rows, and read when an alert wants to know what came before
it. A container decides what there is, so each kind has room of its own: files that are written in a loop take none from
programs.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gadget.endpoints import unmapped
from gadget.rules.calls import OPENS
from gadget.rules.sections import Section, decoded, joined
from gadget.schema import Schema

#: Kinds: programs that began, connections, and what was written or failed. Then opens for reading, and what is no call.
_PROGRAM, _CONNECT, _OTHER, _OPEN, _STATE = range(5)
#: Of each of the first three so many are kept of a container.
KEPT = (32, 16, 16)
#: Containers, and the bytes of all that is kept. Who did nothing for longest makes room.
MOST_CONTAINERS, MOST_BYTES = 1024, 16 << 20
#: What a row takes beside its bytes.
ROW_BYTES = 128
#: To read what is kept takes a millisecond. So many alerts of a container may want it at once, and then one each
#: so many nanoseconds; and of all containers.
BURST, EACH_NS = 16, 500_000_000
BURST_OF_ALL, EACH_OF_ALL_NS = 128, 25_000_000
#: Letters of arguments and paths.
LONGEST = 1000
_NOT_CALLS = ("fork", "change", "procexit")
_IN_PROGRESS = -115


@dataclass(frozen=True)
class Happened:
    """A call. what: of a program that began its arguments, else a path, two paths, or an address and port.

    name is the program's, address has 4 or 16 bytes, or none.
    """

    time_ns: int
    call: str
    pid: int
    name: str
    what: tuple[str, ...]
    result: int
    address: bytes = b""
    cut: bool = False


class Budget:
    """How often something may be done for each key: some times at once, then once in a while."""

    def __init__(self, burst: int, each_ns: int) -> None:
        self._burst_ns, self._each_ns = burst * each_ns, each_ns
        self._paid: OrderedDict[int, int] = OrderedDict()  # up to when, by key

    def take(self, key: int, now_ns: int) -> bool:
        """Whether it may be done now; if so it counts as done."""
        paid = max(self._paid.get(key, 0), now_ns) + self._each_ns
        if paid - now_ns > self._burst_ns:
            return False
        self._paid[key] = paid
        self._paid.move_to_end(key)
        if len(self._paid) > MOST_CONTAINERS:
            self._paid.popitem(last=False)
        return True


class _Noted(NamedTuple):
    """The rows of a section that are to be kept: where they are, their kinds, containers and times since boot."""

    section: Section
    at: npt.NDArray[np.intp]
    kinds: npt.NDArray[np.uint8]
    cgroups: npt.NDArray[np.uint64]
    times: npt.NDArray[np.uint64]


#: Rows of one kind: when each happened in nanoseconds since boot, and its bytes.
_Ring = deque[tuple[int, bytes]]


class Recent:
    """What containers did, by their cgroups."""

    def __init__(
        self,
        schema: Schema,
        names: Sequence[str],
        inside: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]],
        most_bytes: int = MOST_BYTES,
        most_containers: int = MOST_CONTAINERS,
    ) -> None:
        """Of events in a schema, whose calls have these names by their numbers. inside tells cgroups of containers."""
        self._most_bytes, self._most_containers = most_bytes, most_containers
        self._schema, self._names, self._inside = schema, names, inside
        self._kinds = np.array([_kind_of(name) for name in names], np.uint8)
        self._known: OrderedDict[int, tuple[_Ring, ...]] = OrderedDict()
        self._bytes = 0
        self._noted: list[_Noted] = []
        self._budget, self._of_all = Budget(BURST, EACH_NS), Budget(BURST_OF_ALL, EACH_OF_ALL_NS)

    def inherit(self, other: Recent) -> None:
        """Take over what an earlier Recent kept. The earlier one is used no more."""
        for cgroup_id, theirs in other._known.items():
            rings = self._known.get(cgroup_id, tuple(deque() for _ in KEPT))
            self._forget(cgroup_id)
            joined = (sorted(dict([*old, *new]).items()) for old, new in zip(theirs, rings, strict=True))
            kept = tuple(deque(ring[-most:]) for ring, most in zip(joined, KEPT, strict=True))
            self._known[cgroup_id] = kept
            self._bytes += _size(kept)
        self._make_room()

    def note(self, section: Section) -> None:
        """Look at events that have come, in their order. They are kept when settle is called."""
        rows = section.rows
        kinds, failed = self._kinds[rows["call"]], rows["result"] < 0
        writes = (rows["flags"].astype(np.uint8) + np.uint8(1)) & np.uint8(2) != 0  # O_WRONLY, O_RDWR
        at = np.flatnonzero((kinds <= _CONNECT) | (failed & (kinds < _STATE)) | ((kinds == _OPEN) & writes))
        if not len(at):
            return
        cgroups = rows["cgroup_id"][at]
        if not (inside := self._inside(cgroups)).all():
            at, cgroups = at[inside], cgroups[inside]
        kinds = np.minimum(kinds[at], np.uint8(_OTHER))
        kinds[failed[at] & (kinds == _PROGRAM)] = _OTHER  # a shell looks for a program in each folder
        self._noted.append(_Noted(section, at, kinds, cgroups, rows["timestamp"][at]))

    def settle(self) -> None:
        """Keep what has been noted, the newest of each container and kind."""
        for noted in self._noted:
            for place in _newest(noted).tolist():
                self._keep(noted, place)
        self._noted.clear()

    def before(self, cgroup_id: int, boot_ns: int, clock_ns: int) -> tuple[Happened, ...] | None:
        """What a container did before a time since boot, the oldest first; None if that is asked too often.

        Times since boot lack clock_ns nanoseconds.
        """
        if not (self._budget.take(cgroup_id, boot_ns) and self._of_all.take(0, boot_ns)):
            return None
        found: list[tuple[int, Section, int]] = []
        for kind, most in enumerate(KEPT):
            rows = sorted(self._rows(cgroup_id, kind, boot_ns), key=lambda row: row[0])
            found += rows[-most:]
        return tuple(self._told(section, at, clock_ns) for _, section, at in sorted(found, key=lambda row: row[0]))

    def _rows(self, cgroup_id: int, kind: int, boot_ns: int) -> Iterator[tuple[int, Section, int]]:
        for time_ns, data in self._known[cgroup_id][kind] if cgroup_id in self._known else ():
            if time_ns < boot_ns:
                yield time_ns, Section(self._schema, np.frombuffer(data, np.uint8)[None, :]), 0
        for section, at, kinds, cgroups, times in self._noted:
            places = np.flatnonzero((cgroups == cgroup_id) & (kinds == kind) & (times < boot_ns))[-KEPT[kind] :]
            for place in places.tolist():
                yield int(times[place]), section, int(at[place])

    def _keep(self, noted: _Noted, place: int) -> None:
        cgroup_id, kind, at = int(noted.cgroups[place]), int(noted.kinds[place]), int(noted.at[place])
        section = noted.section
        size = section.text_at + int(section.rows["text_length"][at])
        size = min(size + -size % 64, section.bytes.shape[1])  # rows of few sizes have few types
        data = section.bytes[at, :size].tobytes()
        rings = self._known.get(cgroup_id)
        if rings is None:
            rings = self._known[cgroup_id] = tuple(deque() for _ in KEPT)
        self._known.move_to_end(cgroup_id)
        ring = rings[kind]
        ring.append((int(noted.times[place]), data))
        self._bytes += len(data) + ROW_BYTES
        if len(ring) > KEPT[kind]:
            self._bytes -= len(ring.popleft()[1]) + ROW_BYTES
        self._make_room()

    def _make_room(self) -> None:
        while len(self._known) > 1 and (self._bytes > self._most_bytes or len(self._known) > self._most_containers):
            self._forget(next(iter(self._known)))

    def _forget(self, cgroup_id: int) -> None:
        self._bytes -= _size(self._known.pop(cgroup_id, ()))

    def _told(self, section: Section, at: int, clock_ns: int) -> Happened:
        row = section.rows[at]
        call, result = self._names[row["call"]], int(row["result"])
        what, address = self._what(section, at)
        short = _cut(what)
        return Happened(
            int(row["timestamp"]) + clock_ns,
            call,
            int(row["pid"]),
            section.comm(at),
            short,
            0 if call == "connect" and result == _IN_PROGRESS else result,
            address,
            short != what or bool(row["arguments_truncated"]),
        )

    def _what(self, section: Section, at: int) -> tuple[tuple[str, ...], bytes]:
        row = section.rows[at]
        if self._kinds[row["call"]] == _PROGRAM and row["result"] >= 0:
            text = section.text(at, row["arguments"])
            return tuple(decoded(text).removesuffix("\0").split("\0")) if text else (), b""
        if chr(row["fd_type"]) in "46":
            address, port = unmapped(bytes(row["dst"]["address"]).ljust(16, b"\0")), int(row["dst"]["port"])
            if port or any(address):
                return (_endpoint(address, port),), address
        paths = (row["path"], row["to"])
        texts = (joined(section.path(at, each["directory"]), section.path(at, each["path"])) for each in paths)
        return tuple(text for text in texts if text), b""


def _size(rings: Iterable[_Ring]) -> int:
    return sum(len(row) + ROW_BYTES for ring in rings for _, row in ring)


def _kind_of(name: str) -> int:
    if name in _NOT_CALLS or not name:
        return _STATE
    if name in ("execve", "execveat"):
        return _PROGRAM
    return _CONNECT if name == "connect" else _OPEN if name in (*OPENS, "creat") else _OTHER


def _newest(noted: _Noted) -> npt.NDArray[np.intp]:
    """Which rows are among the last of their container and kind, in order."""
    if len(noted.at) <= min(KEPT):
        return np.arange(len(noted.at))
    keys = noted.cgroups << np.uint64(2) | noted.kinds
    order = np.argsort(keys, kind="stable")
    _, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    behind = np.repeat(starts + counts, counts) - np.arange(len(order))
    return np.sort(order[behind <= np.array(KEPT)[noted.kinds[order]]])


def _endpoint(address: bytes, port: int) -> str:
    shown = ip_address(address)
    return f"[{shown}]:{port}" if shown.version == 6 else f"{shown}:{port}"


def _cut(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The first of texts, with so many letters in all."""
    room, kept = LONGEST, []
    for text in texts:
        if room <= 0:
            break
        kept.append(text[:room])
        room -= len(text) + 1
    return tuple(kept)
