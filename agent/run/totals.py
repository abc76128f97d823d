"""Rows of intervals added up, key by key."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agent.run.batch import Rows
from agent.run.clocked import stamp
from gadget.kinds import Total
from gadget.schema import KEY_OFFSET, Schema, value_offset

#: What adding takes for each key at most: so many rows at a time, and numbers for sorting.
COPIES, SORT_BYTES = 11, 128


class Totals:
    """All keys so far, each with its values since the beginning."""

    def __init__(self, schema: Schema, key_size: int, size: int, most: int) -> None:
        """Of rows of size bytes in a schema, most keys at most. lost is how many rows found no room."""
        self._key = slice(KEY_OFFSET, KEY_OFFSET + key_size)
        self._dtype = schema.dtype(size)
        values = [item for item in schema.fields if item.offset >= value_offset(key_size)]
        self._added = {item.name: item.means.each.unknown for item in values if item.is_added}
        self._greatest = [item.name for item in values if item.means.total is Total.GREATEST]
        self._rows = np.zeros((0, size), np.uint8)
        self._most = most
        self.lost = 0

    @staticmethod
    def most_bytes(entries: int, size: int) -> int:
        """What the totals of so many keys, in rows of size bytes, take at most, also while they are added to."""
        return entries * (COPIES * size + SORT_BYTES)

    def add(self, rows: Rows, now: int) -> Rows:
        """Add the rows of an interval, each of another key. Returns all totals, as of now."""
        if len(rows):
            known = np.isin(self._keys(rows), self._keys(self._rows))
            fits = known | (np.cumsum(~known) <= self._most - len(self._rows))
            self.lost += int((~fits).sum())
            self._merge(rows[fits])
        self._rows[:, :KEY_OFFSET] = stamp(now)
        return self._rows.copy()

    def _keys(self, rows: Rows) -> npt.NDArray[np.void]:
        keys = np.ascontiguousarray(rows[:, self._key])
        return keys.view(f"V{keys.shape[1]}")[:, 0]

    def _merge(self, rows: Rows) -> None:
        both = np.concatenate([rows, self._rows])
        _, first, place = np.unique(self._keys(both), return_index=True, return_inverse=True)
        merged = both[first]  # the first of equal keys: the latest
        values, every = merged.view(self._dtype)[:, 0], both.view(self._dtype)[:, 0]
        for name, unknown in self._added.items():
            values[name] = _sums(every[name], place, len(merged), unknown)
        for name in self._greatest:
            np.maximum.at(values[name], place, every[name])
        self._rows = merged


def _sums(values: npt.NDArray[Any], place: npt.NDArray[np.intp], count: int, unknown: int | None) -> npt.NDArray[Any]:
    """The sum of the values of each place; of those that are known, if there are such."""
    sums = np.zeros((count, *values.shape[1:]), values.dtype)
    if unknown is None:
        np.add.at(sums, place, values)
        return sums
    known = values != unknown
    np.add.at(sums, place, np.where(known, values, 0))
    some = np.zeros(sums.shape, bool)
    np.logical_or.at(some, place, known)
    return np.where(some, sums, np.array(unknown, values.dtype))
