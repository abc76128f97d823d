"""Terminals, and what is written to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gadget.kinds.base import Compared, Cut, Described, Source
from gadget.kinds.numbers import Named
from gadget.kinds.texts import Text

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows

#: Major numbers: Documentation/admin-guide/devices.txt
_TTY, _AUX, _PTS = 4, 5, range(136, 144)
#: Of _TTY, from here on they are serial lines.
_SERIAL = 64
_AUX_NAMES = {0: "tty", 1: "console"}


class Terminal(Named):
    """A terminal by the number of its device, as tty_nr of /proc/PID/stat has it."""

    usual = tight = 7
    cut = Cut.MIDDLE
    compared = Compared.TEXTS

    def names(self, column: Described) -> Callable[[int], str | None]:
        """Its name below /dev."""
        return _name

    def plain(self, value: Any) -> str:
        """Its name below /dev."""
        return _name(value)


@lru_cache(1024)
def _name(device: Any) -> str:
    if not isinstance(device, int):
        return str(device)
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    if major == _TTY:
        return f"tty{minor}" if minor < _SERIAL else f"ttyS{minor - _SERIAL}"
    if major == _AUX:
        return _AUX_NAMES.get(minor, f"cua{minor - _SERIAL}")
    if major in _PTS:
        return f"pts/{minor + ((major - _PTS.start) << 8)}"
    return str(device)  # it is none that the gadget shows


class TerminalText(Text):
    r"""What was written to a terminal or read from it; what is not UTF-8 becomes \xNN."""

    is_masked = True

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """From the tail. None of it is kept: it may be long, and secret."""
        return [text.decode("utf-8", "backslashreplace") for text in source.slices(rows, mask)]


KINDS = (Terminal("terminal"), TerminalText("terminal_text"))
