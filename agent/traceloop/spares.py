"""Spare rings: a container that has just come is recorded in one before the agent has heard of it.

The program gives a cgroup whose name is a container's a spare ring as it is made (bpf/traceloop/ring.h). Here that ring
becomes the container's own, or is thrown away if the container is not to be recorded, and another one takes its place.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.bpf import libbpf
from agent.bpf.bpffs import open_pinned, unpin
from agent.traceloop import rings

log = logging.getLogger(__name__)

#: Stands in place of a cgroup's id where there is no spare ring.
_CLOSED = np.uint64(0xFFFFFFFFFFFFFFFF)


class Spares:
    """The spare rings. A change of the kernel's map of them waits in the kernel, so it is handed to later."""

    def __init__(
        self,
        outer: int,
        table: npt.NDArray[np.void],
        folder: Path,
        size: int,
        number: int,
        later: Callable[..., Future[Any]],
    ) -> None:
        """Take over the map behind outer and the mapped table of who has which, with number rings of size bytes.

        Those of an earlier agent are pinned in folder.
        """
        self._outer = os.dup(outer)
        self._fresh: npt.NDArray[np.uint64] = table["fresh"][0]
        self._any = table["any_fresh"]
        self._folder, self._size, self._later = folder, size, later
        self.number = number
        #: cgroups whose ring is being replaced
        self._leaving: set[int] = set()
        self._mark()
        for at in range(len(self._fresh)):
            if at >= number:
                unpin(self._path(at))
                self._fresh[at] = _CLOSED
            elif self._fresh[at] == _CLOSED or not self._is_ready(at):
                self._fresh[at] = _CLOSED  # until there is one
                later(self._fill, at, None)

    def close(self) -> None:
        """Let go."""
        del self._fresh, self._any
        os.close(self._outer)

    def waiting(self) -> list[int]:
        """The cgroups that have a spare ring and are not decided on."""
        leaving = set(self._leaving)  # before reading the table: an entry is freed before it leaves this set
        return [each for each in self._fresh.tolist() if each and each != _CLOSED and each not in leaving]

    def has(self, cgroup_id: int) -> bool:
        """Whether a cgroup has a spare ring."""
        at = self._place(cgroup_id)
        return at is not None and cgroup_id not in self._leaving and self._path(at).exists()

    def take(self, cgroup_id: int, path: Path) -> None:
        """Make the spare ring of a cgroup its own, pinned at path. OSError if it has none."""
        at = self._place(cgroup_id)
        if at is None:
            raise FileNotFoundError(f"no spare ring of cgroup {cgroup_id}")
        self._path(at).rename(path)

    def replace(self, cgroup_id: int, after: Future[None] | None = None) -> None:
        """Put a new spare ring in place of a cgroup's, which is the cgroup's own by now, or is thrown away."""
        at = self._place(cgroup_id)
        if at is not None and cgroup_id not in self._leaving:
            self._leaving.add(cgroup_id)
            self._later(self._fill, at, after)

    def _place(self, cgroup_id: int) -> int | None:
        found = np.flatnonzero(self._fresh == np.uint64(cgroup_id))
        return int(found[0]) if len(found) else None

    def _path(self, at: int) -> Path:
        return self._folder / f"spare-{at}"

    def _is_ready(self, at: int) -> bool:
        try:
            fd = open_pinned(self._path(at))
        except OSError:
            return False
        found = ctypes.c_uint32()
        try:
            libbpf.library().bpf_map_lookup_elem(self._outer, ctypes.byref(ctypes.c_uint32(at)), ctypes.byref(found))
            return bool(libbpf.map_info(fd).id == found.value)
        except OSError:
            return False
        finally:
            os.close(fd)

    def _fill(self, at: int, after: Future[None] | None) -> None:
        if after:  # the program has to find the ring by the other way first
            wait_for([after])
        before = int(self._fresh[at])
        self._fresh[at] = _CLOSED  # nobody writes into the new one until somebody is given it
        try:
            fd = rings.create(self._size)
            try:
                unpin(self._path(at))
                libbpf.check(libbpf.library().bpf_obj_pin(fd, os.fsencode(self._path(at))), "pin a spare ring")
                key, value = ctypes.c_uint32(at), ctypes.c_uint32(fd)
                update = libbpf.library().bpf_map_update_elem
                libbpf.check(update(self._outer, ctypes.byref(key), ctypes.byref(value), 0), "traceloop's spare rings")
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("traceloop: no spare ring: %s: containers are recorded some milliseconds later", error)
            self._fresh[at] = _CLOSED
        else:
            self._fresh[at] = 0
        self._leaving.discard(before)
        self._mark()

    def _mark(self) -> None:
        """Say which spare rings are given, as the program does (ring.h)."""
        marked = None
        while marked != (given := self._given()):  # by the program, meanwhile
            self._any[:] = marked = given

    def _given(self) -> int:
        """The bits of the ids that have a spare ring."""
        bits = 0
        for each in self._fresh.tolist():
            if each and each != _CLOSED:
                bits |= 1 << (each & 63)
        return bits
