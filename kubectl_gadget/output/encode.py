"""JSON in which what a terminal obeys is escaped, wherever it is written. It carries the same values."""

from __future__ import annotations

import json
from typing import Any

import orjson


def encode(value: Any, *, indent: bool = False) -> bytes:
    """A value as JSON."""
    return visible(orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0))


def visible(data: bytes) -> bytes:
    r"""JSON of one or more lines, with \u for what is not printable: orjson escapes controls of ASCII alone."""
    if data.isascii():
        return data.replace(b"\x7f", b"\\u007f")
    return b"".join(
        [line if line.isascii() and b"\x7f" not in line else _visible(line) for line in data.splitlines(True)]
    )


def _visible(line: bytes) -> bytes:
    text = line.decode()
    if text.removesuffix("\n").isprintable():
        return line
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text).encode()
