"""Whole tables: on a terminal each in the place of the one before, elsewhere one below the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from gadget.schema import Column, Row
from gadget.text import counted
from kubectl_gadget.output import Output, write_table
from kubectl_gadget.output.in_place import InPlace
from kubectl_gadget.output.stdout import write_text

#: How often what stands below the table is brought up to date.
REFRESH_SECONDS = 0.25


class TableOutput(Output):
    """Shows each table that is written as a whole."""

    is_whole = True

    def __init__(self, fields: Sequence[Column], make: Callable[[], Output], *, once: bool) -> None:
        """Show fields; make makes the output of one table; once: only one is to come."""
        self.fields = fields
        self._make = make
        self._rows: Sequence[Row] | None = None
        self._due = 0.0
        self._said = ""
        self._changed = self._wrote = False
        self.is_live = sys.stdout.isatty() and not once
        self._place = InPlace() if self.is_live else None
        self._shown = make()

    def write(self, rows: Sequence[Row]) -> None:
        """Show a table, which may have no rows."""
        if self._place:
            self._rows, self._changed, self._due = rows, True, 0.0
            return
        if self._wrote:
            write_text("\n")
        self._wrote = True
        write_table(self._make(), rows)

    def refresh(self, sum_up: Callable[[], str]) -> None:
        """Draw the table, if it is time to; sum_up says what stands below it."""
        if self._place and time.monotonic() >= self._due:
            self._due = time.monotonic() + REFRESH_SECONDS
            said = sum_up()
            if self._changed or said != self._said:
                self._changed, self._said = False, said
                rows = self._rows or ()
                shown = self._shown.fitting(rows, self._place.room)
                self._place.draw(self._shown.lines(rows[:shown]), len(rows) - shown, said)

    def close(self) -> None:
        """Give the terminal back. Called again, it does nothing."""
        if self._place:
            self._place.close()

    def finish(self) -> str:
        """Leave the last table on the terminal, as it stood there: what did not fit is counted."""
        self.close()
        rows = self._rows
        if rows is None or not self._place:
            return ""
        shown = self._shown.fitting(rows, self._place.room)
        write_table(self._make(), rows[:shown])
        left = len(rows) - shown
        return (
            f"{counted(left, 'more row', ',')} of the last table: elsewhere than on a terminal all are written"
            * bool(left)
        )
