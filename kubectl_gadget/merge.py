"""Rows of several nodes as one stream in the order of their time."""

from __future__ import annotations

from collections import deque

from gadget.schema import Row

#: How long a row waits for earlier ones of other nodes: agents look at their rings every 50 to 150 ms, and then there
#: is the network. What comes later still is shown late rather than never.
HOLD_SECONDS = 0.2

#: How often rows are given back: sorting a few at a time costs more than all of them at once.
STEP_SECONDS = 0.02

TimedRow = tuple[int, Row]


class Merge:
    """Holds rows for a moment, and gives them back in order."""

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._rows: list[TimedRow] = []
        #: when rows came, and the latest time of an event among them
        self._came: deque[tuple[float, int]] = deque()
        self._next = 0.0

    def add(self, rows: list[TimedRow], now: float) -> None:
        """Take rows that are in order, at a time in seconds of any clock."""
        self._rows += rows
        self._came.append((now, rows[-1][0]))

    def ripe(self, now: float) -> list[TimedRow]:
        """The rows that have waited long enough, and those before them."""
        if now < self._next:
            return []
        self._next = now + STEP_SECONDS
        latest = None
        while self._came and self._came[0][0] <= now - HOLD_SECONDS:
            latest = max(latest or 0, self._came.popleft()[1])
        if latest is None:
            return []
        self._rows.sort(key=_time)  # runs that are in order already: a merge, for timsort
        end = len(self._rows)
        if self._came:
            end = next((at for at, row in enumerate(self._rows) if row[0] > latest), end)
        given, self._rows = self._rows[:end], self._rows[end:]
        return given

    def rest(self) -> list[TimedRow]:
        """All that is held."""
        given = sorted(self._rows, key=_time)
        self._rows = []
        self._came.clear()
        return given


def _time(row: TimedRow) -> int:
    return row[0]
