"""The table of flows in the kernel. It stays, with the programs that fill it, when this process ends.

In bpffs it is kept as agent/persistence.py says, with the maps flows, lost and made. An agent with another layout
begins anew.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time
from collections.abc import Mapping
from ctypes import byref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from agent.bpf import libbpf
from agent.bpf.attach import Where
from agent.bpf.bpf_object import BpfObject, Program
from agent.bpf.bpffs import open_pinned, remove
from agent.bpf.objects import read_object
from agent.containers.tracker import Tracker
from agent.persistence import PinnedFolder
from gadget import catalog
from gadget.errors import GadgetError

log = logging.getLogger(__name__)

_BATCH = 4096
_ENOENT, _ENOSPC = 2, 28
BPF_NOEXIST = 1  # linux/bpf.h
#: Maps of the object that stay, and what they are called in bpffs.
_PINS = {"flows": "flows", "flows_lost": "lost", "flows_made": "made"}

Keys = npt.NDArray[np.void]
Flows = npt.NDArray[np.void]


class FlowTable:
    """The flows of this machine.

    is_new: the table was made now, and is empty. adopted: the programs ran before, and have missed nothing.
    """

    def __init__(
        self, folder: Path, tracker: Tracker, entries: int, constants: Mapping[str, int] | None = None
    ) -> None:
        """Begin to record, or go on. Unsupported if another agent records; udp_problem says why UDP is left out.

        entries: flows kept at most, of 180 bytes each in the kernel. constants replace the program's own.
        """
        self.key, self.flow = catalog.record("flows", "flow_key"), catalog.record("flows", "flow")
        self.entries = entries
        #: how many flows are asked for at a time
        self.batch = _BATCH
        self.udp_problem = ""
        layout = [catalog.record_fields("flows", name) for name in ("flow_key", "flow")] + [entries]
        self._kept = PinnedFolder(folder, orjson.dumps(layout), _give_up)
        self.is_new = False
        elf = read_object("flows")
        with BpfObject(elf, "flows") as programs:
            self.adopted = self._adopt_or_attach(programs, elf, tracker, constants or {})
        self._flows, self._lost, self._made = (open_pinned(self._kept.folder / name) for name in _PINS.values())

    def close(self) -> None:
        """Let go. Recording goes on."""
        for fd in (self._flows, self._lost, self._made):
            os.close(fd)
        self._kept.close()

    def end(self) -> None:
        """Stop recording, and leave nothing in bpffs."""
        self._kept.end()

    def _adopt_or_attach(self, programs: BpfObject, elf: bytes, tracker: Tracker, constants: Mapping[str, int]) -> bool:
        """Make sure that the programs run. Returns whether they ran all the time."""
        programs.resize("flows", self.entries)
        found = self._kept.adopt(programs, elf, tracker, _PINS, [*_PINS, "containers"])
        if found.adopted:
            return True
        if found.why_not:
            log.warning("flows: begins anew, as %s", found.why_not)
        self.is_new = "flows" not in found.maps
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for name, value in {"began": began, **constants}.items():
            offset, size = catalog.setting("flows", name)
            programs.configure(offset, value.to_bytes(size, sys.byteorder))
        self._kept.load(programs)
        self._kept.attach(programs, partial(self._attach, programs, tracker.mount))
        return False

    def _attach(self, programs: BpfObject, cgroup: Path) -> None:
        try:
            programs.attach(Where(cgroup=cgroup))
        except GadgetError as error:  # CAP_NET_ADMIN: TCP does without
            self.udp_problem = str(error)
            log.warning("flows: UDP is not recorded: %s", error)

    def read(self) -> tuple[Keys, Flows]:
        """All flows, as two arrays of equal length. Flows that come while it reads may be missing."""
        position, following = ctypes.c_uint32(), ctypes.c_uint32()
        found, lookup = [(np.zeros(0, self.key), np.zeros(0, self.flow))], libbpf.library().bpf_map_lookup_batch
        begin: Any = None
        room, done = self.batch, 0
        while done != -_ENOENT:
            keys, flows, count = np.zeros(room, self.key), np.zeros(room, self.flow), ctypes.c_uint32(room)
            at = keys.ctypes.data, flows.ctypes.data
            done = lookup(self._flows, begin, byref(following), *at, byref(count), None)
            if done == -_ENOSPC and room < self.entries:  # a bucket of the kernel's table is given out whole
                room *= 2
                continue
            found.append((keys[: count.value], flows[: count.value]))
            if done != -_ENOENT:
                libbpf.check(done, "read the flows")
            position.value, begin = following.value, byref(position)
        return np.concatenate([keys for keys, _ in found]), np.concatenate([flows for _, flows in found])

    def remove(self, keys: Keys) -> None:
        """Forget flows."""
        delete = libbpf.library().bpf_map_delete_elem
        for at in range(len(keys)):
            delete(self._flows, keys[at : at + 1].ctypes.data)

    def add(self, keys: Keys, flows: Flows) -> None:
        """Put flows into the table that are not there yet."""
        update = libbpf.library().bpf_map_update_elem
        for at in range(len(keys)):
            update(self._flows, keys[at : at + 1].ctypes.data, flows[at : at + 1].ctypes.data, BPF_NOEXIST)

    def missed(self) -> int:
        """Times that a program did not run because it was running on that CPU already."""
        return self._kept.missed()

    def programs(self) -> list[Program]:
        """What the kernel says of the programs that record."""
        return self._kept.programs()

    def lost(self) -> int:
        """How many flows found no room so far."""
        return self._number(self._lost)

    def made(self) -> int:
        """How many flows the programs have put into the table so far."""
        return self._number(self._made)

    def _number(self, fd: int) -> int:
        value, key = ctypes.c_uint64(), ctypes.c_uint32(0)
        libbpf.check(libbpf.library().bpf_map_lookup_elem(fd, byref(key), byref(value)), "count of flows")
        return value.value


def _give_up(folder: Path) -> None:
    log.warning("flows: those of an agent with another layout are given up")
    remove(folder)


def oldest_of_the_greatest(keys: Keys, flows: Flows, keep: int) -> npt.NDArray[np.intp]:
    """Which flows to remove so that only keep flows stay: the oldest flows of the containers with most flows."""
    newest_first = np.lexsort((-flows["last"].astype(np.int64), keys["cgroup_id"]))
    owners = keys["cgroup_id"][newest_first]
    starts = np.r_[0, np.flatnonzero(owners[1:] != owners[:-1]) + 1]
    rank = np.arange(len(owners)) - np.repeat(starts, np.diff(np.r_[starts, len(owners)]))
    chosen: npt.NDArray[np.intp] = newest_first[np.argsort(-rank, kind="stable")[: max(len(keys) - keep, 0)]]
    return chosen
