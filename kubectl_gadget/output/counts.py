"""Rows counted by their values: a live table on a terminal, one final table otherwise."""

from __future__ import annotations

import heapq
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from gadget.schema import Column, Row
from kubectl_gadget.output import Look, Output, write_table
from kubectl_gadget.output.forms.columns import Columns
from kubectl_gadget.output.in_place import InPlace

#: Distinct values counted; events with others are counted together, and said so.
MOST = 100_000
REFRESH_SECONDS = 0.25
COUNT = Column("count", "int", doc="number of events")


class Counts(Output):
    """Counts rows, and writes the counts in the end, the most frequent first."""

    def __init__(
        self, fields: Sequence[Column], final: Callable[[Sequence[Column]], Output], headers: Mapping[str, str]
    ) -> None:
        """Count by fields; final makes the output of the result, to which a count is added as the first field."""
        self.fields = fields
        self._final = final([COUNT, *fields])
        self._shown = Columns([COUNT, *fields], headers, Look(demanded=[field.name for field in fields]))
        self._counts: Counter[Row] = Counter()
        self._lists = {at: field.means.key for at, field in enumerate(fields) if not field.means.is_key}
        self._beyond = 0
        self._due = 0.0
        self._changed, self._said = False, ""
        self._place = InPlace() if sys.stdout.isatty() else None

    def write(self, rows: Sequence[Row]) -> None:
        """Count rows."""
        if self._lists:
            keys = self._lists
            rows = [tuple(keys[at](value) if at in keys else value for at, value in enumerate(row)) for row in rows]
        if len(self._counts) < MOST:
            self._counts.update(rows)
        else:
            for row in rows:
                if row in self._counts:
                    self._counts[row] += 1
                else:
                    self._beyond += 1
        self._changed = True

    def refresh(self, sum_up: Callable[[], str]) -> None:
        """Bring the live table up to date, if it is time to; sum_up says what stands below it."""
        if self._place and time.monotonic() >= self._due:
            self._due = time.monotonic() + REFRESH_SECONDS
            said = sum_up()
            if self._changed or said != self._said:
                self._changed, self._said = False, said
                self._draw(self._place, said)

    def close(self) -> None:
        """Give the terminal back. Called again, it does nothing."""
        if self._place:
            self._place.close()

    def finish(self) -> str:
        """Write the result. Returns what has to be said about it."""
        self.close()
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], repr(item[0])))
        rows = [(number, *row) for row, number in ranked]
        write_table(self._final, rows)
        return f"{self._beyond} more events had other values than the {MOST} that were counted" if self._beyond else ""

    def _draw(self, place: InPlace, said: str) -> None:
        top = heapq.nlargest(place.room, self._counts.items(), key=lambda item: item[1])
        lines = self._shown.lines([(number, *row) for row, number in top])
        place.draw(lines, len(self._counts) - len(top), said)
