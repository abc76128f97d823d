"""The parts of a process's memory that hold code, and the files that they come from: /proc/PID/maps."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

#: Bytes of a list of mappings that are read: a process may have 65,530 of them (vm.max_map_count).
MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class MappedPart:
    """A part of memory that may be run. inode 0: of no file. name is the path of its file, or what the kernel says."""

    start: int
    end: int
    offset: int
    device: str
    inode: int
    name: str

    @property
    def is_anonymous(self) -> bool:
        """Whether the program made this code itself, as a JIT compiler does."""
        return not self.inode and (not self.name or self.name.startswith(("[heap", "[anon", "[stack")))

    @property
    def range(self) -> str:
        """Its name in /proc/PID/map_files."""
        return f"{self.start:x}-{self.end:x}"


class Mappings:
    """The mappings of a process at some time."""

    def __init__(self, text: str) -> None:
        """Read what /proc/PID/maps says. A line that makes no sense is passed over."""
        found = []
        for line in text.splitlines():
            parts = line.split(None, 5)
            if len(parts) < 5 or "x" not in parts[1]:
                continue
            try:
                start, end = (int(each, 16) for each in parts[0].split("-"))
                found.append(
                    MappedPart(start, end, int(parts[2], 16), parts[3], int(parts[4]), parts[5] if parts[5:] else "")
                )
            except ValueError:
                continue
        self.all = tuple(sorted(found, key=lambda each: each.start))
        self._starts = [each.start for each in self.all]

    def find(self, address: int) -> MappedPart | None:
        """The mapping that an address lies in."""
        at = bisect_right(self._starts, address) - 1
        return self.all[at] if at >= 0 and address < self.all[at].end else None
