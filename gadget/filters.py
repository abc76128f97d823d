"""Conditions on the fields of events, as --filter takes them, evaluated on whole batches.

Grammar: conditions FIELD OP VALUE, joined by `,` `&&` or `and`, and more loosely by `||` or `or`; `!` or `not` negates
what follows it; parentheses group. A value ends at a comma, at one of these words and signs, and at a closing
parenthesis that it did not open. A value with any of these in it goes in double quotes; a backslash there takes the
next character as it is. What OP and VALUE mean for each kind of field is in gadget/conditions.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gadget.conditions import SIGNS, Condition, Value, make_condition
from gadget.errors import UsageError
from gadget.schema import Column, Schema
from gadget.text import meant
from gadget.values import dataclass

if TYPE_CHECKING:
    from gadget.rows import Mask, Table

_SPACE = re.compile(r"\s*")
_AND = re.compile(r"\s*(?:,|&&|(?<=[\s)\"])and(?=[\s(!]))\s*", re.IGNORECASE)
_OR = re.compile(r"\s*(?:\|\||(?<=[\s)\"])or(?=[\s(!]))\s*", re.IGNORECASE)
_NOT = re.compile(r"(?:!|not(?=[\s(!]))\s*", re.IGNORECASE)
_HEAD = re.compile(rf"(?P<field>[\w.]+)\s*(?P<op>[{SIGNS}]+)\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: What ends a plain value outside brackets.
_END = re.compile(r",|&&|\|\||\s+(?:and|or)(?=[\s(!])|\)", re.IGNORECASE)
_OPEN, _CLOSE = "([{", ")]}"
#: How deep parentheses and negations may be nested: more would reach the limit of Python's stack.
DEEPEST = 50
WANTED = "want FIELD OP VALUE, such as comm==sh or pid>100, joined by , or && or ||"

Test = Callable[["Table"], "Mask"]


class UnknownField(UsageError):
    """A condition names a field that does not exist."""

    def __init__(self, field: str, hint: str) -> None:
        """Tell the field as it was written; hint lists the fields that exist."""
        super().__init__(f"unknown field {field!r} in --filter: {hint}")
        self.field = field


@dataclass(frozen=True)
class Filter:
    """The rows for which a whole expression holds; every row if there is no expression."""

    test: Test | None
    fields: frozenset[str]

    def __call__(self, table: Table) -> Mask | None:
        """The rows that stay; None if all stay."""
        return self.test(table) if self.test else None


def joined(texts: Sequence[str]) -> str:
    """Join expressions into one that holds when all of them hold."""
    texts = [text for text in texts if text.strip()]
    return texts[0] if len(texts) == 1 else ",".join(f"({text})" for text in texts)


def parse(text: str, schema: Schema, identity: Sequence[str] = ()) -> Filter:
    """A filter from text. UsageError names what is wrong and what there is."""
    if not text.strip():
        return Filter(None, frozenset())
    identities = {name: Column(name, "identity") for name in identity}
    return _Parser(text, {**identities, **{field.name: field for field in schema.shown}, **schema.parts}).whole()


class _Parser:
    """One text, read from left to right: a method for each rule of the grammar."""

    def __init__(self, text: str, known: Mapping[str, Column]) -> None:
        self._text, self._known = text, known
        self._at, self._depth = 0, 0
        self._fields: set[str] = set()
        names = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
        self._another = re.compile(rf"[\s&|;]\s*(?:{names})\s*(?:[=!<>]=|[<>~])")

    def whole(self) -> Filter:
        """All of it."""
        test = self._any_of()
        self._take(_SPACE)
        if self._at < len(self._text):
            raise self._wrong()
        return Filter(test, frozenset(self._fields))

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _wrong(self, what: str = WANTED) -> UsageError:
        return UsageError(f"--filter {self._text[self._at :]!r}: {what}")

    def _any_of(self) -> Test:
        tests = [self._all_of()]
        while self._take(_OR):
            tests.append(self._all_of())
        return tests[0] if len(tests) == 1 else _any(tests)

    def _all_of(self) -> Test:
        tests = [self._one()]
        while sign := self._take(_AND):
            if "," in sign[0] and not self._text[self._at :].strip():  # after the last one, where it means nothing
                break
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else _all(tests)

    def _one(self) -> Test:
        self._take(_SPACE)
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"more than {DEEPEST} parentheses in each other")
        try:
            if self._take(_NOT):
                return _not(self._one())
            if self._text[self._at : self._at + 1] == "(":
                return self._group()
            return self._condition()
        finally:
            self._depth -= 1

    def _group(self) -> Test:
        self._at += 1
        test = self._any_of()
        self._take(_SPACE)
        if self._text[self._at : self._at + 1] != ")":
            raise self._wrong("a parenthesis is not closed")
        self._at += 1
        return test

    def _condition(self) -> Condition:
        head = self._take(_HEAD)
        if not head:
            raise self._wrong()
        field = self._known.get(head["field"])
        if field is None:
            hint = meant(head["field"], self._known) or f"there is {', '.join(self._known)}"
            raise UnknownField(head["field"], hint)
        self._fields.add(field.name)
        return make_condition(field, head["op"], self._value())

    def _value(self) -> Value:
        if quoted := self._take(_QUOTED):
            return Value.quoted(quoted[1])
        plain = self._plain()
        if '"' in plain:
            raise self._wrong("a double quote in a value: put all of it in double quotes")
        if self._another.search(plain):
            raise UsageError(f"--filter: is {plain!r} one value? {WANTED}; else put it in double quotes")
        self._at += len(plain)
        return Value.plain(plain.strip())

    def _plain(self) -> str:
        """Where a plain value ends. A bracket that it opens belongs to it: the value may be a regular expression."""
        at, depth = self._at, 0
        while at < len(self._text):
            character = self._text[at]
            if character == "," or (not depth and _END.match(self._text, at)):
                break
            depth += (character in _OPEN) - (character in _CLOSE)
            depth = max(depth, 0)
            at += 2 if character == "\\" else 1
        return self._text[self._at : at]


def _all(tests: Sequence[Test]) -> Test:
    def every(table: Table) -> Mask:
        mask = tests[0](table)
        for test in tests[1:]:
            mask = mask & test(table)
        return mask

    return every


def _any(tests: Sequence[Test]) -> Test:
    def some(table: Table) -> Mask:
        mask = tests[0](table)
        for test in tests[1:]:
            mask = mask | test(table)
        return mask

    return some


def _not(test: Test) -> Test:
    return lambda table: ~test(table)
