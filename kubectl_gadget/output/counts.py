"""Rows counted by their values: a live table on a terminal, one final table otherwise."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from gadget.schema import Field, Row
from kubectl_gadget.output import Output
from kubectl_gadget.values import to_text

#: Distinct values counted; events with others are counted together, and said so.
MOST = 100_000
REFRESH_SECONDS = 0.25
COUNT = Field("count", "int", 0, 0, doc="number of events")


class Counts:
    """Counts rows, and writes the counts in the end, the most frequent first."""

    def __init__(self, fields: list[Field], final: Callable[[list[Field]], Output], headers: dict[str, str]) -> None:
        """Count by fields; final makes the output of the result, to which a count is added as the first field."""
        self.fields = fields
        self._final = final([COUNT, *fields])
        self._titles = ["COUNT", *(headers.get(field.name, field.name.upper()) for field in fields)]
        self._counts: Counter[Row] = Counter()
        self._lists = [at for at, field in enumerate(fields) if field.kind == "args"]
        self._beyond = 0
        self._shown = 0.0
        self._live = None
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Nothing yet."""

    def write(self, rows: Sequence[Row]) -> None:
        """Count rows."""
        if self._lists:
            rows = [tuple(tuple(value) if at in self._lists else value for at, value in enumerate(row)) for row in rows]
        if len(self._counts) < MOST:
            self._counts.update(rows)
        else:
            for row in rows:
                if row in self._counts:
                    self._counts[row] += 1
                else:
                    self._beyond += 1
        if self._live and time.monotonic() - self._shown > REFRESH_SECONDS:
            self._shown = time.monotonic()
            self._refresh()

    def finish(self) -> str:
        """Write the result. Returns what has to be said about it."""
        if self._live:
            self._live.stop()
        self._final.start([])
        if self._counts:
            self._final.write([(number, *row) for row, number in self._ranked()])
        self._final.finish()
        return f"{self._beyond} more events had other values than the {MOST} that were counted" if self._beyond else ""

    def _ranked(self) -> list[tuple[Row, int]]:
        return sorted(self._counts.items(), key=lambda item: (-item[1], repr(item[0])))

    def _refresh(self) -> None:
        from rich.table import Table

        assert self._live
        table = Table(box=None, pad_edge=False, header_style="")
        for title in self._titles:
            table.add_column(title, no_wrap=True, justify="right" if title == "COUNT" else "left")
        texts = [to_text(field) for field in self.fields]
        lines = shutil.get_terminal_size().lines - 2
        for row, number in self._ranked()[:lines]:
            table.add_row(str(number), *(text(value) for text, value in zip(texts, row, strict=True)))
        self._live.update(table, refresh=True)
