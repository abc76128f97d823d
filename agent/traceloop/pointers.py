"""Which cgroup has which ring, as the program looks it up: bpf/traceloop/ring.h."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import numpy as np

from agent import libbpf
from agent.bpffs import open_pinned
from agent.traceloop.rings import Ring


class Pointers:
    """The map from cgroup to ring, and in front of it the counts of cgroups by the low bits of their ids.

    A count that is 0 hides what the map holds. So it goes up before the map has a ring, and down after; and whoever
    takes over both, from an agent that was killed in between, makes the counts anew.
    """

    def __init__(self, rings: int, recorded: int) -> None:
        """Take over both maps, by file descriptors that stay the caller's."""
        self._rings = os.dup(rings)
        size = libbpf.map_info(recorded).value_size
        self._page = mmap.mmap(recorded, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._counts = np.frombuffer(self._page, np.uint16, size // 2)
        self._ids = set(self._read())
        found = np.fromiter(map(self._bucket, self._ids), np.int64, len(self._ids))
        self._counts[:] = np.bincount(found, minlength=len(self._counts))

    def close(self) -> None:
        """Let go of the maps."""
        del self._counts
        self._page.close()
        os.close(self._rings)

    def ids(self) -> list[int]:
        """The cgroups that have a ring."""
        return list(self._ids)

    def set(self, cgroup_id: int, ring: Ring) -> None:
        """Record a cgroup in a ring from now on. OSError if there is no room in the map."""
        fd = open_pinned(ring.path)
        key, value = ctypes.c_uint64(cgroup_id), ctypes.c_uint32(fd)
        new = cgroup_id not in self._ids
        self._counts[self._bucket(cgroup_id)] += new
        try:
            update = libbpf.library().bpf_map_update_elem
            libbpf.check(update(self._rings, ctypes.byref(key), ctypes.byref(value), 0), "traceloop's map of rings")
        except OSError:
            self._counts[self._bucket(cgroup_id)] -= new
            raise
        finally:
            os.close(fd)
        self._ids.add(cgroup_id)

    def remove(self, cgroup_id: int) -> None:
        """Record a cgroup no more. As long as the map holds a ring its memory is not free."""
        if cgroup_id in self._ids:
            libbpf.library().bpf_map_delete_elem(self._rings, ctypes.byref(ctypes.c_uint64(cgroup_id)))
            self._ids.remove(cgroup_id)
            self._counts[self._bucket(cgroup_id)] -= 1

    def _bucket(self, cgroup_id: int) -> int:
        return cgroup_id & (len(self._counts) - 1)

    def _read(self) -> Iterator[int]:
        key, previous = ctypes.c_uint64(), None
        while libbpf.library().bpf_map_get_next_key(self._rings, previous, ctypes.byref(key)) == 0:
            yield key.value
            previous = ctypes.byref(ctypes.c_uint64(key.value))
