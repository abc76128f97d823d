"""A source of snapshots: the kernel iterates over what there is, and a program writes a row for each; or a reader does.

A program may also walk by itself, a turn for each element of a map, with rows of any length: see bpf/include/walk.h.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from agent.bpf.attach import iterators
from agent.readers import Reading
from agent.run.batch import Rows
from agent.run.clocked import Clock, Clocked, boot_ns, stamp
from agent.run.readings import WALK_SECONDS, collect, count_lost
from agent.run.source import LOSSES, LoadPlan
from gadget.schema import KEY_OFFSET, MOST_ENTRIES, MOST_TABLE_BYTES

#: The place of a walk that is over: WALK_END in bpf/include/walk.h.
WALK_END = (1 << 64) - 1


class Snapshots(Clocked):
    """A gadget's object, loaded, with its iterators."""

    holds = False  # the rows of a snapshot are shown together
    _more: Callable[[], Iterable[Reading]] | None = None

    def __init__(self, plan: LoadPlan, interval_ns: int, more: Callable[[], Iterable[Reading]] | None = None) -> None:
        """Load what plan says; interval_ns 0: one snapshot alone. more reads what no program sees.

        That is all there is of a gadget of readings, whose object has no programs: see bpf/include/readings.h.
        """
        super().__init__(plan)
        self._walks = self.object.has_map("place")
        #: of what a program writes at once: a row, or a slot of one
        self._size = self.object.value_size("slot") if self._walks else plan.gadget.schema.text_offset
        self._most = min(MOST_TABLE_BYTES // self._size, MOST_ENTRIES)
        self._lost, self._more, self._lost_more = 0, more, Counter[int]()
        try:
            self.load(3 * (MOST_TABLE_BYTES if more else self._most * self._size))
            turns = self.object.map_fd("turns") if self._walks else -1
            self.object.attach(replace(self._where, looks=False, turns=turns))
        except BaseException:
            self.close()
            raise
        self._clock = Clock(interval_ns, at_once=True)

    def read(self) -> Iterator[Rows]:
        """The rows of a snapshot, if one is to be taken."""
        self.whole = None
        if not self._clock.is_due:
            return
        began = time.monotonic()
        self.whole = self._clock.next()
        data = bytearray()
        if self._walks:
            self._walk(began + WALK_SECONDS, data)
        else:
            self._iterate(data)
        others: list[Rows] = []
        if self._more:
            others = collect(self.gadget.schema, self._more(), self._lost_more, began + WALK_SECONDS)
        # one that takes longer than the interval must not take a processor for itself
        self._clock.rest(time.monotonic() - began)
        if data:
            rows = self._slots(data)
            now = stamp(boot_ns())
            for each in joined(rows) if self._walks else [rows]:
                each[:, :KEY_OFFSET] = now  # the header begins with it, too
                yield each
        yield from others

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        """Also the rows that a snapshot had no room for."""
        totals, counts = super().losses()
        totals[LOSSES.index("table full")] += self._lost
        count_lost(self._lost_more, totals, counts)
        return totals, counts

    def detach(self) -> None:
        """No more snapshots are taken."""
        self._clock.end(last=True)
        super().detach()

    def _walk(self, until: float, data: bytearray) -> None:
        """Append what a walk writes, whose iterators are begun anew until it is over."""
        self.object.set_array_value("place", 0, 0)
        while self.object.array_value("place", 0) != WALK_END:
            if time.monotonic() > until:
                self._lost += 1
                return
            self._iterate(data)

    def _iterate(self, data: bytearray) -> None:
        """Append the rows of all iterators."""
        for fd in self.object.iterators():
            for part in iterators.read(fd):
                if len(data) + len(part) <= self._most * self._size:
                    data += part
                else:
                    self._lost += len(_first_slots(self._slots(part))) if self._walks else len(part) // self._size

    def _slots(self, data: bytes | bytearray) -> Rows:
        return np.frombuffer(data, np.uint8).reshape(-1, self._size)


def _first_slots(slots: Rows) -> npt.NDArray[np.intp]:
    """Where rows begin: with 0 where the time will be, and further slots with their number."""
    return np.flatnonzero(slots[:, :KEY_OFFSET].copy().view(np.uint64)[:, 0] == 0)


def joined(slots: Rows) -> Iterator[Rows]:
    """Rows of the slots that a walk has written, those of as many slots together."""
    first = _first_slots(slots)
    counts = np.diff(first, append=len(slots))
    for count in np.unique(counts).tolist():
        at = first[counts == count]
        yield np.hstack([slots[at], *(slots[at + more, KEY_OFFSET:] for more in range(1, count))])
