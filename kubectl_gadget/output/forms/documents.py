"""Rows as JSON lines, indented JSON or YAML documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any

import orjson

from gadget.kinds import Encoding
from gadget.kinds.times import rfc3339
from gadget.schema import Column, Row
from kubectl_gadget.output import Extent, Form, Output
from kubectl_gadget.output.encode import encode, visible
from kubectl_gadget.output.stdout import write_all

#: Rows from which on numpy, with its cost for each call, is the faster way.
MANY = 100


class Documents(Output):
    """Writes one object per row, one at a time."""

    def __init__(self, fields: Sequence[Column], encode: Callable[[dict[str, Any]], bytes]) -> None:
        """Write fields, each row as encode has it."""
        self.fields = fields
        self._keys: list[str] = []
        self._values: list[tuple[int, Callable[[Any], Any]]] = []
        for at, field in enumerate(fields):
            for key, value in field.means.json(field).items():
                self._keys.append(key)
                self._values.append((at, value))
        self._encode = encode

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows at once."""
        columns = list(zip(*rows, strict=True))
        values = [[_known(convert, value) for value in columns[at]] for at, convert in self._values]
        keys, encode = self._keys, self._encode
        write_all(b"".join([encode(dict(zip(keys, row, strict=True))) for row in zip(*values, strict=True)]))


class JsonLines(Output):
    """Writes one JSON object a line, encoded column by column: a call for each value would cost ten times as much."""

    def __init__(self, fields: Sequence[Column]) -> None:
        """Write fields."""
        self.fields = fields
        self._columns: list[tuple[bytes, int, Callable[[Sequence[Any]], list[bytes]]]] = []
        separator = b"{"
        for at, field in enumerate(fields):
            for key, value in field.means.json(field).items():
                self._columns.append((separator + orjson.dumps(key) + b":", at, _column_encoder(field, value)))
                separator = b","

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows at once."""
        write_all(self.encoded(rows))

    def encoded(self, rows: Sequence[Row]) -> bytes:
        """Rows as they are written."""
        columns = list(zip(*rows, strict=True))
        parts: list[Any] = []
        same = b""  # what all rows have next: most columns of a batch have one value, and cost nothing then
        for key, at, encoder in self._columns:
            column = columns[at]
            if column[0] == column[-1] and column.count(column[0]) == len(column):
                same += key + encoder(column[:1])[0]
            else:
                parts += [repeat(same + key), encoder(column)]
                same = b""
        lines = b"".join(chain.from_iterable(zip(*parts, repeat(same + b"}\n", len(rows)), strict=False)))
        return visible(lines)


def _column_encoder(field: Column, convert: Callable[[Any], Any]) -> Callable[[Sequence[Any]], list[bytes]]:
    """How a column of one JSON key is encoded."""
    encoding = field.means.encoding
    if encoding is Encoding.DISTINCT:
        return _Distinct(convert)
    if encoding is Encoding.TIMES:
        return _times
    if encoding is Encoding.STRINGS:
        return _strings
    if encoding is Encoding.LISTS:
        return lambda column: [orjson.dumps(_known(convert, value)) for value in column]
    if encoding is Encoding.ANY:
        return lambda column: list(map(orjson.dumps, column))
    if encoding is Encoding.PLAIN:
        return lambda column: orjson.dumps(column)[1:-1].split(b",")
    return lambda column: orjson.dumps(list(map(convert, column)))[1:-1].split(b",")


def _times(column: Sequence[int | None]) -> list[bytes]:
    """Times as values.rfc3339 writes them, each second once."""
    second = _Second()
    if len(column) < MANY or None in column:
        return [
            b"null" if value is None else b'"%b.%09dZ"' % (second[value // 10**9], value % 10**9) for value in column
        ]
    import numpy as np

    seconds, rest = np.divmod(np.array(column, np.int64), 10**9)
    distinct, index = np.unique(seconds, return_inverse=True)
    begin = np.array([list(b'"%b.' % second[value]) for value in distinct.tolist()], np.uint8)
    texts = np.empty((len(column), begin.shape[1] + 11), np.uint8)
    texts[:, :-11] = begin[index]
    for at in range(-3, -12, -1):
        rest, digit = np.divmod(rest.astype(np.uint32), 10)
        texts[:, at] = digit + ord("0")
    texts[:, -2:] = tuple(b'Z"')
    encoded: list[bytes] = texts.view(f"S{texts.shape[1]}")[:, 0].tolist()
    return encoded


class _Second(dict[int, bytes]):
    def __missing__(self, second: int) -> bytes:
        text = self[second] = rfc3339(second * 10**9).partition(".")[0].encode()
        return text


def _known(convert: Callable[[Any], Any], value: Any) -> Any:
    """A value converted; None, of a field that an agent of another version does not have, stays."""
    return None if value is None else convert(value)


def _strings(column: Sequence[str]) -> list[bytes]:
    """Texts as JSON strings. In JSON a quote inside a string has a backslash before it, so '","' only separates."""
    if None in column:
        return list(map(orjson.dumps, column))
    return [b'"%b"' % inner for inner in orjson.dumps(column)[2:-2].split(b'","')]


class _Distinct(dict[Any, bytes]):
    """Encodes a column of few distinct values: each once."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, value: Any) -> bytes:
        if len(self) > 10_000:
            self.clear()
        encoded = self[value] = orjson.dumps(_known(self._convert, value))
        return encoded

    def __call__(self, column: Sequence[Any]) -> list[bytes]:
        return [self[value] for value in column]


def _json_pretty(item: dict[str, Any]) -> bytes:
    return encode(item, indent=True) + b"\n"


def _yaml(item: dict[str, Any]) -> bytes:
    import yaml

    text = yaml.safe_dump(item, sort_keys=False, allow_unicode=True)
    if not text.replace("\n", "").isprintable():  # a terminal obeys some of it, and YAML takes U+0085 for a line's end
        text = yaml.safe_dump(item, sort_keys=False)
    return b"---\n" + text.encode()


FORMS = (
    Form("json", "an object a line", Extent.ALL, one_line=True, make=lambda fields, *_: JsonLines(fields)),
    Form(
        "jsonpretty",
        "indented JSON, for people",
        Extent.ALL,
        one_line=False,
        make=lambda fields, *_: Documents(fields, _json_pretty),
    ),
    Form(
        "yaml", "a YAML document for each", Extent.ALL, one_line=False, make=lambda fields, *_: Documents(fields, _yaml)
    ),
)
