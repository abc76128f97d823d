"""Sources that no descriptor wakes: they are read at an interval, or once."""

from __future__ import annotations

import time
from math import ceil, inf

import numpy as np
import numpy.typing as npt

from agent.run.batch import TableInfo
from agent.run.source import Loaded

#: No interval ends sooner after the one before it than this part of its length: it would be about nothing.
LEAST_PART = 0.1


class Clock:
    """The beginnings and ends of intervals."""

    def __init__(self, interval_ns: int, *, at_once: bool) -> None:
        """Intervals of so many nanoseconds, 0 for one alone; the first ends now if at_once."""
        self._seconds = interval_ns / 1e9
        #: how many have ended
        self.number = 0
        self._began = time.monotonic()
        #: when the interval ends (monotonic, seconds)
        self.due = self._began if at_once else self._began + self._seconds

    @property
    def is_due(self) -> bool:
        """Whether it has ended."""
        return time.monotonic() >= self.due

    def end(self, *, last: bool = False) -> None:
        """The interval ends now, or with last at once and then never again."""
        self.due = inf if last else time.monotonic()

    def so_far(self) -> TableInfo:
        """The interval that goes on, as if it ended now."""
        return TableInfo(self.number + 1, int((time.monotonic() - self._began) * 1e9), is_cut=True)

    def next(self) -> TableInfo:
        """Begin the next interval. Returns which one has ended, and how long it was."""
        now = time.monotonic()
        self.number += 1
        ended = TableInfo(self.number, int((now - self._began) * 1e9))
        self._began = now
        self.due = self.due + self._seconds if self._seconds else inf
        self.rest(0.0)
        return ended

    def rest(self, seconds: float) -> None:
        """Nothing is due for so long from now: ends of intervals before that are passed over."""
        earliest = time.monotonic() + max(seconds, LEAST_PART * self._seconds)
        if self.due < earliest and self._seconds:
            self.due += ceil((earliest - self.due) / self._seconds) * self._seconds


class Clocked(Loaded):
    """A gadget's object that is read when its clock says so."""

    _clock: Clock

    @property
    def fds(self) -> list[int]:
        """None: it is read by the clock."""
        return []

    @property
    def due(self) -> float:
        """When the interval ends."""
        return self._clock.due

    @property
    def pressed(self) -> bool:
        """Whether the interval has ended."""
        return self._clock.is_due

    @property
    def waiting(self) -> bool:
        """Whether the interval has ended."""
        return self._clock.is_due


def boot_ns() -> int:
    """Now, as programs in the kernel tell the time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def stamp(now: int) -> npt.NDArray[np.uint8]:
    """A time as it stands in a row."""
    return np.array([now], np.uint64).view(np.uint8)
