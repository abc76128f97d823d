"""A source of readings: rows that the agent reads from files, once or at an interval. See bpf/include/readings.h."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.containers.tracker import Cgroup
from agent.limits import RunBudget
from agent.readers import Reader, Reading
from agent.run.batch import Rows
from agent.run.clocked import Clock, Clocked, boot_ns, stamp
from agent.run.snapshot import WALK_SECONDS
from agent.run.source import LOSSES
from gadget.catalog import Gadget
from gadget.schema import KEY_OFFSET, MOST_ENTRIES, MOST_TABLE_BYTES

#: A text is cut behind so many bytes; rows are as long as a multiple of STEP.
MOST_TEXT, STEP = 1024, 256


class Readings(Clocked):
    """A gadget's object, which has no programs, and what reads its rows."""

    holds = False  # the rows of a table are shown together

    def __init__(
        self,
        gadget: Gadget,
        containers_fd: int,
        cgroups: Path,
        budget: RunBudget,
        interval_ns: int,
        reader: Reader,
        containers: Callable[[], Sequence[Cgroup]],
    ) -> None:
        """Of the containers that a function returns; interval_ns 0: read once."""
        super().__init__(gadget, {}, budget, cgroups)
        self._reader, self._containers = reader, containers
        self._texts = [item.name for item in gadget.schema.fields if "length" in {part.name for part in item.parts}]
        self._lost: Counter[int] = Counter()
        try:
            self.load(containers_fd, 3 * MOST_TABLE_BYTES)
        except BaseException:
            self.close()
            raise
        self._clock = Clock(interval_ns, at_once=True)

    def read(self) -> Iterator[Rows]:
        """The rows of a table, if one is to be read."""
        self.whole = None
        if not self._clock.is_due:
            return
        began = time.monotonic()
        self.whole = self._clock.next()
        by_length: dict[int, list[bytes]] = {}
        room, count = MOST_TABLE_BYTES, 0
        for reading in self._reader.read(self._containers()):
            if reading.lost:
                self._lost[reading.cgroup_id] += reading.lost
                continue
            row = self._packed(reading)
            if len(row) > room or count == MOST_ENTRIES or time.monotonic() > began + WALK_SECONDS:
                self._lost[reading.cgroup_id] += 1
                continue
            room, count = room - len(row), count + 1
            by_length.setdefault(len(row), []).append(row)
        self._clock.rest(time.monotonic() - began)
        now = stamp(boot_ns())
        for length, rows in by_length.items():
            made = np.frombuffer(bytearray().join(rows), np.uint8).reshape(-1, length)
            made[:, :KEY_OFFSET] = now
            yield made

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        """The rows that there was no room for."""
        at = LOSSES.index("table full")
        totals, counts = super().losses()
        totals[at] += self._lost.total()
        for cgroup_id, lost in self._lost.items():
            counts.setdefault(cgroup_id, [0] * len(LOSSES))[at] += lost
        return totals, counts

    def detach(self) -> None:
        """Nothing more is read."""
        self._clock.end(last=True)
        super().detach()

    def _packed(self, reading: Reading) -> bytes:
        """A row, with its texts behind it."""
        schema = self.gadget.schema
        row: Any = np.zeros(1, schema.dtype(schema.text_offset))[0]
        row["cgroup_id"], tail = reading.cgroup_id, bytearray()
        for name, value in reading.values.items():
            if name not in self._texts:
                row[name] = value
                continue
            kept = value if len(value) <= MOST_TEXT else value[: MOST_TEXT - 3] + "…".encode()
            row[name]["offset"], row[name]["length"] = len(tail), len(kept)
            if "as_given" in row[name].dtype.names:
                row[name]["as_given"] = True
            tail += kept
        if not self._texts:
            return bytes(row.tobytes())
        row["text_length"] = len(tail)
        return bytes(row.tobytes()) + bytes(tail).ljust(-(-len(tail) // STEP) * STEP, b"\0")
