"""Readings, which a reader makes of files, as rows of a snapshot. See bpf/include/readings.h."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from agent.readers import Reading
from agent.run.batch import Rows
from agent.run.clocked import boot_ns, stamp
from agent.run.source import LOSSES
from gadget.schema import KEY_OFFSET, MOST_ENTRIES, MOST_TABLE_BYTES, Schema

#: A text is cut behind so many bytes; rows are as long as a multiple of STEP.
MOST_TEXT, STEP = 1024, 256
#: A look that takes longer is given up: what it looks at may be made without end, and a run may not stall.
WALK_SECONDS = 5.0


def count_lost(lost: Counter[int], totals: list[int], counts: dict[int, list[int]]) -> None:
    """Add to losses what there was no room for."""
    at = LOSSES.index("table full")
    totals[at] += lost.total()
    for cgroup_id, number in lost.items():
        counts.setdefault(cgroup_id, [0] * len(LOSSES))[at] += number


def collect(schema: Schema, readings: Iterable[Reading], lost: Counter[int], until: float) -> list[Rows]:
    """Readings as rows, those of one length together; lost counts those by cgroup that there is no room or time for.

    Any container has room while half of it is free. Beyond that each may have an eighth, as in bpf/include/table.h.
    What comes behind the first one that there is no time for is not read.
    """
    packer = Packer(schema)
    by_length: dict[int, list[bytes]] = {}
    room, count, taken = MOST_TABLE_BYTES, 0, Counter[int]()
    for reading in readings:
        if time.monotonic() > until:
            lost[reading.cgroup_id] += 1
            break
        if reading.lost:
            lost[reading.cgroup_id] += reading.lost
        if not reading.values:
            continue
        row = packer.pack(reading)
        size = len(row)
        fair = room > MOST_TABLE_BYTES // 2 or taken[reading.cgroup_id] + size <= MOST_TABLE_BYTES // 8
        if size > room or count == MOST_ENTRIES or not fair:
            lost[reading.cgroup_id] += 1
            continue
        room, count = room - size, count + 1
        taken[reading.cgroup_id] += size
        by_length.setdefault(len(row), []).append(row)
    now, made = stamp(boot_ns()), []
    for length, rows in by_length.items():
        made.append(np.frombuffer(bytearray().join(rows), np.uint8).reshape(-1, length))
        made[-1][:, :KEY_OFFSET] = now
    return made


class Packer:
    """Makes rows of readings."""

    def __init__(self, schema: Schema) -> None:
        """Of a schema."""
        self._texts = {item.name for item in schema.fields if "length" in {part.name for part in item.parts}}
        self._numbers = {
            item.name: {word: int(number) for number, word in item.values.items()} for item in schema.fields
        }
        self._empty: Any = np.zeros(1, schema.dtype(schema.text_offset))

    def pack(self, reading: Reading) -> bytes:
        """A row, with its texts behind it."""
        row: Any = self._empty.copy()[0]
        row["cgroup_id"], tail = reading.cgroup_id, bytearray()
        for name, value in reading.values.items():
            if name not in self._texts:
                row[name] = self._numbers[name][value] if isinstance(value, str) else value
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
