"""Rows as comma-separated values (RFC 4180), with the keys of JSON as the header line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gadget.schema import Column, Row
from gadget.text import escape
from kubectl_gadget.output import Extent, Form, Output
from kubectl_gadget.output.encode import encode
from kubectl_gadget.output.stdout import write_all


class Spreadsheet(Output):
    """Writes a header line, then a line for each row; a value may hold line ends, in quotes."""

    def __init__(self, fields: Sequence[Column]) -> None:
        """Write fields, an endpoint as its parts."""
        self.fields = fields
        self._values: list[tuple[int, Callable[[Any], Any]]] = []
        self._keys: list[str] = []
        for at, field in enumerate(fields):
            for key, value in field.means.flat(field).items():
                self._keys.append(key)
                self._values.append((at, value))
        self._started = False
        self._obeyed = sys.stdout.isatty()  # by a terminal; a file has what the process chose, as it is

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Write the header line, the first time."""
        if not self._started:
            self._started = True
            self._write([self._keys])

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        self.start([])
        self._write([[self._text(value(row[at])) for at, value in self._values] for row in rows])

    def _text(self, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, list):
            import shlex

            value = shlex.join(value) if all(isinstance(item, str) for item in value) else encode(value).decode()
        return escape(str(value)) if self._obeyed else str(value)

    def _write(self, lines: Sequence[Sequence[str]]) -> None:
        import csv  # every stream imports this module

        text = io.StringIO()
        csv.writer(text).writerows(lines)
        write_all(text.getvalue().encode(errors="backslashreplace"))


FORMS = (
    Form(
        "csv",
        "RFC 4180: a header line, then a line for each event",
        Extent.ALL,
        one_line=False,  # a value may hold line ends
        make=lambda fields, *_: Spreadsheet(fields),
    ),
)
