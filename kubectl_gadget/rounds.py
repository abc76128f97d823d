"""Tables of several nodes as one: those that came in the same interval."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from kubectl_gadget.merge import TimedRow

#: How long a snapshot of one node waits for those of the others, where none follows.
ONCE_SECONDS = 10.0
#: So many tables of one node wait for those of others, whatever the time: in a recording, or after a long break.
AHEAD = 4


class Rounds:
    """Holds the tables of an interval, one of each node, until all are there or have had the time of an interval."""

    def __init__(self, interval: float) -> None:
        """Tables come each so many seconds; 0: each node sends one."""
        self.seconds = interval or ONCE_SECONDS
        self._tables: dict[str, deque[list[TimedRow]]] = {}
        self._until = 0.0

    def add(self, target: str, rows: list[TimedRow], now: float) -> None:
        """Take a node's table, at a time in seconds."""
        if not any(self._tables.values()):
            self._until = now + self.seconds
        self._tables.setdefault(target, deque()).append(rows)

    def ripe(self, now: float, waited_for: Collection[str] | None) -> list[TimedRow] | None:
        """The rows of a round that is over, or of which nobody else is waited for. None: not known who may come."""
        ahead = any(len(tables) > AHEAD for tables in self._tables.values())
        over = waited_for is not None and (now >= self._until or not self.missing(waited_for))
        return self.next(now) if ahead or over else None

    def missing(self, waited_for: Collection[str]) -> list[str]:
        """Who has sent no table of this round."""
        return [target for target in waited_for if not self._tables.get(target)]

    def next(self, now: float) -> list[TimedRow] | None:
        """The rows of the oldest round as far as it has come; None if it has not begun."""
        tables = [each.popleft() for each in self._tables.values() if each]
        self._until = now + self.seconds
        return [row for rows in tables for row in rows] if tables else None
