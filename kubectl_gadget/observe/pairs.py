"""Joins the rows of both ends of a flow: each agent has rows of the ends on its own node."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gadget.endpoints import RAW, Endpoint
from gadget.kinds.base import UNKNOWN
from gadget.schema import Column
from kubectl_gadget.output import text_of
from kubectl_gadget.stream.merge import TimedRow

#: What has to be known of a row, to find the one of its other end.
NEEDED = ("type", "direction", "protocol", "src", "dst", "sent", "received")
_WORDS = ("type", "direction", "protocol")
#: How far from each other the ends of a connection tell of it; over UDP one may close what the other waits for, 120 s.
NEAR_NS = {"tcp": 2 * 10**9, "udp": 125 * 10**9}
#: How long a row of what comes waits for the one of the other end: agents look at their rings every 50 to 150 ms.
HOLD_SECONDS = 0.3
#: Rows that wait at most: the oldest go on alone. And of one client's port: a socket of UDP may send to anybody.
MOST_HELD = 50_000
MOST_ALIKE = 64


class Pair(NamedTuple):
    """A flow as one end tells of it, the one that began it if both do; and the other end's row, if there is one."""

    mine: TimedRow
    other: TimedRow | None


_Key = tuple[str, str, str, int]


@dataclass(slots=True, eq=False)
class _Held:
    row: TimedRow
    came: float
    key: _Key | None
    egress: bool
    server: Endpoint | None
    bytes: tuple[int, int]  # up, down
    other: _Held | None = None
    is_done: bool = False


class Pairs:
    """Holds rows until the other end's is there, or comes no more; gives them in the order in which they came."""

    def __init__(self, names: Sequence[str], known: Mapping[str, Column], most_held: int = MOST_HELD) -> None:
        """Names are those of the values of rows, among them NEEDED; known are the columns."""
        self._most_held = most_held
        self._at = {name: names.index(name) for name in NEEDED}
        self._texts = {name: text_of(known[name]) for name in _WORDS}
        self._rows: deque[_Held] = deque()
        self._open: dict[_Key, list[_Held]] = {}
        self._newest = 0

    def add(self, rows: Sequence[TimedRow], now: float) -> None:
        """Take rows, at a time in seconds of any clock."""
        for row in rows:
            held = self._held(row, now)
            self._newest = max(self._newest, row[0])
            self._rows.append(held)
            if held.key is None:
                continue
            waiting = self._open.setdefault(held.key, [])
            other = next((each for each in waiting if _are_ends(each, held)), None)
            if other:
                self._join(other, held)
            else:
                waiting.append(held)
                del waiting[:-MOST_ALIKE]

    def ripe(self, now: float | None) -> list[Pair]:
        """The pairs that need not wait any more. now is the time for a live stream; None: use the rows' own time."""
        found: list[Pair] = []
        while self._rows:
            first = self._rows[0]
            if not (first.is_done or first.other) and len(self._rows) <= self._most_held and self._waits(first, now):
                break
            found += self._next()
        return found

    def rest(self) -> list[Pair]:
        """All rows that are still held."""
        found: list[Pair] = []
        while self._rows:
            found += self._next()
        return found

    def _next(self) -> list[Pair]:
        first = self._rows.popleft()
        if first.is_done:
            return []
        if not first.other and first.key:
            translated = next((each for each in self._open.get(first.key, ()) if _may_be_ends(first, each)), None)
            if translated:
                self._join(first, translated)
            else:
                self._forget(first)
        if not first.other:
            return [Pair(first.row, None)]
        first.other.is_done = True
        mine, other = (first, first.other) if first.egress else (first.other, first)
        return [Pair(mine.row, other.row)]

    def _waits(self, held: _Held, now: float | None) -> bool:
        if held.key is None:
            return False
        if now is not None:
            return now - held.came < HOLD_SECONDS
        return self._newest - held.row[0] <= NEAR_NS.get(held.key[1], 0)

    def _held(self, row: TimedRow, now: float) -> _Held:
        values = {name: row[1][at] for name, at in self._at.items()}
        kind, direction, protocol = (self._texts[name](values[name]) for name in _WORDS)
        egress = direction == "egress"
        client, server = (values["src"], values["dst"]) if egress else (values["dst"], values["src"])
        up, down = values["sent"] or 0, values["received"] or 0
        whole = client is not None and server is not None and UNKNOWN not in (kind, direction, protocol)
        key = (kind, protocol, client.addr, client.port) if whole and kind in ("begun", "ended") else None
        return _Held(row, now, key, egress, server, (up, down) if egress else (down, up))

    def _join(self, first: _Held, second: _Held) -> None:
        for each in (first, second):
            self._forget(each)
        first.other, second.other = second, first

    def _forget(self, held: _Held) -> None:
        waiting = self._open.get(held.key) if held.key else None
        if waiting and held in waiting:
            waiting.remove(held)
        if waiting == [] and held.key:
            del self._open[held.key]


def _are_near(first: _Held, second: _Held) -> bool:
    assert first.key
    return first.egress != second.egress and abs(first.row[0] - second.row[0]) <= NEAR_NS.get(first.key[1], 0)


def _are_ends(first: _Held, second: _Held) -> bool:
    """Whether two rows are of both ends of a flow: the same addresses and ports."""
    assert first.server
    assert second.server
    return _are_near(first, second) and first.server[:2] == second.server[:2]


def _may_be_ends(first: _Held, second: _Held) -> bool:
    """Whether they are, with the address that was asked made another one, as a Service's is. Bytes have to agree."""
    asked = first.server if first.egress else second.server
    assert asked
    return _are_near(first, second) and asked.kind in ("svc", "node", RAW.kind) and first.bytes == second.bytes
