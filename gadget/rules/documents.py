"""YAML with positions: what a rule file says, and at which line and column each text of it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import yaml

from gadget.rules.problems import YAML_PARSE, Position, RulesError

#: A rule file has 4 levels. What a hostile one may cost: a file of 1 MB has far fewer nodes.
DEPTH, NODES, BYTES = 16, 1_000_000, 16 << 20
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))


@dataclass(eq=False)
class Scalar:
    """A text: value as YAML understands it; start and end are offsets in the file's text, at is its place."""

    value: str
    plain: bool
    document: Document
    at: Position
    start: int
    end: int

    @property
    def is_null(self) -> bool:
        """Whether nothing is said, as by `key:` alone."""
        return self.plain and self.value in _NULLS

    def position(self, offset: int) -> Position:
        """Where the character at offset of the value stands in the file."""
        at = self._offsets[min(offset, len(self._offsets) - 1)] if self._offsets else self.start
        return self.document.position(at)

    @cached_property
    def _offsets(self) -> list[int]:
        """Of each character its place in the file: YAML changes blanks and quotes, never the order of what is said."""
        text, at, found = self.document.text, self.start, []
        for character in self.value:
            place = at if character.isspace() else text.find(character, at, self.end)
            found.append(max(at, place))
            at = max(at, place) + (0 if character.isspace() else 1)
        return found


@dataclass(eq=False)
class Sequence:
    """A list."""

    items: list[Node]
    at: Position


@dataclass(eq=False)
class YamlMapping:
    """Keys, which are texts, and what they stand for, in the order of the file."""

    pairs: dict[str, Node]
    keys: dict[str, Position]
    at: Position


Node = Scalar | Sequence | YamlMapping


@dataclass
class Document:
    """A file's text."""

    name: str
    text: str

    def position(self, offset: int) -> Position:
        """The place of a character."""
        line_start = self.text.rfind("\n", 0, offset) + 1
        return Position(self.name, self.text.count("\n", 0, offset) + 1, offset - line_start + 1)


def read(text: str, name: str) -> Iterator[Node]:
    """The documents of a file, one after the other.

    Raises:
        RulesError: The text is no YAML, or has more in it than rules need.

    """
    text = text.removeprefix("\ufeff")
    document = Document(name, text)
    if len(text) > BYTES:
        raise RulesError(YAML_PARSE, f"a rule file has at most {BYTES >> 20} MiB", Position(name, 1, 1))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yield from _Composer(document, yaml.parse(text, Loader=loader)).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(name, mark.line + 1, mark.column + 1) if mark else Position(name, 1, 1)
        raise RulesError(YAML_PARSE, str(error.problem or error.context or "this is no YAML"), at) from None
    except yaml.YAMLError as error:
        raise RulesError(YAML_PARSE, f"this is no YAML: {' '.join(str(error).split())}", Position(name, 1, 1)) from None


class _Composer:
    """Builds nodes from events. It goes as deep as DEPTH, and an alias is the node it names, so it costs nothing."""

    def __init__(self, document: Document, events: Iterator[yaml.Event]) -> None:
        self._document, self._events, self._count = document, events, 0
        self._anchors: dict[str, Node] = {}

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield self._node(next(self._events), 0)
                self._anchors.clear()

    def _node(self, event: yaml.Event, depth: int) -> Node:
        at = self._at(event)
        self._count += 1
        if depth > DEPTH or self._count > NODES:
            raise RulesError(YAML_PARSE, "this is nested deeper, or has more in it, than a rule file may", at)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise RulesError(YAML_PARSE, f"there is no anchor &{event.anchor} before this", at)
            return self._anchors[event.anchor]
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            start, end = event.start_mark, event.end_mark
            assert start and end
            plain = event.style in (None, "")
            first = start.index
            if event.style in ("|", ">"):  # its header may have a comment
                first = self._document.text.find("\n", first, end.index) + 1 or first
            node = Scalar(event.value, plain, self._document, at, first, end.index)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Sequence(list(self._items(yaml.SequenceEndEvent, depth)), at)
        else:
            node = self._mapping(at, depth)
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _items(self, end: type[yaml.Event], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)

    def _mapping(self, at: Position, depth: int) -> YamlMapping:
        pairs: dict[str, Node] = {}
        keys: dict[str, Position] = {}
        nodes = self._items(yaml.MappingEndEvent, depth)
        for key in nodes:
            if not isinstance(key, Scalar):
                raise RulesError(YAML_PARSE, "a key is a text", key.at)
            if key.value in pairs:
                raise RulesError(YAML_PARSE, f"{key.value} stands here twice", key.at)
            keys[key.value], pairs[key.value] = key.at, next(nodes)
        return YamlMapping(pairs, keys, at)

    def _at(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        assert mark  # the parser gives one for each
        return Position(self._document.name, mark.line + 1, mark.column + 1)
