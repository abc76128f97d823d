"""Merges the kept events of several nodes into one stream, in the order of their time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kubectl_gadget.stream.merge import TimedRow


class Backlog:
    """Holds rows until every node has sent its rows up to that time: nodes do not send equally fast."""

    def __init__(self, targets: Iterable[str], last: int = 0) -> None:
        """Wait until all targets have sent what they kept. last: give only so many rows, the last ones; 0 for all."""
        self._upto = dict.fromkeys(targets, 0)
        self._rows: list[TimedRow] = []
        self._last: deque[TimedRow] | None = deque(maxlen=last) if last else None
        self._given = 0

    def add(self, target: str, rows: list[TimedRow]) -> None:
        """Take rows of a target, in order."""
        self._rows += rows
        if target in self._upto:
            self._upto[target] = max(self._upto[target], rows[-1][0])

    def done(self, target: str) -> None:
        """Note that a target has sent what it kept, or sends nothing any more."""
        self._upto.pop(target, None)

    @property
    def waiting(self) -> list[str]:
        """The targets that are waited for."""
        return list(self._upto)

    @property
    def is_done(self) -> bool:
        """Whether all have."""
        return not self._upto

    def ripe(self) -> list[TimedRow]:
        """The rows that no earlier row can follow any more."""
        bound = min(self._upto.values(), default=None)
        if bound is not None and bound <= self._given:
            return []
        self._rows.sort(key=lambda row: row[0])  # runs that are in order already: a merge, for timsort
        end = len(self._rows)
        if bound is not None:
            self._given = bound
            end = next((at for at, row in enumerate(self._rows) if row[0] > bound), end)
        given, self._rows = self._rows[:end], self._rows[end:]
        if self._last is None:
            return given
        self._last.extend(given)
        if not self.is_done:
            return []
        given, self._last = list(self._last), None
        return given

    def rest(self) -> list[TimedRow]:
        """All rows that are held, if not all targets have sent what they kept."""
        self._upto.clear()
        return self.ripe()
