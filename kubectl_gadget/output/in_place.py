"""Lines on a terminal that are drawn anew in their place."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gadget.text import counted
from kubectl_gadget.output import terminal
from kubectl_gadget.text import fit

#: Those that stand on the terminal.
_standing: list[InPlace] = []


def stands() -> bool:
    """Whether lines stand on the terminal that are to be removed: one more below them would leave the first behind."""
    return bool(_standing)


class InPlace:
    """What stands at the end of a terminal until it is closed."""

    def __init__(self) -> None:
        """Begin to draw."""
        from rich.live import Live

        # warnings go above the table, unless standard error is somewhere else
        self._live = Live(auto_refresh=False, transient=True, redirect_stderr=sys.stderr.isatty())
        self._live.start()
        _standing.append(self)

    @property
    def room(self) -> int:
        """How many rows there is room for: below a header of two lines, above what is said and an end of line."""
        from shutil import get_terminal_size  # see terminal.columns

        return max(get_terminal_size().lines - 4, 1)

    def draw(self, lines: Sequence[str], more: int, said: str) -> None:
        """Draw a table's lines, and below them how many more rows it has and what is said of it."""
        from rich.text import Text

        if more:
            said = f"{counted(more, 'more row', ',')}; {said}"
        text = "\n".join([*lines, fit(said, terminal.columns())])
        # not as str: it would be read as markup
        self._live.update(Text.from_ansi(text, no_wrap=True, overflow="ignore"), refresh=True)

    def close(self) -> None:
        """Remove what stands there. Called again, it does nothing."""
        self._live.stop()
        if self in _standing:
            _standing.remove(self)
