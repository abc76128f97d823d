"""Rows as a table that grows downwards: fitted to the terminal, each column as wide as it has needed to be."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gadget.schema import IDENTITY, Field, Row
from kubectl_gadget.output.stdout import write_text
from kubectl_gadget.text import fit, pad, widest, width
from kubectl_gadget.values import to_text

GAP = "  "
#: The value of a field that an agent of another version does not have.
NOTHING = "-"
#: Cells a column begins with, so that the table does not move when the first longer value comes.
USUAL = {
    "pid": 7,
    "uid": 5,
    "gid": 5,
    "comm": 12,
    "timestamp": 15,
    "errno": 3,
    "path": 20,
    "text": 20,
    "flags": 18,
    "endpoint": 21,
    "words": 11,
    "duration": 8,
}
USUAL_NARROW = {"pid": 6, "comm": 8, "timestamp": 15, "errno": 3}
#: The last column gets at least this much of a terminal; names of nodes, pods and the like are cut for it.
LEAST_LAST = 16
LEAST_NAME = 8
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def is_narrow() -> bool:
    """Whether standard output is a terminal on which every cell counts."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < 100


class Columns:
    """Writes a header once, then rows."""

    def __init__(self, fields: list[Field], headers: dict[str, str]) -> None:
        """Show fields under their names in capitals, or what headers calls them."""
        self.fields = fields
        self._headers = [headers.get(field.name, field.name.upper()) for field in fields]
        self._texts = [_or_nothing(to_text(field)) for field in fields]
        usual = USUAL_NARROW if is_narrow() else USUAL
        self._widths = [max(width(title), usual.get(f.kind, 0)) for title, f in zip(self._headers, fields, strict=True)]
        self._started = False
        self._terminal = sys.stdout.isatty()

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Print the header, the first time, with room for the given (node, namespace, pod, container, id) names."""
        if self._started:
            return
        self._started = True
        for at, field in enumerate(self.fields):
            if field.name in IDENTITY:
                index = IDENTITY.index(field.name)
                self._widths[at] = max([self._widths[at], *(width(item[index]) for item in names)])
        self._widen(rows)
        self._put([[title] for title in self._headers])

    def write(self, rows: Sequence[Row]) -> None:
        """Print rows, cut where the terminal ends."""
        self._put(self._widen(rows), rows)

    def _widen(self, rows: Sequence[Row]) -> list[list[str]]:
        """The cells of rows, column by column, for which columns are made wide enough."""
        if not rows:
            return []
        columns = [_each(text, column) for text, column in zip(self._texts, zip(*rows, strict=True), strict=True)]
        for at, column in enumerate(columns[:-1]):
            self._widths[at] = max(self._widths[at], widest(column))
        return columns

    def finish(self) -> str:
        """Nothing has been kept back."""
        return ""

    def _put(self, columns: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        widths, last = self._fitted()
        shown = [
            self._align(at, column, cells) for at, (column, cells) in enumerate(zip(columns, widths, strict=False))
        ]
        for at in [at for at, field in enumerate(self.fields[:-1]) if field.kind == "errno" and self._terminal]:
            failed = [bool(row[at]) for row in rows] or [False]
            shown[at] = [f"{_RED}{cell}{_PLAIN}" if red else cell for cell, red in zip(shown[at], failed, strict=True)]
        shown.append([fit(text, last) for text in columns[-1]] if last else list(columns[-1]))
        write_text("\n".join([GAP.join(line).rstrip() for line in zip(*shown, strict=True)]) + "\n")

    def _align(self, at: int, column: Sequence[str], cells: int) -> list[str]:
        """A column, cut and filled up to so many cells; numbers of errors to the right."""
        if widest(column) > cells:
            column = _each(lambda text: fit(text, cells, middle=True), column)
        if self.fields[at].kind == "errno":
            return [text.rjust(cells) for text in column]
        if "".join(column).isascii():
            return [text.ljust(cells) for text in column]
        return _each(lambda text: pad(text, cells), column)

    def _fitted(self) -> tuple[list[int], int]:
        """Widths of all columns but the last, and what is left for that one; 0 if there is no terminal to fit."""
        widths = self._widths[:-1]
        if not self._terminal:
            return widths, 0
        total = shutil.get_terminal_size().columns
        names = [
            at
            for at, field in enumerate(self.fields[:-1])
            if field.kind in ("identity", "comm", "path", "text", "endpoint")
        ]
        while sum(widths) + len(GAP) * len(widths) + LEAST_LAST > total:
            widest = max(names, key=lambda at: widths[at] - width(self._headers[at]), default=None)
            if widest is None or widths[widest] <= max(LEAST_NAME, width(self._headers[widest])):
                break
            widths[widest] -= 1
        return widths, max(total - sum(widths) - len(GAP) * len(widths), 4)


def _or_nothing(text: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: NOTHING if value is None else text(value)


def _each(function: Callable[[Any], str], column: Sequence[Any]) -> list[str]:
    """The function's value for each of column; of a batch most columns have one value, which is worked out once."""
    if column[0] == column[-1] and column.count(column[0]) == len(column):
        return [function(column[0])] * len(column)
    return list(map(function, column))
