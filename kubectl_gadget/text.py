"""Text that fits on a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

#: What glibc's wcwidth(3) has wide beyond East_Asian_Width: hexagrams, and circled numbers on black squares.
_ALSO_WIDE = frozenset((*range(0x4DC0, 0x4E00), *range(0x3248, 0x3250)))
#: Vowels and finals of Hangul that join the syllable before them.
_JOINING = frozenset((*range(0x1160, 0x1200), *range(0xD7B0, 0xD7FC)))
#: VARIATION SELECTOR-16 makes some terminals draw the character before it wide.
_EMOJI = 0xFE0F


@lru_cache(16_384)
def _cells(character: str) -> int:
    code = ord(character)
    if code == _EMOJI:
        return 1
    if code in _JOINING or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" or code in _ALSO_WIDE else 1


def width(text: str) -> int:
    """Terminal cells that printable text takes, at most."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def widest(texts: Sequence[str]) -> int:
    """The most cells that one of texts takes."""
    return max(map(len if "".join(texts).isascii() else width, texts))


def fit(text: str, cells: int, *, middle: bool = False) -> str:
    """Text cut to cells, with … where it was cut; in the middle if both its ends say something."""
    if width(text) <= cells:
        return text
    tail = (cells - 1) // 2 if middle and cells > 4 else 0
    end = _prefix(text[::-1], tail)[::-1] if tail else ""
    while end and not _cells(end[0]):  # what joins on to a letter that is cut off
        end = end[1:]
    return f"{_prefix(text, cells - 1 - width(end))}…{end}"


def fit_endpoint(text: str, cells: int) -> str:
    """An endpoint cut to cells in what stands before its port, which is whole as long as that is possible."""
    host, colon, port = text.rpartition(":")
    if not host or not port.isdecimal() or cells < len(port) + 2:
        return fit(text, cells, middle=True)
    return fit(host, cells - len(port) - 1, middle=True) + colon + port


def _prefix(text: str, cells: int) -> str:
    """The most of text's beginning that cells hold."""
    if text.isascii():
        return text[:cells]
    for at, character in enumerate(text):
        cells -= _cells(character)
        if cells < 0:
            return text[:at]
    return text


def wrap(text: str, cells: int, first: str = "", rest: str = "") -> list[str]:
    """Text in lines of at most cells, which begin with first and then with rest; words that are longer are broken."""
    lines, line, empty = [], first, True
    for word in text.split():
        space = "" if empty else " "
        while width(line) + width(space + word) > cells:
            room = cells - width(line) - len(space)
            if not empty and width(word) <= cells - width(rest):
                room = 0
            part = _prefix(word, room) if room > 0 else ""
            if not part and empty:  # no line has room for it
                part = word[0]
            lines.append(f"{line}{space if part else ''}{part}")
            line, word, empty, space = rest, word[len(part) :], True, ""
            if not word:
                break
        else:
            line, empty = f"{line}{space}{word}", False
    return lines if empty and lines else [*lines, line]


def pad(text: str, cells: int) -> str:
    """Text filled up to cells with spaces."""
    return text + " " * (cells - width(text))
