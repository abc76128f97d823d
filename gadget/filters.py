"""--filter: conditions on any field, evaluated on whole batches.

Grammar: FIELD OP VALUE, several joined by commas, all of which must hold. OP is one of == != < <= > >= and ~
(a regular expression that is found anywhere, in texts and in names such as those of flags). A value with a comma goes
in double quotes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from gadget.errors import UsageError
from gadget.names import name_of
from gadget.schema import DURATION_UNKNOWN, Field, Schema

if TYPE_CHECKING:
    from gadget.rows import Mask, Table

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TERM = re.compile(
    r'\s*(?P<field>[\w.]+)\s*(?P<op>[=!<>~]+)\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^,"]*?))\s*(?:,|$)'
)
_TEXTS = ("comm", "text", "args", "path", "full_path", "identity", "endpoint")


@dataclass(frozen=True)
class Term:
    """One condition: test is applied to a whole numeric column, or to each distinct text."""

    field: str
    is_text: bool
    test: Callable[[Any], Any]

    def mask(self, table: Table) -> Mask:
        """Which rows of the table it holds for."""
        import numpy as np

        if not self.is_text:
            return np.asarray(self.test(table.numbers(self.field)))
        values, index = table.distinct(self.field)
        return np.fromiter(map(self.test, values), bool, len(values))[index]


class Filter:
    """All terms of a --filter; an empty one keeps every row."""

    def __init__(self, terms: Sequence[Term]) -> None:
        """Keep rows for which every term holds."""
        self._terms = terms

    @property
    def fields(self) -> set[str]:
        """The names of the fields it looks at."""
        return {term.field for term in self._terms}

    def __call__(self, table: Table) -> Mask | None:
        """The rows that stay; None for all of them."""
        mask: Mask | None = None
        for term in self._terms:
            mask = term.mask(table) if mask is None else mask & term.mask(table)
        return mask


def parse(text: str, schema: Schema, identity: Sequence[str] = ()) -> Filter:
    """A filter from text. UsageError names what is wrong and what there is."""
    known = {name: Field(name, "identity", 0, 0) for name in identity} | {field.name: field for field in schema.shown}
    known |= schema.parts
    terms = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if not found:
            raise UsageError(f"--filter {text[at:]!r}: want FIELD OP VALUE, such as comm==sh or pid>100")
        field = known.get(found["field"])
        if field is None:
            raise UsageError(f"unknown field {found['field']!r} in --filter: there is {', '.join(known)}")
        value = found["plain"] if found["quoted"] is None else re.sub(r"\\(.)", r"\1", found["quoted"])
        terms.append(_term(field, found["op"], value))
        at = found.end()
    return Filter(terms)


def _term(field: Field, op: str, value: str) -> Term:
    is_text = field.kind in _TEXTS
    if op == "~":
        name = name_of(field)
        if not (is_text or name):
            raise UsageError(f"--filter {field.name}~{value}: {field.name} is a number, ~ is for text")
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise UsageError(f"--filter {field.name}~{value}: {error}") from None
        if name:
            return Term(field.name, False, _each(lambda number: bool(pattern.search(name(number)))))
        return Term(field.name, True, lambda text: bool(pattern.search(text)))
    if op not in OPERATORS:
        raise UsageError(f"unknown operator {op!r} in --filter: there is {' '.join(OPERATORS)} ~")
    compare, wanted = OPERATORS[op], value if is_text else number(field, value)
    if field.kind == "duration" and op in (">", ">="):  # the number that means unknown is the largest
        return Term(field.name, False, lambda found: compare(found, wanted) & (found != DURATION_UNKNOWN))
    return Term(field.name, is_text, lambda found: compare(found, wanted))


def _each(test: Callable[[int], bool]) -> Callable[[Mask], Mask]:
    """The test for a whole column of numbers, done once for each that is in it."""

    def column(numbers: Mask) -> Mask:
        import numpy as np

        values, index = np.unique(numbers, return_inverse=True)
        return np.fromiter(map(test, values.tolist()), bool, len(values))[index]

    return column


def number(field: Field, text: str) -> int:
    """A numeric field's value from its name or digits. UsageError if it is neither."""
    names = {name: int(value) for value, name in field.values.items()}
    if field.kind == "bool":
        names = {"true": 1, "false": 0}
    elif field.kind == "flags" and "|" in text:
        return reduce(operator.or_, (number(field, part) for part in text.split("|")))
    try:
        return names[text] if text in names else int(text, 0)
    except ValueError:
        raise UsageError(f"--filter: {text!r} is no value of {field.name}, which is a {field.kind}") from None
