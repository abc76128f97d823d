"""JSON in which what a terminal obeys is escaped, wherever it is written. It carries the same values."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_ASCII = bytes(range(0x80))
#: Where what is to be escaped can be.
_ODD = re.compile("[^\\n -~]+")


def encode(value: Any, *, indent: bool = False) -> bytes:
    """A value as JSON."""
    return visible(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0))


def visible(data: bytes) -> bytes:
    r"""JSON of one or more lines, with \u for what is not printable: orjson escapes controls of ASCII alone."""
    if _is_plain(data):
        return data
    return b"".join([line if _is_plain(line) else _visible(line) for line in data.splitlines(keepends=True)])


def _is_plain(data: bytes) -> bool:
    """Whether nothing in JSON is to be escaped. Most of it is ASCII, which need not become text to know that."""
    return b"\x7f" not in data and (data.isascii() or data.translate(None, _ASCII).decode().isprintable())


def _visible(line: bytes) -> bytes:
    return _ODD.sub(lambda found: _escaped(found[0]), line.decode()).encode()


def _escaped(characters: str) -> str:
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in characters)
