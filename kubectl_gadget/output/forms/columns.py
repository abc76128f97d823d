"""Rows as a table that grows downwards: fitted to the terminal, each column as wide as it has needed to be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from gadget.kinds import Cut
from gadget.schema import IDENTITY, Column, Row
from gadget.text import escape
from kubectl_gadget.output import Extent, Form, Look, Output, terminal, text_of
from kubectl_gadget.output.layout import GAP, MAIN_LEAST, Measured, arrange, main_of, squeezed, widths
from kubectl_gadget.output.stdout import write_text
from kubectl_gadget.text import fit, fit_endpoint, pad, widest, width

#: More pods than this are not remembered to see whether each has but one container.
_MOST_PODS = 10_000
#: So many rows after a header there is another one if a column has grown since.
HEADER_ROWS = 4
_HINT = "-o wide for all columns"


class Columns(Output):
    """Writes a header, then rows; on a terminal the header again where that has changed its width.

    On a terminal no line is longer than it. There everything has no column left out, at the price of longer lines if
    they cannot fit otherwise.
    """

    def __init__(
        self,
        fields: Sequence[Column],
        headers: Mapping[str, str],
        look: Look | None = None,
        *,
        everything: bool = False,
    ) -> None:
        """Show fields under their names in capitals, or what headers calls them."""
        self.fields = fields
        self._look = look or Look()
        self._titles = [headers.get(field.name, field.name.upper()) for field in fields]
        self._texts = [text_of(field) for field in fields]
        self._columns = [
            Measured(field.name, field.means, width(title), width(title), field.means.longest(field))
            for field, title in zip(fields, self._titles, strict=True)
        ]
        self._places = {field.name: at for at, field in enumerate(fields)}
        self._everything = everything
        self._complete = False
        self._terminal, self._coloured = sys.stdout.isatty(), terminal.has_colours()
        self._total = 0
        self._widths: dict[int, int] = {}
        self._fitted_to: Any = None
        self._above: tuple[int, dict[int, int]] | None = None
        self._headed_for: Any = None  # what it was fitted to but for the lengths of values
        self._since_header = 0
        #: columns that say nothing, with their one value; a container says nothing while it is its pod's only
        self._single = {name: value for name, value in self._look.fixed.items() if name in self._places}
        self._containers: dict[str, str] | None = {} if {"pod", "container"} <= self._places.keys() else None
        self._pods: set[str] = set()
        failed = {field.name: bool for field in fields if field.means.is_failure} | dict(self._look.failed)
        self._failed = {self._places[name]: test for name, test in failed.items() if name in self._places}

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Print the header, the first time, with room for the given (node, namespace, pod, container, id) names."""
        if self._above:
            return
        for at, field in enumerate(self.fields):
            if field.name in IDENTITY:
                index = IDENTITY.index(field.name)
                self._columns[at].need = max([self._columns[at].need, *(width(escape(item[index])) for item in names)])
        self._notice_pods([item[2] for item in names], [item[3] for item in names])
        if rows:
            self._complete = True
            raw = list(zip(*rows, strict=True))
            self._single = {
                name: str(raw[self._places[name]][0])
                for name in ("node", "namespace")
                if name in self._places and len(set(raw[self._places[name]])) == 1
            }
            self._notice(raw)
            self._text_columns(raw, range(len(self.fields)))
        self._fit()
        self._head()

    def write(self, rows: Sequence[Row]) -> None:
        """Print rows, cut where the terminal ends."""
        raw = list(zip(*rows, strict=True))
        self._notice(raw)
        cells = self._fitted(raw)
        self._head()
        write_text("\n".join(map(str.rstrip, map(GAP.join, zip(*cells, strict=True)))) + "\n")
        self._since_header += len(rows)

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """The header and all rows there are, as they are shown; nothing is written."""
        self._complete = True
        cells = self._fitted(list(zip(*rows, strict=True)))
        return [self._header(), *map(str.rstrip, map(GAP.join, zip(*cells, strict=True)))]

    def _fitted(self, raw: Sequence[Sequence[Any]]) -> list[Sequence[str]]:
        """The cells of the columns for which there is room."""
        texts: dict[int, Sequence[str]] = {}
        self._fit()
        while raw and (missing := [at for at in self._widths if at not in texts]):
            texts |= self._text_columns(raw, missing)
            self._fit()  # of what is wider now another column may go, and one may come that has not been looked at
        return [self._cells(at, raw[at], texts[at]) for at in self._widths] if raw else []

    def _text_columns(self, raw: Sequence[Sequence[Any]], which: Iterable[int]) -> dict[int, Sequence[str]]:
        """Values as text, of some columns, which are made wide enough; one text if all values are the same."""
        found: dict[int, Sequence[str]] = {}
        for at in which:
            column, text = raw[at], self._texts[at]
            same = column[0] == column[-1] and column.count(column[0]) == len(column)
            found[at] = texts = [text(column[0])] if same else list(map(text, column))
            self._columns[at].need = max(self._columns[at].need, widest(texts))
        return found

    def _cells(self, at: int, column: Sequence[Any], texts: Sequence[str]) -> Sequence[str]:
        """A column as it is printed: cut, filled up and coloured."""
        cells = self._aligned(at, texts)
        if self._coloured:
            if failed := self._failed.get(at):
                red = map(failed, column if len(cells) > 1 else column[:1])
                cells = [
                    f"{terminal.RED}{cell}{terminal.PLAIN}" if bad else cell
                    for cell, bad in zip(cells, red, strict=True)
                ]
            elif self.fields[at].name == "pod" and len(self._pods) > 1 and not self._complete:
                cells = [
                    f"{terminal.colour_of(name)}{cell}{terminal.PLAIN}"
                    for name, cell in zip(column, cells, strict=False)
                ]
        return cells if len(cells) == len(column) else list(cells) * len(column)

    def _aligned(self, at: int, texts: Sequence[str]) -> Sequence[str]:
        cells, kind = self._widths[at], self.fields[at].means
        ascii_only = "".join(texts).isascii()
        if kind.cut and self._terminal and widest(texts) > cells:
            texts = list(map(partial(_CUTTERS[kind.cut], cells=cells), texts))
            ascii_only = False
        if kind.is_right:
            return [text.rjust(cells) for text in texts]
        if at == next(reversed(self._widths)):
            return texts
        if ascii_only:
            return [text.ljust(cells) for text in texts]
        return [pad(text, cells) for text in texts]

    def _notice(self, raw: Sequence[Sequence[Any]]) -> None:
        """Find out which columns have different values."""
        for name, value in list(self._single.items()):
            column = raw[self._places[name]]
            if column.count(value) != len(column):
                del self._single[name]
        if self._terminal and "pod" in self._places:
            pods = raw[self._places["pod"]]
            self._notice_pods(pods, raw[self._places["container"]] if "container" in self._places else pods)

    def _notice_pods(self, pods: Sequence[str], containers: Sequence[str]) -> None:
        if len(self._pods) < _MOST_PODS:
            self._pods.update(pods)
        if self._containers is None:
            return
        for pod, container in set(zip(pods, containers, strict=True)):
            if self._containers.setdefault(pod, container) != container or len(self._containers) > _MOST_PODS:
                self._containers = None
                return

    def _head(self) -> None:
        """Print a header, if the one that stands above is none of these columns, or is not above them any more."""
        above, now = self._above, (self._total, self._widths)
        if above == now:
            return
        same_columns = above is not None and (above[0], [*above[1]]) == (self._total, [*self._widths])
        if not same_columns or (self._terminal and self._since_header >= HEADER_ROWS):
            self._above, self._since_header = now, 0
            self._headed_for = self._fitted_to[:1] + self._fitted_to[2:]
            write_text(self._header(told=True) + "\n")

    def _fit(self) -> None:
        """Choose columns and their widths, if anything is new."""
        total = terminal.columns() if self._terminal else 0
        known = (total, [column.need for column in self._columns], [*self._single], self._containers is None)
        if known == self._fitted_to:
            return
        self._fitted_to, self._total = known, total
        if not self._terminal:
            self._widths = {at: column.usual for at, column in enumerate(self._columns)}
        elif self._everything:
            main = main_of(self._columns)
            wish = min(MAIN_LEAST, self._columns[main].need) if main is not None else 0
            self._widths = widths(dict(enumerate(self._columns)), total, main, wish)
            if sum(self._widths.values()) + len(GAP) * (len(self._widths) - 1) > total:  # then nothing is cut either
                self._widths = {at: column.usual for at, column in enumerate(self._columns)}
        else:
            contained = ["container"] if self._containers is not None else []
            says_nothing = [*self._single, *contained]
            first, narrow = (
                [name for name in names if name not in self._look.demanded]
                for names in (says_nothing, self._look.narrow)
            )
            self._widths = arrange(self._columns, total, first, narrow, complete=self._complete)
            above = [*self._above[1]] if self._above else []
            grown = above and [*self._widths] != above and (total, *known[2:]) == self._headed_for
            if grown and (found := squeezed(self._columns, above, total)):
                self._widths = found  # for longer values alone there is no other header

    def _header(self, *, told: bool = False) -> str:
        """The titles, and above them what is the same in every row and has no column."""
        cells = ["".join(self._aligned(at, [self._titles[at]])) for at in self._widths]
        line = GAP.join(cells).rstrip()
        if self._coloured:
            line = f"{terminal.BOLD}{line}{terminal.PLAIN}"
        if not told or len(self._widths) == len(self.fields):
            return line
        left_out = [
            escape(value) for name, value in self._single.items() if value and self._places[name] not in self._widths
        ]
        said = fit(", ".join(left_out), max(self._total - len(_HINT) - len(GAP), 1))
        return f"{said}; {_HINT}\n{line}" if said else f"{_HINT}\n{line}"


def _cut_middle(text: str, cells: int) -> str:
    return fit(text, cells, middle=True)


_CUTTERS: dict[Cut, Callable[..., str]] = {Cut.MIDDLE: _cut_middle, Cut.END: fit, Cut.HOST: fit_endpoint}

FORMS = (
    Form("columns", "a table that fits the terminal", Extent.COLUMNS, one_line=True, make=Columns, is_table=True),
    Form(
        "wide",
        "a table of more columns",
        Extent.WIDE,
        one_line=True,
        make=partial(Columns, everything=True),
        is_table=True,
    ),
)
