"""Histograms, drawn: what a row is about in a line, and below it a bar for each length."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gadget.kinds import HISTOGRAM
from gadget.kinds.base import NONE, UNKNOWN
from gadget.kinds.histograms import bound, buckets, within
from gadget.kinds.times import short_duration
from gadget.schema import Column, Row
from kubectl_gadget.output import Extent, Form, Look, Output, terminal, text_of
from kubectl_gadget.output.forms.columns import Columns
from kubectl_gadget.output.layout import GAP
from kubectl_gadget.output.stdout import write_text
from kubectl_gadget.text import fit

#: The longest bar in cells, where there is room.
LONGEST = 50
#: More lengths below each other that there were none of are one line.
MOST_EMPTY = 2
GAP_MARK = "…"
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Histograms(Output):
    """Draws the histograms of rows, each as long as it is."""

    def __init__(self, fields: Sequence[Column], look: Look) -> None:
        """Of fields: those that are histograms, below the values of the others, but for what is the same everywhere."""
        self._at = [at for at, field in enumerate(fields) if field.means is HISTOGRAM]
        self.fields = fields
        drawn = [fields[at].name for at in self._at]
        self._told = [
            (at, text_of(field))
            for at, field in enumerate(fields)
            if field.name.partition(".")[0] not in drawn and field.name not in look.fixed
        ]

    def write(self, rows: Sequence[Row]) -> None:
        """Draw rows."""
        write_text("\n".join(self.lines(rows)) + "\n")

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """Rows as they are drawn, with an empty line between them."""
        found: list[str] = []
        for row in rows:
            found += ["", *self._drawn(row)]
        return found[1:]

    def fitting(self, rows: Sequence[Row], room: int) -> int:
        """How many rows fit."""
        needed = 0
        for number, row in enumerate(rows):
            needed += len(self._drawn(row)) + 1
            if number and needed > room:
                return number
        return len(rows)

    def _drawn(self, row: Row) -> list[str]:
        texts = [text(row[at]) for at, text in self._told]
        title = GAP.join(text for text in texts if text not in (NONE, UNKNOWN))
        found = []
        for at in self._at:
            name, value = self.fields[at].name, row[at]
            found.append(self._titled(title, name if len(self._at) > 1 else "", value))
            found += _bars(value)
        return found

    @staticmethod
    def _titled(title: str, name: str, value: Sequence[int]) -> str:
        flat = HISTOGRAM.member_of(value)
        said = f"{flat['count']:,}, half {within(value, 'p50')}, 99% {within(value, 'p99')}"
        of = ": ".join(part for part in (title, name) if part)
        if sys.stdout.isatty():  # what was measured stays
            of = fit(of, max(terminal.columns() - len(said) - 2, 1), middle=True)
            said = fit(said, terminal.columns())
        whole = ": ".join(part for part in (of, said) if part)
        if sys.stdout.isatty():
            whole = fit(whole, terminal.columns())
        return f"{terminal.BOLD}{whole}{terminal.PLAIN}" if terminal.has_colours() else whole


def _bars(value: Any) -> list[str]:
    found = [*buckets(value)]
    if not found:
        return []
    cells = [(short_duration(low), bound(high), f"{count:,}") for low, high, count in found]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    most = max(count for _, _, count in found)
    longest = max(min(LONGEST, terminal.columns() - sum(wide) - 9), 8)
    lines: list[str] = []
    for used, group in groupby(zip(cells, found, strict=True), lambda each: bool(each[1][2])):
        some = [
            f"  {low:>{wide[0]}} – {high:>{wide[1]}}  {number:>{wide[2]}}  {_bar(count, most, longest)}".rstrip()
            for (low, high, number), (_, _, count) in group
        ]
        lines += some if used or len(some) <= MOST_EMPTY else [f"  {GAP_MARK:>{wide[0]}}"]
    return lines


def _bar(count: int, most: int, longest: int) -> str:
    """A bar of a length in eighths of a cell; of what is there at least one."""
    whole, eighths = divmod(max(count * longest * 8 // most, bool(count)), 8)
    return "█" * whole + _EIGHTHS[eighths].strip()


def _make(fields: Sequence[Column], headers: Mapping[str, str], look: Look) -> Output:
    if any(field.means is HISTOGRAM for field in fields):
        return Histograms(fields, look)
    return Columns(fields, headers, look)


FORMS = (
    Form(
        "histogram",
        "a drawing of each histogram; a table where there is none",
        Extent.COLUMNS,
        one_line=False,
        make=_make,
        is_table=True,
    ),
)
