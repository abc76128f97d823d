"""Series of a metric for Prometheus: bounded, and without what is gone.

What is gone is not shown, which Prometheus takes for the end of a series. Its number stays as long as there is room, so
that one that comes back goes on: a counter never goes down, and nothing that it counts is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

#: For how long a series without an event is shown: when who it is about is gone, so that its last numbers have been
#: scraped; and if nobody knows whether it is.
GONE_SECONDS, IDLE_SECONDS = 300.0, 3600.0

Labels = tuple[str, ...]
T = TypeVar("T")


class SeriesTable(Generic[T]):
    """Numbers by labels."""

    def __init__(
        self, most: int, make: Callable[[], T], clock: Callable[[], float], other: Callable[[Labels], Labels]
    ) -> None:
        """Room for so many, of which each begins as make has it; labels for which there is none count as other ones."""
        self._most, self._make, self._clock, self._other = most, make, clock, other
        self._numbers: dict[Labels, T] = {}
        self._seen: dict[Labels, float] = {}
        self._hidden: set[Labels] = set()

    @property
    def is_full(self) -> bool:
        """Whether further ones count as something else."""
        return len(self._numbers) - len(self._hidden) >= self._most

    def of(self, labels: Labels) -> T:
        """The number of labels, to be added to; where there is no room that of other ones."""
        if labels not in self._numbers and len(self._numbers) >= self._most:
            for gone in self._hidden:
                del self._numbers[gone], self._seen[gone]
            self._hidden.clear()
            labels = self._other(labels) if len(self._numbers) >= self._most else labels
        self._hidden.discard(labels)
        self._seen[labels] = self._clock()
        return self._numbers.setdefault(labels, self._make())

    def shown(self, lives: Callable[[Labels], bool | None]) -> Iterator[tuple[Labels, T]]:
        """Those to be shown. lives tells whether who labels are about is there; None if that is not known."""
        now = self._clock()
        for labels, number in self._numbers.items():
            alive = lives(labels)
            if not alive and now - self._seen[labels] > (IDLE_SECONDS if alive is None else GONE_SECONDS):
                self._hidden.add(labels)
            if labels not in self._hidden:
                yield labels, number
