"""Text that is safe and fits on a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
    code = ord(character)
    return named.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def escape(text: str) -> str:
    """Text with control characters, ANSI escapes and direction marks made visible: processes choose their names."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


_NEED_QUOTES = frozenset(" \t\n\"'\\$`")


def quote(argument: str) -> str:
    """An argument as a shell user would write it."""
    if argument and _NEED_QUOTES.isdisjoint(argument):
        return escape(argument)
    return '"' + escape(argument).replace('"', '\\"') + '"'


def width(text: str) -> int:
    """Terminal cells that printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def widest(texts: Sequence[str]) -> int:
    """The most cells that one of texts takes."""
    return max(map(len if "".join(texts).isascii() else width, texts))


def fit(text: str, cells: int, *, middle: bool = False) -> str:
    """Text cut to cells, with … where it was cut; in the middle if both its ends say something."""
    if width(text) <= cells:
        return text
    if middle and text.isascii() and cells > 4:
        tail = (cells - 1) // 2
        return f"{text[: cells - 1 - tail]}…{text[-tail:]}"
    taken = 0
    for at, character in enumerate(text):  # from the front: what is cut off may be long, as a process's arguments
        taken += width(character)
        if taken > cells - 1:
            return text[:at] + "…"
    return text


def pad(text: str, cells: int) -> str:
    """Text filled up to cells with spaces."""
    return text + " " * (cells - width(text))
