"""Measurements beside peers: `make bench` writes docs/benchmarks.md; `python -m tests.bench --json` prints JSON lines."""

from __future__ import annotations

import fcntl
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A unit, and the values of several runs in it.
Result = tuple[str, list[float]]

#: How long a lock is kept from others, about.
LOCK_SECONDS = 150.0


@dataclass(frozen=True)
class Goal:
    """What a median should not exceed, or should at least be; and why it does or is not, in a sentence."""

    value: float
    at_least: bool = False
    missed: str = ""

    def is_met(self, median: float) -> bool:
        """Whether a median is good enough."""
        return median >= self.value if self.at_least else median <= self.value


@dataclass(frozen=True)
class Figure:
    """One cell of a table: values of several runs, or why there are none. column is empty where there is but one."""

    row: str
    unit: str
    values: list[float]
    column: str = ""
    goal: Goal | None = None
    why: str = ""

    def to_json(self, table: str) -> dict[str, Any]:
        """As --json prints it."""
        item: dict[str, Any] = {"table": table, "row": self.row, "column": self.column, "unit": self.unit}
        item |= {"runs": len(self.values)}
        if self.values:
            item |= {"median": statistics.median(self.values), "min": min(self.values), "max": max(self.values)}
        if self.goal:
            item |= {"goal": self.goal.value, "at_least": self.goal.at_least, "missed": self.goal.missed}
        return item | {"why": self.why}


class Lock:
    """A file that others lock as well, by flock."""

    def __init__(self, path: Path) -> None:
        """Nothing is locked yet."""
        self._file = path.open("a")
        self._since = 0.0

    def take(self) -> None:
        """Have it, from now or from before."""
        if not self._since:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._since = time.monotonic()

    def give_up(self, seconds: float = 0.0) -> None:
        """Let others have it, if it has been ours for so long."""
        if self._since and time.monotonic() - self._since > seconds:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._since = 0.0
            time.sleep(0.1)  # who waits gets it


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure."""

    quick: bool = False
    lock: Lock | None = None

    @property
    def rounds(self) -> int:
        """Runs of each measurement."""
        return 1 if self.quick else 3

    @property
    def seconds(self) -> float:
        """How long events are made at each rate."""
        return 0.5 if self.quick else 1.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Measure alone: nothing else that takes the lock loads programs meanwhile. Given up between turns, if due."""
        if self.lock:
            self.lock.take()
        yield
        if self.lock:
            self.lock.give_up(LOCK_SECONDS)


Measurement = Callable[[Plan], Iterable[Figure]]


@dataclass(frozen=True)
class Section:
    """A table of docs/benchmarks.md: its name on the command line, its title, what a reader should know.

    reference is the row that the others are put beside; the first one if it is empty. slower says why a peer may take
    less CPU for an event than that row; empty where CPU is not compared.
    """

    name: str
    title: str
    about: str
    measurements: tuple[Measurement, ...]
    reference: str = ""
    slower: str = ""


def single(function: Callable[[Plan], Result], goal: Goal | None = None) -> Measurement:
    """A measurement of one figure, whose row is called what the function's first line of documentation says."""

    def measure(plan: Plan) -> Iterator[Figure]:
        with plan.turn():
            unit, values = function(plan)
        row = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        yield Figure(row, unit, values, goal=goal)

    measure.__name__ = function.__name__
    return measure
