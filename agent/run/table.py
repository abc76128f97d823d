"""A source of tables: what a gadget's programs have counted in each interval. See bpf/include/table.h."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from ctypes import byref
from errno import ENOENT

import numpy as np

from agent.bpf import libbpf
from agent.bpf.bpf_object import ENTRY_BYTES
from agent.run.batch import Rows, TableInfo
from agent.run.clocked import Clock, Clocked, boot_ns, stamp
from agent.run.source import LOSSES, TABLES, LoadPlan
from agent.run.totals import Totals
from gadget.schema import KEY_OFFSET, value_offset


def most_bytes(entries: int, size: int, *, totals: bool) -> int:
    """What a gadget with so many rows takes: two tables in the kernel, what is read of one, what is sent, totals."""
    return entries * (2 * (size + ENTRY_BYTES) + 2 * size) + (Totals.most_bytes(entries, size) if totals else 0)


class Tables(Clocked):
    """A gadget's object, loaded and attached, and its two tables. Rows are of one interval, or totals so far."""

    holds = False  # the rows of a table are shown together

    def __init__(self, plan: LoadPlan, interval_ns: int, *, totals: bool = False) -> None:
        """Load what plan says, and begin the first interval."""
        self._keys = self._values = np.empty((0, 0), np.uint8)
        self._totals: Totals | None = None
        super().__init__(plan)
        self.repeats = totals
        try:
            entries = self.object.resize(TABLES[0], None)
            key_size, value_size = self.object.key_size(TABLES[0]), self.object.value_size(TABLES[0])
            size = value_offset(key_size) + value_size
            self.load(most_bytes(entries, size, totals=totals))
            self._fds = [self.object.map_fd(name) for name in TABLES]
            self._keys = np.zeros((entries, key_size), np.uint8)
            self._values = np.zeros((entries, value_size), np.uint8)
            self._totals = Totals(plan.gadget.schema, key_size, size, entries) if totals else None
            self._lib = libbpf.library()
            self.object.attach(self._where)
        except BaseException:
            self.close()
            raise
        self._clock, self._detached, self._cut = Clock(interval_ns, at_once=False), False, False

    def read(self) -> Iterator[Rows]:
        """The rows of an interval that has ended."""
        self.whole = None
        if not self._clock.is_due:
            return
        ended = self._exchange()
        self.whole = self._clock.next()
        if self._detached:
            self._clock.end(last=True)
            self.whole = self.whole._replace(is_cut=self._cut)
        now = boot_ns()
        rows = self._rows(self._lib.bpf_map_lookup_and_delete_batch, ended, now)
        if self._totals:
            rows = self._totals.add(rows, now)
        if len(rows):
            yield rows

    def so_far(self) -> tuple[Rows, TableInfo]:
        """What programs have counted in the interval up to now. They go on, and it comes again with the whole table."""
        return self._rows(self._lib.bpf_map_lookup_batch, self._fds[0], boot_ns()), self._clock.so_far()

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        """Also the rows that the totals had no room for."""
        totals, counts = super().losses()
        if self._totals:
            totals[LOSSES.index("table full")] += self._totals.lost
        return totals, counts

    def detach(self) -> None:
        """Stop the programs. The last interval ends then."""
        super().detach()
        if not self._detached:
            self._detached = True
            self._cut = not self._clock.is_due and not self.repeats  # totals are about more than an interval
            self._clock.end()

    def close(self) -> None:
        """Detach and free everything. What is large is freed at once, whoever still refers to the run."""
        super().close()
        self._keys = self._values = np.empty((0, 0), np.uint8)
        self._totals = None

    def _exchange(self) -> int:
        """Let the programs use the other table. Returns the one that they used, which none of them uses any more."""
        ended, following = self._fds
        key, value = ctypes.c_uint32(0), ctypes.c_uint32(following)
        interval = (ctypes.c_uint64 * 2)(self._clock.number + 1, 0)
        self._lib.bpf_map_update_elem(self.object.map_fd("interval"), byref(key), byref(interval), 0)
        # the kernel waits for programs before it returns: maybe_wait_bpf_programs, commit 1ae80cf31938 (4.20)
        changed = self._lib.bpf_map_update_elem(self.object.map_fd("rows"), byref(key), byref(value), 0)
        libbpf.check(changed, "exchange the tables")
        self._fds.reverse()
        return ended

    def _rows(self, read: Callable[..., int], table: int, now: int) -> Rows:
        """The rows of a table as of now, by one of libbpf's functions that read many at a time."""
        position, count = ctypes.c_uint32(), ctypes.c_uint32(len(self._keys))
        into = self._keys.ctypes.data, self._values.ctypes.data
        done = read(table, None, byref(position), *into, byref(count), None)
        if done != -ENOENT:  # as many as the table may have: the end is reached
            libbpf.check(done, "read a table")
        key_size, at = self._keys.shape[1], value_offset(self._keys.shape[1])
        rows = np.zeros((count.value, at + self._values.shape[1]), np.uint8)
        rows[:, :KEY_OFFSET] = stamp(now)
        rows[:, KEY_OFFSET : KEY_OFFSET + key_size] = self._keys[: count.value]
        rows[:, at:] = self._values[: count.value]
        return rows
