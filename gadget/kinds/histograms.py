"""How many durations there were of each length: gadget_histogram of bpf/include/histogram.h."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gadget.kinds.base import NONE, Cut, Described, Encoding, Kind, Source, Total
from gadget.kinds.times import Duration, short_duration

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows

#: The share of durations, of a thousand, that each member is about.
_PARTS = {"p50": 500, "p90": 900, "p99": 990}
_MEMBERS = {
    "count": ("int", "how many there were"),
    "sum": ("duration", "all together"),
    **{
        name: ("bucket_bound", f"{part / 10:g} in a hundred were at most so long; beyond the last bound at least")
        for name, part in _PARTS.items()
    },
}
_BARS = "▁▂▃▄▅▆▇█"
#: Counts and a sum, of 8 bytes each; a duration has at most 64 bits.
_BYTES, _LEAST, _MOST = 8, 2, 65


def buckets(value: Sequence[int]) -> Iterator[tuple[int, int | None, int]]:
    """From the shortest to the longest: more than, at most so many nanoseconds (None: no end), how many."""
    counts = value[:-1]
    used = [at for at, count in enumerate(counts) if count]
    for at in range(used[0], used[-1] + 1) if used else ():
        yield 1 << at - 1 if at else 0, 1 << at if at < len(counts) - 1 else None, counts[at]


def _beyond(counts: int) -> int:
    """The shortest duration that the last one of so many counts is of: it has no upper end."""
    return (1 << counts - 2) + 1 if counts > 1 else 0


def within(value: Sequence[int], which: str) -> str:
    """Where a part of the durations ends, in words."""
    end = HISTOGRAM.member_of(value)[which]
    return f"more than {short_duration(end - 1)}" if _is_beyond(end) else f"within {short_duration(end)}"


def _is_beyond(end: int) -> bool:
    """Whether it is of the last bucket: what _beyond() makes is no power of two, as other ends are."""
    return bool(end & end - 1)


class BucketBound(Duration):
    """Where a part of the durations ends."""

    def text(self, column: Described) -> Callable[[Any], str]:
        """As a duration; of the last bucket, which has no end, that it is more than its beginning."""
        return lambda end: f">{short_duration(end - 1)}" if _is_beyond(end) else short_duration(end)


class Histogram(Kind):
    """How many durations there were of each length, by powers of two, and their sum."""

    shape = "histogram"
    is_key = False
    is_main = True
    cut = Cut.END
    usual = tight = 24
    measure = ("seconds", 1e-9)
    total = Total.SUM
    encoding = Encoding.LISTS
    members = _MEMBERS

    def fits(self, size: int) -> bool:
        """As many counts as a duration can need, or fewer."""
        return size % _BYTES == 0 and _LEAST <= size // _BYTES <= _MOST

    def format(self, size: int, *, signed: bool) -> str:
        """Of numpy."""
        return f"({size // _BYTES},)<u8"

    def numbers_of(self, rows: Rows, which: str) -> Rows:
        """A member of each histogram. Of a percentile: the upper bound of its bucket; of the last one, its shortest."""
        import numpy as np

        counts = rows[:, :-1]
        if which == "sum":
            return rows[:, -1]
        so_far: Rows = np.cumsum(counts, axis=1)
        if which == "count":
            return so_far[:, -1]
        wanted = (so_far[:, -1:] * np.uint64(_PARTS[which]) + np.uint64(999)) // np.uint64(1000)
        at = (so_far >= wanted).argmax(1).astype(np.uint64)
        bounds: Rows = np.uint64(1) << at
        bounds[at == counts.shape[1] - 1] = _beyond(counts.shape[1])
        bounds[so_far[:, -1] == 0] = 0
        return bounds

    def member(self, source: Source, name: str, rows: Rows, mask: Mask, which: str) -> list[Any]:
        """As numbers."""
        values: list[Any] = self.numbers_of(rows, which).tolist()
        return values

    def member_of(self, value: Sequence[int]) -> dict[str, int]:
        """All members of one value."""
        import numpy as np

        rows = np.array([value], np.uint64)
        return {which: int(self.numbers_of(rows, which)[0]) for which in _MEMBERS}

    def key(self, value: Any) -> Any:
        """As a tuple."""
        return tuple(value)

    def text(self, column: Described) -> Callable[[Any], str]:
        """A bar for each length, between the shortest and the longest."""

        def drawn(value: Sequence[int]) -> str:
            found = [*buckets(value)]
            if not found:
                return NONE
            most = max(count for _, _, count in found)
            bars = "".join(_BARS[(count * len(_BARS) - 1) // most] if count else " " for _, _, count in found)
            return f"{short_duration(found[0][0])} {bars} {bound(found[-1][1])}"

        return drawn

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """An object with count, sum, parts and the counts, in nanoseconds."""
        return {column.name: self._object}

    def flat(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Its members, and the counts."""

        def member(which: str) -> Callable[[Any], Any]:
            return lambda value: self._object(value)[which]

        return {f"{column.name}.{which}": member(which) for which in (*_MEMBERS, "buckets")}

    def _object(self, value: Sequence[int]) -> dict[str, Any]:
        counts = [{"over": low, "upTo": high, "count": count} for low, high, count in buckets(value)]
        return {**self.member_of(value), "buckets": counts}

    def digits(self, text: str) -> int:
        """None: it is no number."""
        raise ValueError(text)

    def wanted(self, column: Described) -> str:
        """An example."""
        return f"one of its parts, such as {column.name}.p99>10ms or {column.name}.count>100"


HISTOGRAM = Histogram("histogram")


def bound(nanoseconds: int | None) -> str:
    """The upper end of a bucket."""
    return "∞" if nanoseconds is None else short_duration(nanoseconds)
