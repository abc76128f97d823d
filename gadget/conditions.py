r"""One condition on a field, FIELD OP VALUE: what each kind of field can be compared with.

OP is one of == != < <= > >=, and ~ and !~ for a regular expression that is found anywhere, or nowhere, in texts and in
names such as those of flags. For == and != a * in a value stands for anything (`\\*` for itself). Ends of connections
take networks (10.0.0.0/8), addresses and names, with or without a port; durations units (100ms, 1m30s); moments
RFC 3339.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, reduce
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from gadget.errors import UsageError
from gadget.names import name_of
from gadget.schema import DURATION_UNKNOWN, Field

if TYPE_CHECKING:
    from gadget.endpoints import Endpoint
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
_TEXTS = ("comm", "text", "args", "path", "full_path", "identity", "endpoint")
_NANOSECONDS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMG])(?:i?B)?")
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: A name of a process has so many bytes: TASK_COMM_LEN of linux/sched.h, less the zero.
_COMM_BYTES = 15


@dataclass(frozen=True)
class Value:
    """What a field is compared with: as it was written, its text, and a pattern if a * stands for anything in it."""

    written: str
    text: str
    pattern: re.Pattern[str] | None

    @classmethod
    def quoted(cls, inner: str) -> Value:
        """What stood between double quotes."""
        parts = re.findall(r"\\.|\*|[^\\*]+", inner, re.DOTALL)
        plain = ["*" if part == "*" else part[1:] if part[0] == "\\" else part for part in parts]
        return cls(inner, "".join(plain), _pattern(parts))

    @classmethod
    def plain(cls, text: str) -> Value:
        r"""What stood there as it is, where only \* has a meaning of its own."""
        return cls(text, text.replace("\\*", "*"), _pattern(re.findall(r"\\\*|\*|[^*\\]+|\\", text)))


def _pattern(parts: list[str]) -> re.Pattern[str] | None:
    if "*" not in parts:
        return None
    texts = (".*" if part == "*" else re.escape(part[1:] if part[0] == "\\" and part[1:] else part) for part in parts)
    return re.compile("".join(texts), re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """test is applied to a whole column of numbers, or to each distinct value of others."""

    field: str
    how: str  # numbers, texts or values
    test: Callable[[Any], Any]

    def __call__(self, table: Table) -> Mask:
        """The rows of the table for which it holds."""
        import numpy as np

        if self.how == "numbers":
            return np.asarray(self.test(table.numbers(self.field)))
        if self.how == "values":
            test = cache(self.test)
            values = table.column(self.field)
            return np.fromiter(map(test, values), bool, len(values))
        texts, index = table.distinct(self.field)
        return np.fromiter(map(self.test, texts), bool, len(texts))[index]


def make_condition(field: Field, op: str, value: Value) -> Condition:
    """The condition FIELD OP VALUE. UsageError if it makes no sense."""
    if op in ("~", "!~"):
        return _regular(field, value.written, negated=op == "!~")
    if op not in OPERATORS:
        hint = f"; want {_MEANT[op]}" if op in _MEANT else ""
        raise UsageError(f"unknown operator {op!r} in --filter: there is {' '.join(OPERATORS)} ~ !~{hint}")
    if field.kind in _TEXTS:
        return _text(field, op, value)
    compare, wanted = OPERATORS[op], number(field, value.text)
    if field.kind == "duration" and op in (">", ">="):  # the number that means unknown is the largest
        return Condition(field.name, "numbers", lambda found: compare(found, wanted) & (found != DURATION_UNKNOWN))
    return Condition(field.name, "numbers", lambda found: compare(found, wanted))


def _regular(field: Field, text: str, *, negated: bool) -> Condition:
    name = name_of(field)
    where = f"--filter {field.name}~{text}"
    if not (field.kind in _TEXTS or name):
        raise UsageError(f"{where}: {field.name} is a number, ~ is for text")
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{where}: {error}") from None
    if name:
        return Condition(field.name, "numbers", _each(lambda each: bool(pattern.search(name(each))) != negated))
    return Condition(field.name, "texts", lambda each: bool(pattern.search(each)) != negated)


def _text(field: Field, op: str, value: Value) -> Condition:
    if op not in ("==", "!="):
        compare = OPERATORS[op]
        return Condition(field.name, "texts", lambda text: compare(text, value.text))
    negated = op == "!="
    if field.kind == "endpoint":
        matches = _end_matches(field, value)
        return Condition(field.name, "values", lambda end: matches(end) != negated)
    if field.name.endswith(".addr") and (inside := _network(field, value)):
        return Condition(field.name, "texts", lambda text: inside(text) != negated)
    if field.kind == "comm" and not value.pattern and len(value.text.encode()) > _COMM_BYTES:
        cut = value.text.encode()[:_COMM_BYTES].decode(errors="ignore")
        raise UsageError(f"--filter: {field.name} has at most {_COMM_BYTES} bytes: {value.text!r} is seen as {cut!r}")
    test = _same(value)
    return Condition(field.name, "texts", lambda text: test(text) != negated)


def _same(value: Value) -> Callable[[str], bool]:
    if value.pattern:
        fits = value.pattern.fullmatch
        return lambda text: bool(fits(text))
    return lambda text: text == value.text


def _end_matches(field: Field, value: Value) -> Callable[[Endpoint | None], bool]:
    """Whether an end of a connection is what value says: a network, an address or a name, with or without a port."""
    if inside := _network(field, value):
        return lambda end: end is not None and inside(end.addr)
    same = _same(value)

    def test(end: Endpoint | None) -> bool:
        if end is None:
            return same("")
        plain = str(end._replace(kind="raw"))
        shown = (str(end), plain, end.addr)
        return any(map(same, (*shown, *(text.rpartition(":")[0] for text in shown[:2]))))

    return test


def _network(field: Field, value: Value) -> Callable[[str], bool] | None:
    """Whether an address is in the network that value is; None if it is none."""
    address, slash, bits = value.text.partition("/")
    if not slash or value.pattern or not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", address):
        return None
    try:
        network = ip_network(f"{address}/{bits}", strict=False)
    except ValueError:
        raise UsageError(f"--filter: {value.text!r} is no network: want {field.name}==10.0.0.0/8") from None

    def inside(text: str) -> bool:
        try:
            return ip_address(text) in network
        except ValueError:  # an end that is not known
            return False

    return inside


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
        names = {"true": 1, "false": 0, "yes": 1, "no": 0}
    elif field.kind == "flags" and "|" in text:
        return reduce(operator.or_, (number(field, part.strip()) for part in text.split("|")))
    if text in names:
        return names[text]
    try:
        return _digits(field.kind, text)
    except (ValueError, OverflowError):
        raise UsageError(f"--filter: {text!r} is no value of {field.name}: want {_wanted(field, names)}") from None


def _digits(kind: str, text: str) -> int:
    """ValueError if text is no number of that kind."""
    if kind == "duration" and _DURATION.fullmatch(text):
        return round(sum(float(count) * _NANOSECONDS[unit] for count, unit in _PART.findall(text)))
    if kind == "timestamp" and "T" in text:
        when = datetime.fromisoformat(text)
        since = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    if kind == "mode":
        return int(text, 8)
    if kind in ("int", "size") and (size := _SIZE.fullmatch(text)):
        return round(float(size[1]) * _SIZES[size[2]])
    value = int(text, 0)
    return abs(value) if kind == "errno" else value  # as kernels give them, and as people know them


def _wanted(field: Field, names: dict[str, int]) -> str:
    if field.kind == "duration":
        return "100ms, 1.5s or nanoseconds"
    if field.kind == "timestamp":
        return "2026-01-31T12:00:00Z or nanoseconds since 1970"
    if field.kind == "mode":
        return "0644"
    few = list(names)[:12]
    return ", ".join([*few, *["…"] * (len(names) > len(few)), *([] if field.kind == "bool" else ["a number"])])
