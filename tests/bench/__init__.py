"""Measurements beside peers: `make bench` writes docs/benchmarks.md; `python -m tests.bench --json` prints JSON lines."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

#: A unit, and the values of several runs in it.
Result = tuple[str, list[float]]
#: Rows that begin so are the work itself. What tools add to it is no multiple of it.
NO_TOOL = "no tool"


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
    """One cell of a table: values of several runs, or why there are none. column is empty where there is but one.

    made is the rate at which events were really made, if it is not the one that the column says.
    """

    row: str
    unit: str
    values: list[float]
    column: str = ""
    goal: Goal | None = None
    why: str = ""
    made: float = 0.0

    def to_json(self, table: str) -> dict[str, Any]:
        """As --json prints it."""
        item: dict[str, Any] = {"table": table, "row": self.row, "column": self.column, "unit": self.unit}
        item |= {"runs": len(self.values)}
        if self.values:
            item |= {"median": statistics.median(self.values), "min": min(self.values), "max": max(self.values)}
        if self.made:
            item |= {"made": self.made}
        if self.goal:
            item |= {"goal": self.goal.value, "at_least": self.goal.at_least, "missed": self.goal.missed}
        return item | {"why": self.why}


@dataclass(frozen=True)
class Plan:
    """How thoroughly to measure, and whether beside ig too."""

    quick: bool = False
    ig: bool = False

    @property
    def rounds(self) -> int:
        """Runs of each measurement."""
        return 1 if self.quick else 3

    @property
    def seconds(self) -> float:
        """How long events are made at the least."""
        return 0.5 if self.quick else 1.0


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
        unit, values = function(plan)
        row = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        yield Figure(row, unit, values, goal=goal)

    measure.__name__ = function.__name__
    return measure
