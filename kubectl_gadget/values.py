"""Values for people and for JSON, by what their field means."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import gmtime, localtime, strftime, time_ns
from typing import Any

from gadget.names import flag_names, named
from gadget.schema import DURATION_UNKNOWN, CutArgs, Field
from kubectl_gadget.text import escape, quote


@lru_cache(64)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


@lru_cache(64)
def _local_second(seconds: int) -> str:
    return strftime("%H:%M:%S", localtime(seconds))


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


def clock(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as local time of day, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_local_second(seconds)}.{rest // 1000:06d}"


def moment(nanoseconds: int | None) -> str:
    """Nanoseconds since 1970 as local time of day, with the date unless it is today's."""
    if not nanoseconds:
        return ""
    then = localtime(nanoseconds // 1_000_000_000)
    return strftime("%H:%M:%S" if then[:3] == localtime()[:3] else "%Y-%m-%d %H:%M", then)


def ago(nanoseconds: int | None, now: int) -> str:
    """How long before now, in the unit that suits it."""
    if not nanoseconds:
        return ""
    seconds = max(0, now - nanoseconds) // 1_000_000_000
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def _arguments(value: list[str]) -> str:
    shown = " ".join(map(quote, value))
    if isinstance(value, CutArgs):
        shown += "…" if value.last_too or not value else " …"
    return shown


def to_text(field: Field) -> Callable[[Any], str]:
    """How a field's values look in a column; never with a control character."""
    if field.kind == "timestamp":
        return clock
    if field.kind == "moment":
        return moment
    if field.kind == "age":
        return lambda value: ago(value, time_ns())
    if field.kind == "args":
        return _arguments
    if field.kind in ("errno", "enum", "words"):
        name = named(field)
        return lambda value: escape(name(value) or "")
    if field.kind == "duration":
        return short_duration
    if field.kind == "endpoint":
        return lambda value: escape(str(value)) if value else "-"
    if field.kind == "flags":
        names = flag_names(field)
        return lambda value: escape(names(value))
    if field.kind == "mode":
        return octal
    if field.kind == "rate":
        return lambda value: f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}"
    if field.kind == "size":
        return lambda value: f"{value / (1 << 20):.0f}M" if value else "-"
    if field.kind == "objects":
        return lambda value: str(len(value))
    if field.kind == "bool":
        return lambda value: "yes" if value else "no"
    if field.kind == "short_id":
        return lambda value: escape(value[:12])
    if field.kind in ("comm", "text", "path", "full_path", "identity"):
        return lambda value: escape(value) or "-"
    return str


def to_cell(field: Field) -> Callable[[Any], str]:
    """The same, with what stands for None: the value of a field that an agent of another version does not have."""
    text = to_text(field)
    return lambda value: "-" if value is None else text(value)


def to_json(field: Field) -> dict[str, Callable[[Any], Any]]:
    """The JSON keys that a field becomes, and how each gets its value."""
    if field.kind in ("timestamp", "moment", "age"):
        return {field.name: lambda value: None if value is None else rfc3339(value)}
    if field.kind in ("errno", "enum", "words"):
        return {field.name: named(field), f"{field.name}_raw": _same}
    if field.kind in ("flags", "mode"):
        text = flag_names(field) if field.kind == "flags" else octal
        return {field.name: text, f"{field.name}_raw": _same}
    if field.kind == "identity":
        return {field.name: lambda value: value or None}
    if field.kind == "args":
        return {field.name: lambda value: None if value is None else list(value)}
    if field.kind == "endpoint":
        return {
            field.name: lambda value: {key: _some(part) for key, part in value._asdict().items()} if value else None
        }
    if field.kind == "duration":
        return {field.name: lambda value: None if value == DURATION_UNKNOWN else value}
    return {field.name: _same}


def _some(value: Any) -> Any:
    return None if value == "" else value


def short_duration(nanoseconds: int) -> str:
    """A time in three digits or so, in the unit that suits it."""
    if nanoseconds == DURATION_UNKNOWN:
        return "-"
    seconds = nanoseconds // 1_000_000_000
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds // 60 % 60:02d}m"
    if seconds >= 60:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1000)):
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "0s"


def octal(mode: int) -> str:
    """Permission bits as people write them."""
    return f"{mode:04o}"


def _same(value: Any) -> Any:
    return value
