"""Finds rows of a table by the bytes that make each one what it is: those of a whole batch at once.

The sum of a key's words leads to a row, whose key is compared. What no sum leads to is looked for key by key: what is
new, what is long, and what somebody chose so that it has the sum of something else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]

#: Words of a key that are summed and compared: those of a short record with all its text are fewer.
MOST_WORDS = 48
#: Rows that there is room for at first; slots for each; and how many slots are looked at for a sum.
_ROWS, _SLOTS, _LOOKS = 1024, 4, 8
_LEAST = _ROWS * (8 + 8 + 4 * _SLOTS)
#: Keys that are compared at a time, so that memory does not grow with a batch.
_AT_ONCE = 1024
#: The first word of a key that no event has; a recording that somebody made up may.
_NONE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class Keys:
    """The keys of the rows of a table. The row of an id is one further on here: an empty slot leads to the first."""

    def __init__(self) -> None:
        """None yet."""
        # numpy.random, which nothing else needs, would take 2.7 MiB
        self._odd = np.frombuffer(os.urandom(8 * MOST_WORDS), np.uint64) | np.uint64(1)
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._keys, self._sums = np.full((_ROWS, 1), _NONE), np.zeros(_ROWS, np.uint64)
        self._slots = np.zeros(_ROWS * _SLOTS, np.uint32)
        self._others: dict[bytes, int] = {}  # ids of what no sum leads to

    def ids(self, keys: Words, make: Callable[[int], int]) -> Ids:
        """The ids of rows by their keys. make gives the id of a new row."""
        if keys.shape[1] <= MOST_WORDS:
            return self._ids(keys, make)
        is_long, ids = keys[:, MOST_WORDS:].any(axis=1), np.empty(len(keys), np.uint32)
        short, long = np.flatnonzero(~is_long), np.flatnonzero(is_long)
        ids[short] = self._ids(keys[short, :MOST_WORDS], lambda place: make(int(short[place])))
        for _ in self._look_for(keys, long, make, ids):
            pass  # it stays among the others
        return ids

    @property
    def size(self) -> int:
        """The bytes that keys take beyond those that there is room for at first: each as much as the longest."""
        return sum(each.nbytes for each in (self._keys, self._sums, self._slots)) - _LEAST

    def forget(self, number: int) -> None:
        """Forget the key of the row of an id."""
        row = number + 1
        self._others.pop(_text(self._keys[row]), None)
        slots = self._slots_of(self._sums[row : row + 1], np.arange(_LOOKS))
        self._slots[slots[self._slots[slots] == row]] = 0  # the same key may come again, and again
        self._keys[row, 0], self._sums[row] = _NONE, ~self._sums[row]

    def _ids(self, keys: Words, make: Callable[[int], int]) -> Ids:
        self._keys = _filled_up(self._keys, (len(self._keys), max(keys.shape[1], self._keys.shape[1])))
        keys = _filled_up(keys, (len(keys), self._keys.shape[1]))
        sums = keys @ self._odd[: keys.shape[1]]
        rows = self._rows(sums)
        ids, rest = rows - np.uint32(1), list[Places]()
        for at in range(0, len(keys), _AT_ONCE):
            led_to = rows[at : at + _AT_ONCE]
            found = self._keys.take(led_to, axis=0) == keys[at : at + _AT_ONCE]
            if not (found.all() and led_to.all()):
                rest.append(at + np.flatnonzero(~found.all(axis=1) | (led_to == 0)))
        if rest:
            new = list[int]()
            try:
                new.extend(self._look_for(keys, np.concatenate(rest), make, ids))
            finally:
                if new:
                    self._keep(keys[new], sums[new])
        return ids

    def _look_for(self, keys: Words, places: Places, make: Callable[[int], int], ids: Ids) -> Iterator[int]:
        """Fill in the ids of rows to which no sum leads. Yields the places of those that were made."""
        for place in places.tolist():
            key = _text(keys[place])
            number = self._others.get(key)
            if number is None:
                number = self._others[key] = make(place)
                yield place
            ids[place] = number

    def _keep(self, keys: Words, sums: Words) -> None:
        """Let sums lead to new rows."""
        texts = [_text(key) for key in keys]
        rows = np.array([self._others[text] + 1 for text in texts], np.uint32)
        had, most = len(self._sums), int(rows.max()) + 1
        if most > had:
            room = 1 << most.bit_length()
            self._keys = _filled_up(self._keys, (room, self._keys.shape[1]))
            self._keys[had:, 0] = _NONE
            self._sums = np.concatenate([self._sums, np.zeros(room - had, np.uint64)])
            self._slots = np.zeros(room * _SLOTS, np.uint32)
        self._keys[rows], self._sums[rows] = keys, sums
        placed = np.flatnonzero(self._keys[:, 0] != _NONE).astype(np.uint32) if most > had else rows
        self._place(placed)
        is_led_to = self._rows(self._sums[placed]) == placed
        for text in texts:
            del self._others[text]
        for row in placed[~is_led_to].tolist():
            self._others[_text(self._keys[row])] = row - 1

    def _place(self, rows: Ids) -> None:
        """Give rows slots, as far as there is one near."""
        for look in range(_LOOKS):
            slots = self._slots_of(self._sums[rows], look)
            free = self._slots[slots] == 0
            self._slots[slots[free]] = rows[free]
            rows = rows[self._slots[slots] != rows]

    def _rows(self, sums: Words) -> Ids:
        """The rows that sums lead to, the first of all if there is none."""
        rows = self._slots.take(self._slots_of(sums, 0))
        rest = np.flatnonzero(self._sums.take(rows) != sums)
        for look in range(1, _LOOKS):
            if not len(rest):
                return rows
            rows[rest] = found = self._slots.take(self._slots_of(sums[rest], look))
            rest = rest[self._sums.take(found) != sums[rest]]
        rows[rest] = 0
        return rows

    def _slots_of(self, sums: Words, look: int | Places) -> Places:
        bits = len(self._slots).bit_length() - 1
        return (sums >> np.uint64(64 - bits)).astype(np.intp) + look & (1 << bits) - 1


def _text(key: Words) -> bytes:
    """Its bytes without what it was filled up with: equal ones may come in batches of several widths."""
    return key.tobytes().rstrip(b"\0")


def _filled_up(array: Words, shape: Sequence[int]) -> Words:
    if array.shape == shape:
        return array
    filled = np.zeros(shape, np.uint64)
    filled[: len(array), : array.shape[1]] = array
    return filled
