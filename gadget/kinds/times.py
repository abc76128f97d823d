"""Moments, and how long something took."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from time import gmtime, localtime, strftime, time_ns
from typing import TYPE_CHECKING, Any

from gadget.kinds.base import NONE, UNKNOWN, Described, Encoding, Kind, Source, Total

if TYPE_CHECKING:
    import numpy.typing as npt

DURATION_UNKNOWN = (1 << 64) - 1
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")


class Moment(Kind):
    """When something happened, in nanoseconds since 1970; None if it has not."""

    encoding = Encoding.CONVERTED

    def text(self, column: Described) -> Callable[[Any], str]:
        """The time of day, with the date unless it is today's."""
        return moment

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """RFC 3339."""
        return {column.name: lambda value: None if value is None else rfc3339(value)}


class Age(Moment):
    """When something was, shown as how long ago that is."""

    def text(self, column: Described) -> Callable[[Any], str]:
        """How long ago."""
        return lambda value: ago(value, time_ns())


class Timestamp(Moment):
    """When an event happened: CLOCK_BOOTTIME in the kernel, wall-clock time for users."""

    size = 8
    shape = "timestamp"
    usual = tight = 15
    encoding = Encoding.TIMES

    def raw(self, source: Source, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Nanoseconds since 1970."""
        since_1970: npt.NDArray[Any] = rows.astype("i8") + source.clock
        return since_1970

    def text(self, column: Described) -> Callable[[Any], str]:
        """The time of day, to the microsecond."""
        return clock

    def digits(self, text: str) -> int:
        """Also RFC 3339."""
        if "T" not in text:
            return super().digits(text)
        since = datetime.fromisoformat(text).astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000

    def wanted(self, column: Described) -> str:
        """An example."""
        return "2026-01-31T12:00:00Z or nanoseconds since 1970"


class Duration(Kind):
    """How long something took, in nanoseconds."""

    usual, tight = 8, 6
    measure = ("seconds", 1e-9)
    unknown = DURATION_UNKNOWN
    total = Total.SUM

    def text(self, column: Described) -> Callable[[Any], str]:
        """In three digits or so; `?` if it is not known."""
        return short_duration

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Nanoseconds; null if it is not known."""
        return {column.name: lambda value: None if value == DURATION_UNKNOWN else value}

    def digits(self, text: str) -> int:
        """Also with units: 100ms, 1m30s."""
        if _DURATION.fullmatch(text):
            return round(sum(float(count) * _NANOSECONDS[unit] for count, unit in _PART.findall(text)))
        return super().digits(text)

    def wanted(self, column: Described) -> str:
        """Examples."""
        return "100ms, 1.5s or nanoseconds"


class LatestDuration(Duration):
    """A duration as it was in the end, such as a round-trip time."""

    total = Total.LATEST


class LongestDuration(Duration):
    """The longest of several durations."""

    total = Total.GREATEST


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


def exact_clock(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as local time of day, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_local_second(seconds)}.{rest:09d}"


def moment(nanoseconds: int | None) -> str:
    """Nanoseconds since 1970 as local time of day, with the date unless it is today's."""
    if not nanoseconds:
        return NONE
    then = localtime(nanoseconds // 1_000_000_000)
    return strftime("%H:%M:%S" if then[:3] == localtime()[:3] else "%Y-%m-%d %H:%M", then)


def ago(nanoseconds: int | None, now: int) -> str:
    """How long before now, in the unit that suits it."""
    if not nanoseconds:
        return NONE
    seconds = max(0, now - nanoseconds) // 1_000_000_000
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def short_duration(nanoseconds: int) -> str:
    """A time in three digits or so, in the unit that suits it."""
    if nanoseconds == DURATION_UNKNOWN:
        return UNKNOWN
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
