"""Text that is safe on a terminal."""

from __future__ import annotations


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
