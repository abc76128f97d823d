"""Lines on a terminal that take the place of those before."""

from __future__ import annotations

import os
import sys

import click

from gadget.text import escape
from kubectl_gadget.text import fit

#: Those that show something.
_shown: list[Progress] = []


def make_room() -> None:
    """Remove all progress lines, so that a lasting line can take their place."""
    for each in [*_shown]:
        each.clear()


class Progress:
    """Lines on standard error that show a wait. Nothing is shown if standard error is no terminal."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._live = sys.stderr.isatty()
        self._shown: list[str] = []

    def show(self, lines: list[str]) -> None:
        """Show lines instead of those shown, as many as fit."""
        if not self._live:
            return
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
        columns, rows = columns or 80, rows or 24  # a terminal of a pipe's other end has no size
        if len(lines) > rows - 2:
            lines = [*lines[: rows - 3], f"  … {len(lines) - rows + 3} more"]
        lines = [fit(escape(line), columns - 1) for line in lines]
        if lines == self._shown:
            return
        up = f"\x1b[{len(self._shown)}A" if self._shown else ""
        click.echo(up + "\r\x1b[J" + "".join(f"{line}\n" for line in lines), err=True, nl=False)
        self._shown = lines
        if self in _shown:
            _shown.remove(self)
        if lines:
            _shown.append(self)

    def clear(self) -> None:
        """Remove the lines."""
        self.show([])
