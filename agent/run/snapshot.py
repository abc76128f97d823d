"""A source of snapshots: the kernel iterates over what there is, and a program writes a row for each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from agent.attach import iterators
from agent.limits import RunBudget
from agent.run.batch import Rows
from agent.run.clocked import Clock, Clocked, boot_ns, stamp
from agent.run.source import LOSSES
from gadget.catalog import Gadget
from gadget.schema import KEY_OFFSET, MOST_ENTRIES, MOST_TABLE_BYTES


class Snapshots(Clocked):
    """A gadget's object, loaded, with its iterators."""

    holds = False  # the rows of a snapshot are shown together

    def __init__(
        self,
        gadget: Gadget,
        settings: Mapping[str, str],
        containers_fd: int,
        cgroups: Path,
        budget: RunBudget,
        interval_ns: int,
    ) -> None:
        """Load gadget with parameter settings; interval_ns 0: one snapshot alone."""
        super().__init__(gadget, settings, budget, cgroups)
        self._size = gadget.schema.text_offset
        self._most = min(MOST_TABLE_BYTES // self._size, MOST_ENTRIES)
        self._lost = 0
        try:
            self._load(containers_fd, 2 * self._most * self._size)
            self.object.attach(replace(self._where, looks=False))
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
        for number in self.object.iterators():
            self._read(number, data)
        # one that takes longer than the interval must not take a processor for itself
        self._clock.rest(time.monotonic() - began)
        if data:
            rows = np.frombuffer(data, np.uint8).reshape(-1, self._size)
            rows[:, :KEY_OFFSET] = stamp(boot_ns())  # the header begins with it, too
            yield rows

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        """Also the rows that a snapshot had no room for."""
        totals, counts = super().losses()
        totals[LOSSES.index("table full")] += self._lost
        return totals, counts

    def detach(self) -> None:
        """No more snapshots are taken."""
        self._clock.end(last=True)
        super().detach()

    def _read(self, fd: int, data: bytearray) -> None:
        """Append the rows of one iterator, which is closed."""
        beyond = 0
        for part in iterators.read(fd):
            room = self._most * self._size - len(data)
            data += part[:room]
            beyond += len(part) - min(room, len(part))
        self._lost += beyond // self._size
