"""Rows as JSON lines, indented JSON or YAML documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from gadget.schema import Field, Row
from kubectl_gadget.output.stdout import write_all
from kubectl_gadget.values import to_json


class Documents:
    """Writes one object per row."""

    def __init__(self, fields: list[Field], form: str) -> None:
        """Write fields in form: json, jsonpretty or yaml."""
        self.fields = fields
        self._keys: list[str] = []
        self._values: list[tuple[int, Callable[[Any], Any]]] = []
        for at, field in enumerate(fields):
            for key, value in to_json(field).items():
                self._keys.append(key)
                self._values.append((at, value))
        self._encode = {"json": _json, "jsonpretty": _json_pretty, "yaml": _yaml}[form]

    def start(self, names: Sequence[Sequence[str]]) -> None:
        """Documents need no header."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows at once."""
        columns = list(zip(*rows, strict=True))
        values = [map(convert, columns[at]) for at, convert in self._values]
        keys, encode = self._keys, self._encode
        write_all(b"".join([encode(dict(zip(keys, row, strict=True))) for row in zip(*values, strict=True)]))


def _json(item: dict[str, Any]) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)


def _json_pretty(item: dict[str, Any]) -> bytes:
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2)


def _yaml(item: dict[str, Any]) -> bytes:
    import yaml

    return b"---\n" + yaml.safe_dump(item, sort_keys=False, allow_unicode=True).encode()
