"""Which container has which ring, as the program looks it up: bpf/traceloop/ring.h."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any

import numpy as np

from agent.bpf import libbpf
from agent.bpf.bpffs import open_pinned
from agent.threads import Pool, Worker
from agent.traceloop.rings import Ring
from gadget import catalog

#: The kernel lets each change of a map of maps wait until no program uses what was there before (synchronize_rcu, 12 to
#: 25 ms): so many wait side by side. The change itself is seen at once.
WAITING = 8


class Pointers:
    """The map from container to ring, and in front of it the counts of containers by the low bits of their ids.

    A count that is 0 hides what the map holds. So it goes up before the map has a ring, and down after; and whoever
    takes over both, from an agent that was killed in between, makes the counts anew. Changes are made in threads, each
    container's in their order.
    """

    def __init__(self, rings: int, recorded: int) -> None:
        """Take over both maps, by file descriptors that stay the caller's."""
        self._rings = os.dup(rings)
        kind = catalog.record("traceloop", "recorded")
        self._page = mmap.mmap(recorded, -(-kind.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE)
        #: the program's struct recorded
        self.table = np.frombuffer(self._page, kind, 1)
        self._counts = self.table["count"][0]
        self._lock = threading.Lock()
        #: the last change of each container that has a ring, or is about to
        self._changes: dict[int, Future[None]] = {}
        self._pool = Pool("traceloop-ring", WAITING)
        there = list(self._read())
        found = np.fromiter(map(self._bucket, there), np.int64, len(there))
        self._counts[:] = np.bincount(found, minlength=len(self._counts))
        for cgroup_id in there:
            self._changes[cgroup_id] = Future()
            self._changes[cgroup_id].set_result(None)

    def close(self) -> None:
        """Let go of the maps, when all changes have been made."""
        self.finish()
        del self._counts, self.table
        self._page.close()
        os.close(self._rings)

    @property
    def workers(self) -> list[Worker]:
        """The threads."""
        return self._pool.workers

    def ids(self) -> list[int]:
        """The containers that have a ring."""
        return list(self._changes)

    def later(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """Let one of the threads do something else that waits for the kernel."""
        return self._pool.submit(task, *args)

    def change(self, cgroup_id: int) -> Future[None] | None:
        """The last change of a container's ring; none if it has none."""
        return self._changes.get(cgroup_id)

    def finish(self) -> None:
        """Wait until all changes have been made. None can be made after."""
        self._pool.close()

    def set(self, cgroup_id: int, ring: Ring, failed: Callable[[], None]) -> None:
        """Record a container in a ring, in a moment. OSError if there is none.

        failed is called if there is no room in the map.
        """
        if cgroup_id not in self._changes:
            self._changes[cgroup_id] = self._pool.submit(self._put, cgroup_id, open_pinned(ring.path), failed)

    def remove(self, cgroup_id: int) -> None:
        """Record a container no more, in a moment. As long as the map holds a ring its memory is not free."""
        if before := self._changes.pop(cgroup_id, None):
            self._pool.submit(self._take, cgroup_id, before)

    def _put(self, cgroup_id: int, fd: int, failed: Callable[[], None]) -> None:
        key, value = ctypes.c_uint64(cgroup_id), ctypes.c_uint32(fd)
        self._count(cgroup_id, 1)
        update = libbpf.library().bpf_map_update_elem
        done = update(self._rings, ctypes.byref(key), ctypes.byref(value), 0)
        os.close(fd)
        if done:
            failed()

    def _take(self, cgroup_id: int, before: Future[None]) -> None:
        wait_for([before])  # however long: put after this, it would stay. Handed in earlier, so that a thread is at it
        libbpf.library().bpf_map_delete_elem(self._rings, ctypes.byref(ctypes.c_uint64(cgroup_id)))
        self._count(cgroup_id, -1)

    def _count(self, cgroup_id: int, more: int) -> None:
        at = self._bucket(cgroup_id)
        with self._lock:
            self._counts[at] = int(self._counts[at]) + more

    def _bucket(self, cgroup_id: int) -> int:
        return cgroup_id & (len(self._counts) - 1)

    def _read(self) -> Iterator[int]:
        key, previous = ctypes.c_uint64(), None
        while libbpf.library().bpf_map_get_next_key(self._rings, previous, ctypes.byref(key)) == 0:
            yield key.value
            previous = ctypes.byref(ctypes.c_uint64(key.value))
