"""The table of flows in the kernel. It stays, with the programs that fill it, when this process ends.

In bpffs: FOLDER/LAYOUT/{flows,lost,made} and FOLDER/LAYOUT/programs-OBJECT/ (the links). LAYOUT and OBJECT are hashes:
an agent with the same program adopts it, one with another program of the same layout replaces it and keeps the table,
and one with another layout begins anew.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time
from collections.abc import Mapping
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from agent import libbpf
from agent.bpf_object import BpfObject, Program, missed_by, programs_in, why_not_attached
from agent.bpffs import digest, lock, open_pinned, remove
from agent.objects import read_object
from agent.tracker import Tracker
from gadget import catalog
from gadget.errors import GadgetError

log = logging.getLogger(__name__)

#: Flows kept at most. 180 bytes each in the kernel: 6 MB.
ENTRIES = 32_768
_BATCH = 4096
_ENOENT, _ENOSPC = 2, 28
BPF_NOEXIST = 1  # linux/bpf.h

Keys = npt.NDArray[np.void]
Flows = npt.NDArray[np.void]


class Table:
    """The flows of this machine.

    is_new: the table was made now, and is empty. adopted: the programs ran before, and have missed nothing.
    """

    def __init__(
        self, folder: Path, tracker: Tracker, entries: int = ENTRIES, settings: Mapping[str, int] | None = None
    ) -> None:
        """Begin to record, or go on. Unsupported if another agent records; udp_problem says why UDP is left out.

        settings replace the program's own.
        """
        self.key, self.flow = catalog.record("flows", "flow_key"), catalog.record("flows", "flow")
        self.entries = entries
        self.udp_problem = ""
        layout = digest(
            orjson.dumps([catalog.record_fields("flows", name) for name in ("flow_key", "flow")] + [entries])
        )
        self._folder = folder / layout
        self._folder.mkdir(parents=True, exist_ok=True)
        self._locked = lock(folder)
        for other in folder.iterdir():
            if other != self._folder:
                log.warning("flows: those of an agent with another layout are given up")
                remove(other)
        self.is_new = False
        elf = read_object("flows")
        links = self._folder / f"programs-{digest(elf + tracker.layout.encode())}"
        with BpfObject(elf, "flows") as programs:
            self.adopted = self._adopt_or_attach(programs, links, tracker, settings or {})
        self._flows, self._lost, self._made = (open_pinned(self._folder / name) for name in ("flows", "lost", "made"))

    def close(self) -> None:
        """Let go. Recording goes on."""
        for fd in (self._flows, self._lost, self._made, self._locked):
            os.close(fd)

    def end(self) -> None:
        """Stop recording, and leave nothing in bpffs."""
        remove(self._folder.parent)

    def _adopt_or_attach(self, programs: BpfObject, links: Path, tracker: Tracker, settings: Mapping[str, int]) -> bool:
        """Make sure that the programs run. Returns whether they ran all the time."""
        pins = {name: self._folder / name.removeprefix("flows_") for name in ("flows", "flows_lost", "flows_made")}
        programs.share("containers", tracker.map_fd)
        programs.resize("flows", self.entries)
        found = programs.share_pinned(pins)
        if links.exists():
            why_not = why_not_attached(programs, links, [*found.values(), tracker.map_fd])
            if not why_not and found.keys() == pins.keys():
                return True
            log.warning("flows: begins anew, as %s", why_not or "a map is missing")
        self.is_new = "flows" not in found
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for name, value in {"began": began, **settings}.items():
            offset, size = catalog.setting("flows", name)
            programs.configure(offset, value.to_bytes(size, sys.byteorder))
        programs.load()
        for name in pins.keys() - found.keys():
            programs.pin(name, pins[name])
        for older in self._folder.glob("programs-*"):
            remove(older)
        try:
            programs.attach(tracker.mount)
        except GadgetError as error:  # CAP_NET_ADMIN: TCP does without
            self.udp_problem = str(error)
            log.warning("flows: UDP is not recorded: %s", error)
        programs.pin_links(links)
        return False

    def read(self) -> tuple[Keys, Flows]:
        """All flows, as two arrays of equal length. Flows that come while it reads may be missing."""
        position, following = ctypes.c_uint32(), ctypes.c_uint32()
        found, lookup = [(np.zeros(0, self.key), np.zeros(0, self.flow))], libbpf.library().bpf_map_lookup_batch
        begin: Any = None
        room, done = _BATCH, 0
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
        return missed_by(self._folder)

    def programs(self) -> list[Program]:
        """What the kernel says of the programs that record."""
        return programs_in(self._folder)

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


def oldest_of_the_greatest(keys: Keys, flows: Flows, keep: int) -> npt.NDArray[np.intp]:
    """Which flows to remove so that keep flows stay: the oldest ones of the containers that have the most."""
    newest_first = np.lexsort((-flows["last"].astype(np.int64), keys["cgroup_id"]))
    owners = keys["cgroup_id"][newest_first]
    starts = np.r_[0, np.flatnonzero(owners[1:] != owners[:-1]) + 1]
    rank = np.arange(len(owners)) - np.repeat(starts, np.diff(np.r_[starts, len(owners)]))
    chosen: npt.NDArray[np.intp] = newest_first[np.argsort(-rank, kind="stable")[: max(len(keys) - keep, 0)]]
    return chosen
