"""Counts the events of a standing run by some of their fields, for Prometheus; of tables, what they add up."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from agent.containers.identity import Container
from agent.run.batch import Packed
from agent.service import Number
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.kinds import HISTOGRAM
from gadget.metric import OF_CONTAINERS, Metric, read_metric
from gadget.rows import Table
from gadget.schema import TABLE
from gadget.series import Labels, SeriesTable
from gadget.text import escape

#: Series of one metric; events of further ones count as OTHER.
MOST_SERIES = 1000
OTHER = "other"
#: Bounds of a histogram are powers of two: 2^0, …, 2^63, and beyond.
BUCKETS = 64
#: The names of a container, as fields have them.
_NAMED: dict[str, Callable[[Container], str]] = {
    "namespace": attrgetter("namespace"), "pod": attrgetter("pod"), "container": attrgetter("name"),
}  # fmt: skip
assert {*_NAMED} == {*OF_CONTAINERS}


@dataclass
class _Series:
    """The events of one set of values: how many, the sum of their numbers, and how many are in each bucket."""

    count: int = 0
    sum: float = 0.0
    buckets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS + 1, np.int64))


class Counting:
    """The metrics of one run. take is for its thread; numbers for any."""

    def __init__(
        self,
        run: pb.Standing,
        gadget: Gadget,
        living: Callable[[], Iterable[Container]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count what run asks for. living tells which containers there are. UsageError if that cannot be counted."""
        self._lock = threading.Lock()
        self._living = living
        self._metrics = [_Counted(run.name, gadget, read_metric(gadget, text), clock) for text in run.metrics]

    def take(self, sections: Iterable[Packed], names: Mapping[int, pb.Container]) -> None:
        """Count the events of a batch, in the containers of names."""
        if not self._metrics:
            return
        with self._lock:
            for section in sections:
                for each in self._metrics:
                    each.take(section, names)

    def numbers(self) -> Iterator[Number]:
        """All series."""
        if not self._metrics:
            return iter(())
        living = [*self._living()]
        with self._lock:
            return iter([number for each in self._metrics for number in each.numbers(living)])


class _Counted:
    def __init__(self, run: str, gadget: Gadget, metric: Metric, clock: Callable[[], float]) -> None:
        self._gadget, self._metric = gadget, metric
        self._other = (OTHER,) * len(metric.by)
        self._series = SeriesTable(MOST_SERIES, _Series, clock, lambda _: self._other)
        self._whose = [at for at, name in enumerate(metric.by) if name in OF_CONTAINERS]
        by = f"_by_{'_'.join(metric.by)}" if metric.by else ""
        self._means = next((each.means for each in gadget.schema.shown if each.name == metric.number), None)
        unit, self._factor = (self._means and self._means.measure) or ("", 1.0)
        self._adds = gadget.source == TABLE and self._means is not HISTOGRAM
        end = f"_{unit}" * bool(unit and metric.number) + "_total" * (self._adds or not metric.number)
        self._name = re.sub(r"[^a-zA-Z0-9]", "_", f"run_{run}{f'_{metric.number}' * bool(metric.number)}{by}") + end
        what = f"{metric.number} of events" if metric.number else "Events"
        self._doc = f"{what[0].upper()}{what[1:]} of the standing run {run}."

    def take(self, section: Packed, names: Mapping[int, pb.Container]) -> None:
        rows = np.frombuffer(section.rows, self._gadget.schema.dtype(section.record_size), section.count)
        first, which = self._groups(rows)
        counts = np.bincount(which, minlength=len(first))
        series = [self._series.of(labels) for labels in self._labels(section, rows[first], names)]
        for each, number in zip(series, counts.tolist(), strict=True):
            each.count += number
        if self._means is HISTOGRAM:
            _merge(rows[self._metric.number], which, series)
        elif self._means:
            self._measure(rows[self._metric.number], which, series)

    def _groups(self, rows: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The first row of each set of values, and which set each row has."""
        wanted = list(dict.fromkeys("cgroup_id" if name in OF_CONTAINERS else name for name in self._metric.by))
        if not wanted:
            return np.zeros(1, np.intp), np.zeros(len(rows), np.intp)
        columns = [rows[name] for name in wanted]
        packed = np.concatenate(
            [np.ascontiguousarray(each).view(np.uint8).reshape(len(rows), -1) for each in columns], 1
        )
        keys = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}")[:, 0]
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        return first, which

    def _labels(
        self, section: Packed, rows: npt.NDArray[np.void], names: Mapping[int, pb.Container]
    ) -> Iterator[tuple[str, ...]]:
        """The values of rows as text."""
        known = {cgroup: (each.namespace, each.pod, each.container, each.id) for cgroup, each in names.items()}
        size = section.record_size
        chosen = Packed(size, len(rows), rows.view(f"V{size}").tobytes())
        table = Table(self._gadget.schema, chosen, known, "", 0)  # type: ignore[arg-type]
        columns: list[Sequence[str]] = []
        fields = {each.name: each for each in self._gadget.schema.shown}
        for name in self._metric.by:
            values = table.column(name)
            text = fields[name].means.text(fields[name]) if name in fields else str
            columns.append([escape(text(value)) for value in values])
        yield from zip(*columns, strict=True) if columns else [()] * len(rows)

    def _measure(self, values: npt.NDArray[np.integer], which: npt.NDArray[np.intp], series: Sequence[_Series]) -> None:
        """Add a number of each row to its series; one that is not known has no bucket."""
        assert self._means
        known = values != self._means.unknown if self._means.unknown is not None else np.ones(len(values), bool)
        numbers, at = np.maximum(values[known], 0).astype(np.float64), which[known]
        buckets = np.ceil(np.log2(np.maximum(numbers, 1))).astype(np.intp)
        counts = np.bincount(at * (BUCKETS + 1) + buckets, minlength=len(series) * (BUCKETS + 1))
        sums = np.bincount(at, numbers, minlength=len(series))
        for each, own, number in zip(series, counts.reshape(-1, BUCKETS + 1), sums.tolist(), strict=True):
            each.buckets += own
            each.sum += number

    def numbers(self, living: Sequence[Container]) -> Iterator[Number]:
        of = [self._metric.by[at] for at in self._whose]
        there = {tuple(escape(_NAMED[name](each)) for name in of) for each in living}

        def lives(labels: Labels) -> bool | None:
            who = tuple(labels[at] for at in self._whose)
            return who in there if any(who) and labels != self._other else None

        for labels, each in self._series.shown(lives):
            named = dict(zip(self._metric.by, labels, strict=True))
            if self._means:
                buckets = () if self._adds else self._buckets(each)
                yield Number(self._name, self._doc, each.sum * self._factor, named, buckets)
            else:
                yield Number(self._name, self._doc, each.count, named)

    def _buckets(self, series: _Series) -> tuple[tuple[str, float], ...]:
        """Upper bounds with how many are below, from the first bucket that has any to the last."""
        used = np.flatnonzero(series.buckets)
        below = np.cumsum(series.buckets).tolist()
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        bounds = tuple((repr(2.0**at * self._factor), float(below[at])) for at in range(first, last + 1))
        return (*bounds, ("+Inf", float(below[-1])))


def _merge(rows: npt.NDArray[np.uint64], which: npt.NDArray[np.intp], series: Sequence[_Series]) -> None:
    """Add histograms, each a row of counts and a sum, to their series."""
    for row, at in zip(rows, which.tolist(), strict=True):
        counts = row[:-1].astype(np.int64)
        series[at].buckets[: len(counts) - 1] += counts[:-1]
        series[at].buckets[-1] += counts[-1]  # these are longer than any bound says
        series[at].sum += float(row[-1])
