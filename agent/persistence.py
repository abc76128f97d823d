"""What a service keeps in bpffs, so that its programs go on when this process ends, and the next agent finds them.

In bpffs: ROOT/LAYOUT/MAP and ROOT/LAYOUT/programs-VERSION/ (the links). LAYOUT and VERSION are hashes: an agent with
the same programs adopts them, one with other programs of the same layout replaces them and keeps the maps, and one with
another layout saves what is there or gives it up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.bpf.bpf_object import BpfObject, Program, missed_by, programs_in, why_not_attached
from agent.bpf.bpffs import digest, lock, remove
from agent.containers.tracker import Tracker

_PROGRAMS = "programs-"


@dataclass(frozen=True)
class Adopted:
    """What an earlier agent left. maps: those that are in use again. adopted: all programs ran on, with these maps.

    why_not says what kept programs of this version from being adopted; empty if there were none.
    """

    maps: Collection[str]
    adopted: bool
    why_not: str


class PinnedFolder:
    """The folder of one service. Its methods are called in their order here: adopt, load, attach."""

    def __init__(self, root: Path, layout: bytes, give_up: Callable[[Path], None]) -> None:
        """Hold root for this process. Unsupported if another agent does, also one of another layout.

        give_up removes the folder of another layout, and may save first what is in it.
        """
        self.root = root
        self.folder = root / digest(layout)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._links: Path  # since adopt
        self._pins: dict[str, Path] = {}  # of the maps that load makes
        self._locked = lock(root)
        for other in root.iterdir():
            if other != self.folder:
                give_up(other)

    def adopt(
        self, programs: BpfObject, version: bytes, tracker: Tracker, maps: Mapping[str, str], of_all: Collection[str]
    ) -> Adopted:
        """Use the maps and programs that an earlier agent left, as far as they fit. Call it before load.

        version: all that makes programs what they are. maps: the names of maps in the object, and of their pins.
        of_all: those that every program uses; the other ones, and the tracker's map, are used by one or more.
        """
        self._links = self.folder / f"{_PROGRAMS}{digest(version + tracker.layout.encode())}"
        programs.share("containers", tracker.map_fd)
        pins = {name: self.folder / pin for name, pin in maps.items()}
        found = programs.share_pinned(pins)
        self._pins = {name: path for name, path in pins.items() if name not in found}
        if not self._links.exists():
            return Adopted(found.keys(), False, "")
        every = {**found, "containers": tracker.map_fd}
        used = [fd for name, fd in every.items() if name in of_all]
        why_not = why_not_attached(programs, self._links, used, every.values())
        why_not = why_not or ("a map is missing" if self._pins else "")
        return Adopted(found.keys(), not why_not, why_not)

    def load(self, programs: BpfObject) -> None:
        """Load programs that could not be adopted, and pin maps that no earlier agent left."""
        programs.load()
        for name, path in self._pins.items():
            programs.pin(name, path)

    def attach(self, programs: BpfObject, attach: Callable[[], None]) -> None:
        """Replace older programs. Missing events for a moment is better than counting them twice."""
        for older in self.folder.glob(f"{_PROGRAMS}*"):
            remove(older)
        attach()
        programs.pin_links(self._links)

    def missed(self) -> int:
        """How often a program did not run because it was already running on that CPU."""
        return missed_by(self.folder)

    def programs(self) -> list[Program]:
        """What the kernel says of the programs."""
        return programs_in(self.folder)

    def close(self) -> None:
        """Let go. The programs go on."""
        os.close(self._locked)

    def end(self) -> None:
        """End the programs, and leave nothing in bpffs."""
        remove(self.root)


def stop_programs(folder: Path) -> None:
    """End the programs in the folder of another layout, whose maps stay."""
    for links in folder.glob(f"{_PROGRAMS}*"):
        remove(links)
