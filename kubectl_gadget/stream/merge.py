"""Rows of several nodes as one stream in the order of their time."""

from __future__ import annotations

from collections import deque

from gadget.schema import Row

#: How long a row waits for earlier ones of other nodes: agents look at their rings every 50 to 150 ms, and then there
#: is the network. What comes later still is shown late rather than never.
HOLD_SECONDS = 0.2

#: How often rows are given back: sorting a few at a time costs more than all of them at once.
STEP_SECONDS = 0.02

#: Rows that are held at most, whatever the time: in a recording one event from years ahead makes all others wait.
MOST_HELD = 100_000

#: When, what, and the id of whose container.
TimedRow = tuple[int, Row, str]


class Merge:
    """Holds rows for a moment, and gives them back in order."""

    def __init__(self, hold_seconds: float = HOLD_SECONDS, most_held: int = MOST_HELD) -> None:
        """Rows will wait for so long, and so many at most."""
        self._hold, self._most_held = hold_seconds, most_held
        self._rows: list[TimedRow] = []
        #: when rows came, the latest time of an event among them, and how many there were
        self._came: deque[tuple[float, int, int]] = deque()
        self._next = 0.0

    def add(self, rows: list[TimedRow], now: float) -> None:
        """Take rows that are in order, at a time in seconds of any clock."""
        self._rows += rows
        self._came.append((now, rows[-1][0], len(rows)))

    def ripe(self, now: float) -> list[TimedRow]:
        """The rows that have waited long enough, and those before them."""
        beyond = len(self._rows) - self._most_held
        if now < self._next and beyond <= 0:
            return []
        self._next = now + STEP_SECONDS
        latest = None
        while self._came and (self._came[0][0] <= now - self._hold or beyond > 0):
            _, last, number = self._came.popleft()
            latest, beyond = max(latest or 0, last), beyond - number
        if latest is None:
            return []
        self._rows.sort(key=_time)  # runs that are in order already: a merge, for timsort
        end = len(self._rows)
        if self._came:
            end = next((at for at, row in enumerate(self._rows) if row[0] > latest), end)
        given, self._rows = self._rows[:end], self._rows[end:]
        if not self._rows:
            self._came.clear()
        return given

    def rest(self) -> list[TimedRow]:
        """All rows that are still held."""
        given = sorted(self._rows, key=_time)
        self._rows = []
        self._came.clear()
        return given


def _time(row: TimedRow) -> int:
    return row[0]
