"""Joins the tables that several nodes sent in one interval, or in a recording read in one interval."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from kubectl_gadget.stream.merge import TimedRow

#: How long a snapshot of one node waits for those of the others, where none follows.
ONCE_SECONDS = 10.0
#: So many tables of one node wait for those of others, whatever the time: in a recording, or after a long break.
AHEAD = 4
#: In a recording tables are of one round that were read in less than this part of an interval. With more than a half
#: nodes whose intervals begin at other times stay together; with less than a whole a table that is missing is noticed.
TOGETHER = 0.75


class Came(NamedTuple):
    """A node's table, when it came or was read, and how long its interval was, 0 if that is not known. In seconds."""

    rows: list[TimedRow]
    at: float
    length: float


class Rounds:
    """Holds the tables of an interval, one of each node, until all are there or have had the time of an interval."""

    def __init__(self, interval: float, *, recorded: bool = False) -> None:
        """Tables come each so many seconds; 0: each node sends one. recorded: they are of a recording."""
        self.seconds = interval or ONCE_SECONDS
        self._recorded, self._usual = recorded, ONCE_SECONDS
        self._tables: dict[str, deque[Came]] = {}
        self._until = 0.0

    def add(self, target: str, rows: list[TimedRow], now: float, length: float = 0.0) -> None:
        """Take a node's table, at a time in seconds: of a recording, when it was read. length is its interval's."""
        if not any(self._tables.values()):
            self._until = now + self.seconds
        self._tables.setdefault(target, deque()).append(Came(rows, now, length))

    def ripe(self, now: float, waited_for: Collection[str] | None) -> list[TimedRow] | None:
        """The rows of a round that is over, or of which nobody else is waited for. None: not known who may come."""
        ahead = any(len(tables) > AHEAD for tables in self._tables.values())
        over = waited_for is not None and (now >= self._until or not self.missing(waited_for))
        return self.next(now) if ahead or over else None

    def missing(self, waited_for: Collection[str]) -> list[str]:
        """The targets that have sent no table in this round."""
        return [target for target in waited_for if not self._tables.get(target)]

    def next(self, now: float) -> list[TimedRow] | None:
        """The rows of the oldest round as far as it has come; None if it has not begun."""
        waiting = [tables for tables in self._tables.values() if tables]
        if self._recorded and waiting:
            waiting = self._read_together(waiting)
        self._until = now + self.seconds
        return [row for tables in waiting for row in tables.popleft().rows] if waiting else None

    def _read_together(self, waiting: list[deque[Came]]) -> list[deque[Came]]:
        """The targets whose next table was read together with the oldest one; others have none in this round."""
        if lengths := sorted(table.length for tables in waiting for table in tables if table.length):
            self._usual = lengths[len(lengths) // 2]
        oldest = min(tables[0].at for tables in waiting)
        return [tables for tables in waiting if tables[0].at - oldest < TOGETHER * self._usual]
