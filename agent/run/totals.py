"""Rows of intervals added up, key by key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agent.run.batch import Rows
from agent.run.clocked import stamp
from gadget.schema import KEY_OFFSET, Schema, value_offset

#: Kinds of values that are added up. Of others the latest counts.
ADDED = ("int", "duration", "size")


class Totals:
    """All keys so far, each with its values since the beginning."""

    def __init__(self, schema: Schema, key_size: int, most: int) -> None:
        """Of rows in a schema, most keys at most. lost is how many rows found no room."""
        self._key = slice(KEY_OFFSET, KEY_OFFSET + key_size)
        self._dtype = schema.dtype(schema.text_offset)
        first = value_offset(key_size)
        self._added = [item.name for item in schema.fields if item.offset >= first and item.kind in ADDED]
        self._rows = np.zeros((0, schema.text_offset), np.uint8)
        self._most = most
        self.lost = 0

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
        for name in self._added:
            sums = np.zeros_like(values[name])
            np.add.at(sums, place, every[name])
            values[name] = sums
        self._rows = merged
