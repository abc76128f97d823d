"""Functions that a program has made while it runs, as it tells of them itself: /tmp/perf-PID.map in its container.

Node.js (--perf-basic-prof), Java (perf-map-agent), Python from 3.12 on (-X perf) and others write such files.
"""

from __future__ import annotations

import numpy as np

from agent.profile.elf import MOST_NAME, decode

#: Bytes of a map that are read, and functions of it.
MOST_BYTES, MOST_FUNCTIONS = 16 << 20, 200_000
_FARTHEST = 1 << 64


class JitFunctions:
    """The functions of one map. A later line is about the same place as it is by now."""

    def __init__(self, data: bytes) -> None:
        """Read a map: "START SIZE NAME" a line, in hexadecimal. A line that makes no sense is passed over."""
        found: dict[int, tuple[int, bytes]] = {}
        for line in data.split(b"\n", MOST_FUNCTIONS)[:MOST_FUNCTIONS]:
            parts = line.split(None, 2)
            try:
                begin, size = int(parts[0], 16), int(parts[1], 16)
                name = parts[2][:MOST_NAME]
            except (ValueError, IndexError):
                continue
            if 0 < size < _FARTHEST and 0 <= begin < _FARTHEST - size:
                found.pop(begin, None)
                found[begin] = (size, name)
        begins = sorted(found)
        self._begins = np.array(begins, np.uint64)
        self._ends = [begin + found[begin][0] for begin in begins]
        self._names = [found[begin][1] for begin in begins]

    @property
    def bytes(self) -> int:
        """The memory that they take."""
        return 1024 + 150 * len(self._names) + sum(map(len, self._names))

    def find(self, address: int) -> str:
        """The name of the function that an address lies in; empty if none is known."""
        at = int(np.searchsorted(self._begins, np.uint64(address), side="right")) - 1
        return decode(self._names[at]) if at >= 0 and address < self._ends[at] else ""
