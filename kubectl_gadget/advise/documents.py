"""YAML with comments: of plain values, and always the same bytes for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from gadget.text import escape
from kubectl_gadget.text import width

#: Where a value is in a document: keys and indexes from its top.
Path = tuple[str | int, ...]
#: Lines of comment by the place that they are about.
Comments = Mapping[Path, Sequence[str]]

#: Where comments at the end of a line begin, as long as the lines are shorter.
COMMENT_COLUMN = 39
#: Lists of words with more letters than this have a line for each.
FLOW_LETTERS = 60
_PLAIN = re.compile(r"[A-Za-z][-A-Za-z0-9_./]*|\d+(\.\d+){3}/\d+")
#: Words that some YAML readers, Go's among them, take for something other than text.
_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])


def to_yaml(document: Mapping[str, Any], comments: Comments) -> str:
    """A document. A comment stands behind the line of its place, several lines of it above."""
    return "".join(f"{line}\n" for line in _Writer(comments).mapping(document, (), 0))


def comment(text: str) -> str:
    """A line of comment of its own, which nothing in text can leave."""
    return f"# {escape(text)}"


class _Writer:
    def __init__(self, comments: Comments) -> None:
        self._comments = comments

    def mapping(self, value: Mapping[str, Any], path: Path, indent: int) -> Iterator[str]:
        for key, item in value.items():
            yield from self._entry(f"{' ' * indent}{_scalar(key)}:", item, (*path, key), indent)

    def _entry(self, start: str, item: Any, path: Path, indent: int) -> Iterator[str]:
        if isinstance(item, Mapping) and item:
            yield from self._commented(start, path, indent)
            yield from self.mapping(item, path, indent + 2)
        elif isinstance(item, list) and item and not self._fits_a_line(item, path):
            yield from self._commented(start, path, indent)
            for number, each in enumerate(item):
                yield from self._item(each, (*path, number), indent)
        else:
            yield from self._commented(f"{start} {_flow(item)}", path, indent)

    def _fits_a_line(self, items: Sequence[Any], path: Path) -> bool:
        """Whether a list has a few words only, and no comment is about them."""
        if not all(isinstance(each, str) for each in items) or sum(map(len, items)) > FLOW_LETTERS:
            return False
        return not any((*path, number) in self._comments for number in range(len(items)))

    def _item(self, item: Any, path: Path, indent: int) -> Iterator[str]:
        if not isinstance(item, Mapping) or not item:
            yield from self._commented(f"{' ' * indent}- {_flow(item)}", path, indent)
            return
        lines = list(self.mapping(item, path, indent + 2))
        first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
        lines[first] = f"{' ' * indent}- {lines[first][indent + 2 :]}"
        yield from self._above(path, indent, lines[:first])
        own = self._comments.get(path, ())
        yield self._behind(lines[first], own[0]) if len(own) == 1 else lines[first]
        yield from lines[first + 1 :]

    def _above(self, path: Path, indent: int, more: Sequence[str]) -> Iterator[str]:
        own = self._comments.get(path, ())
        if len(own) > 1:
            yield from (f"{' ' * indent}{comment(each)}" for each in own)
        yield from more

    def _commented(self, line: str, path: Path, indent: int) -> Iterator[str]:
        yield from self._above(path, indent, ())
        own = self._comments.get(path, ())
        yield self._behind(line, own[0]) if len(own) == 1 else line

    def _behind(self, line: str, text: str) -> str:
        return f"{line}{' ' * max(COMMENT_COLUMN - width(line), 2)}{comment(text)}"


def _flow(item: Any) -> str:
    if isinstance(item, list):
        return f"[{', '.join(map(_scalar, item))}]"
    return "{}" if item == {} else _scalar(item)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return yaml.dump(value, default_style='"', width=1 << 30).removesuffix("\n")
