r"""One condition on a field, FIELD OP VALUE: what each kind of field can be compared with.

OP is one of == != < <= > >=, and ~ and !~ for a regular expression that is found anywhere, or nowhere, in texts and in
names such as those of flags. For == and != a * in a value stands for anything (`\\*` for itself). Ends of connections
take networks (10.0.0.0/8), addresses and names, with or without a port; durations units (100ms, 1m30s); moments
RFC 3339. For a list a condition holds if it holds for any of it; with != and !~ if it does for all.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

from gadget.errors import UsageError
from gadget.kinds import Compared
from gadget.kinds.base import same
from gadget.schema import Column
from gadget.text import meant
from gadget.values import dataclass

if TYPE_CHECKING:
    from gadget.rows import Mask, Table

SIGNS = "=!<>~"
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
#: What people write for them elsewhere.
_MEANT = {"=": "==", "===": "==", "<>": "!=", "!==": "!=", "=~": "~", "~=": "~", "=<": "<=", "=>": ">="}


@dataclass(frozen=True)
class Value:
    """What a field is compared with: as it was written, its text, and a pattern if a * stands for anything in it."""

    written: str
    text: str
    pattern: re.Pattern[str] | None

    @property
    def has_pattern(self) -> bool:
        """Whether a * stands for anything."""
        return self.pattern is not None

    def same(self, text: str) -> bool:
        """Whether a text equals the value, or fits its pattern."""
        return bool(self.pattern.fullmatch(text)) if self.pattern else text == self.text

    @classmethod
    def quoted(cls, inner: str) -> Value:
        """What stood between double quotes."""
        parts = re.findall(r"\\.|\*|[^\\*]+", inner, re.DOTALL)
        plain = ["*" if part == "*" else part[1:] if part[0] == "\\" else part for part in parts]
        return cls(inner, "".join(plain), _pattern(parts))

    @classmethod
    def plain(cls, text: str) -> Value:
        r"""The text as it was written. Only \* has a meaning of its own in it."""
        return cls(text, text.replace("\\*", "*"), _pattern(re.findall(r"\\\*|\*|[^*\\]+|\\", text)))


def _pattern(parts: list[str]) -> re.Pattern[str] | None:
    if "*" not in parts:
        return None
    texts = (".*" if part == "*" else re.escape(part[1:] if part[0] == "\\" and part[1:] else part) for part in parts)
    return re.compile("".join(texts), re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """test is applied to a whole column of numbers, to each list, or to each distinct value of others."""

    field: str
    how: str  # numbers, texts, values or lists
    test: Callable[[Any], Any]

    def __call__(self, table: Table) -> Mask:
        """The rows of the table for which it holds."""
        import numpy as np

        if self.how == "numbers":
            return np.asarray(self.test(table.numbers(self.field)))
        if self.how in ("values", "lists"):
            test = cache(self.test) if self.how == "values" else self.test
            values = table.column(self.field)
            return np.fromiter(map(test, values), bool, len(values))
        texts, index = table.distinct(self.field)
        return np.fromiter(map(self.test, texts), bool, len(texts))[index]


#: What holds for a list if it holds for none that is in it.
_NONE_OF = {"!=": "==", "!~": "~"}


def make_condition(field: Column, op: str, value: Value) -> Condition:
    """The condition FIELD OP VALUE. UsageError if it makes no sense."""
    if not field.means.is_list:
        return Condition(field.name, *_test(field, op, value))
    how, test = _test(field, _NONE_OF.get(op, op), value)
    seen = field.means.each.plain if how == "texts" else same
    return Condition(field.name, "lists", lambda values: any(test(seen(each)) for each in values) != (op in _NONE_OF))


def _test(field: Column, op: str, value: Value) -> tuple[str, Callable[[Any], Any]]:
    """How to look at a column's values, and the test for one value."""
    if op in ("~", "!~"):
        return _regular(field, value.written, negated=op == "!~")
    if op not in OPERATORS:
        hint = f"; want {_MEANT[op]}" if op in _MEANT else ""
        raise UsageError(f"unknown operator {op!r} in --filter: there is {' '.join(OPERATORS)} ~ !~{hint}")
    kind = field.means.each
    if kind.compared is not Compared.NUMBERS:
        return _text(field, op, value)
    compare, wanted, unknown = OPERATORS[op], number(field, value.text), kind.unknown
    if unknown is not None and op in (">", ">="):  # the number that means unknown is the largest
        return "numbers", lambda found: compare(found, wanted) & (found != unknown)
    return "numbers", lambda found: compare(found, wanted)


def _regular(field: Column, text: str, *, negated: bool) -> tuple[str, Callable[[Any], Any]]:
    kind = field.means.each
    name = kind.name_of(field)
    where = f"--filter {field.name}~{text}"
    if kind.compared is Compared.NUMBERS and not name:
        raise UsageError(f"{where}: {field.name} is a number, ~ is for text")
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{where}: {error}") from None
    if name:
        return "numbers", _each(lambda each: bool(pattern.search(name(each))) != negated)
    return "texts", lambda each: bool(pattern.search(each)) != negated


def _text(field: Column, op: str, value: Value) -> tuple[str, Callable[[Any], Any]]:
    if op not in ("==", "!="):
        compare = OPERATORS[op]
        return "texts", lambda text: compare(text, value.text)
    kind, negated = field.means.each, op == "!="
    matches = kind.matcher(field, value)
    return "values" if kind.compared is Compared.VALUES else "texts", lambda found: matches(found) != negated


def _each(test: Callable[[int], bool]) -> Callable[[Mask], Mask]:
    """The test for a whole column of numbers, done once for each distinct number."""

    def column(numbers: Mask) -> Mask:
        import numpy as np

        values, index = np.unique(numbers, return_inverse=True)
        return np.fromiter(map(test, values.tolist()), bool, len(values))[index]

    return column


def number(field: Column, text: str) -> int:
    """A numeric field's value from its name or digits. UsageError if it is neither."""
    kind = field.means.each

    def one(part: str) -> int:
        try:
            return kind.parse(field, part)
        except (ValueError, OverflowError):
            hint = meant(part, kind.words(field)) or f"want {kind.wanted(field)}"
            raise UsageError(f"--filter: {part!r} is no value of {field.name}: {hint}") from None

    return reduce(operator.or_, map(one, kind.several(text)))
