"""The system calls of containers as the kernel notes them. Programs and table stay when this process ends.

In bpffs they are kept as agent/persistence.py says. An agent with another layout begins anew: what was seen before is
on disk.
"""

from __future__ import annotations

import ctypes
import logging
import os
from ctypes import byref
from pathlib import Path

import numpy as np
import orjson

from agent.bpf import libbpf
from agent.bpf.bpf_object import BpfObject, Program
from agent.bpf.bpffs import open_pinned, remove
from agent.bpf.objects import read_object
from agent.containers.tracker import Tracker
from agent.persistence import PinnedFolder
from gadget import catalog

log = logging.getLogger(__name__)

_NAME = "syscalls"
#: Maps of the object that stay, and what they are called in bpffs.
_PINS = {"seen": "seen", "seen_lost": "lost", "arriving": "arriving"}
_LOSSES = ("calls of containers beyond the limit", "runtimes taken for their containers")


class CallTable:
    """The table of this machine. is_new: it was made now. adopted: the programs ran before, and have missed nothing."""

    def __init__(self, folder: Path, tracker: Tracker, entries: int) -> None:
        """Begin to record, or go on. Unsupported if another agent records. entries: containers at most."""
        self._seen = catalog.record(_NAME, "seen")
        layout = [catalog.record_fields(_NAME, "seen"), entries]
        self._kept = PinnedFolder(folder, orjson.dumps(layout), _give_up)
        elf = read_object(_NAME)
        with BpfObject(elf, _NAME) as programs:
            programs.resize("seen", entries)
            found = self._kept.adopt(programs, elf, tracker, _PINS, [])
            self.is_new, self.adopted = "seen" not in found.maps, found.adopted
            if not found.adopted:
                if found.why_not:
                    log.warning("syscalls: begins anew, as %s", found.why_not)
                self._kept.load(programs)
                self._kept.attach(programs, programs.attach)
        self._fd, self._lost = (open_pinned(self._kept.folder / _PINS[name]) for name in ("seen", "seen_lost"))

    def cgroups(self) -> list[int]:
        """The ids of all cgroups in it."""
        library = libbpf.library()
        key, following = ctypes.c_uint64(), ctypes.c_uint64()
        found: dict[int, None] = {}
        previous = None
        while library.bpf_map_get_next_key(self._fd, previous, byref(following)) == 0 and following.value not in found:
            key.value = following.value  # one that comes again: the table changes as it is read
            found[key.value] = None
            previous = byref(key)
        return list(found)

    def look(self, cgroup_id: int) -> tuple[int, int, int]:
        """When a cgroup was first seen to call (CLOCK_BOOTTIME, ns), its calls, and its 32-bit calls, a bit each."""
        value = np.zeros(1, self._seen)
        libbpf.library().bpf_map_lookup_elem(self._fd, byref(ctypes.c_uint64(cgroup_id)), value.ctypes.data)
        halves = np.frombuffer(value["calls"].tobytes(), np.uint8).reshape(2, -1)
        packed = np.packbits(halves, axis=1, bitorder="little")
        calls, compat = (int.from_bytes(half.tobytes(), "little") for half in packed)
        return int(value["since"][0]), calls, compat

    def remove(self, cgroup_id: int) -> None:
        """Forget a cgroup."""
        libbpf.library().bpf_map_delete_elem(self._fd, byref(ctypes.c_uint64(cgroup_id)))

    def losses(self) -> dict[str, int]:
        """How much is not in the table, by reason."""
        found = {reason: self._number(at) for at, reason in enumerate(_LOSSES)}
        return {**found, "program busy": self._kept.missed()}

    def programs(self) -> list[Program]:
        """What the kernel says of the programs that record."""
        return self._kept.programs()

    def close(self) -> None:
        """Let go. Recording goes on."""
        for fd in (self._fd, self._lost):
            os.close(fd)
        self._kept.close()

    def end(self) -> None:
        """Stop recording, and leave nothing in bpffs."""
        self._kept.end()

    def _number(self, at: int) -> int:
        value, key = ctypes.c_uint64(), ctypes.c_uint32(at)
        libbpf.check(libbpf.library().bpf_map_lookup_elem(self._lost, byref(key), byref(value)), "count of calls")
        return value.value


def _give_up(folder: Path) -> None:
    log.warning("syscalls: what an agent with another layout had not saved is given up")
    remove(folder)
