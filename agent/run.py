"""A run: one client's use of a gadget, from open to close, as a stream of batches."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.bpf_object import BpfObject, ring_bytes
from agent.containers import Containers
from agent.identity import Container
from agent.ring import Ring
from gadget import parameters
from gadget.catalog import Gadget
from gadget.errors import GadgetError, UsageError

OBJECTS = Path(__file__).parent / "_objects"
#: How long an event may wait in a ring that is far from full.
DRAIN_SECONDS = 0.025
#: Counting losses costs a few system calls, so not with every batch.
LOSS_SECONDS = 0.25
RINGS = ("events", "events_long")

Rows = npt.NDArray[np.uint8]


@dataclass
class Loss:
    """Events that were lost so far, all told, for one reason. cgroup_id 0: not known whose."""

    reason: str
    cgroup_id: int
    count: int


@dataclass
class Batch:
    """What one look at the rings gave: rows of (events, bytes) per ring, and news about containers and losses."""

    rows: list[Rows]
    containers: dict[int, Container]
    losses: list[Loss] = field(default_factory=list)


def read_object(name: str) -> bytes:
    """The BPF object of a gadget for this machine."""
    path = OBJECTS / os.uname().machine / f"{name}.bpf.o"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise GadgetError(f"no {name} for {os.uname().machine} in this agent") from None


class Run:
    """Open, configure, load, attach on entry; detach, close on exit."""

    def __init__(
        self,
        gadget: Gadget,
        settings: Mapping[str, str],
        containers: Containers,
        *,
        host: bool = False,
        ring_size: int = 0,
    ) -> None:
        """Prepare a run of gadget with parameter settings; ring_size in bytes, 0 for the gadget's own."""
        self._gadget = gadget
        self._containers = containers
        self._host = host
        self._dtype = gadget.schema.dtype(gadget.schema.text_offset)
        self._object = BpfObject(read_object(gadget.name), gadget.name)
        self._rings: list[Ring] = []
        self._named: set[int] = set()
        self._news: dict[int, Container] = {}
        self.stop = threading.Event()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events = 0
        try:
            self._configure(settings)
            sizes = [self._object.resize(name, ring_bytes(ring_size) if ring_size else None) for name in RINGS]
            self._object.load()
            self._rings = [Ring(self._object.map_fd(name), size) for name, size in zip(RINGS, sizes, strict=True)]
            self._object.attach()
        except BaseException:
            self.close()
            raise

    def _configure(self, settings: Mapping[str, str]) -> None:
        known = {parameter.name: parameter for parameter in self._gadget.parameters}
        for name, value in settings.items():
            if name not in known:
                raise UsageError(f"{self._gadget.name} has no parameter {name!r}: it has {', '.join(known)}")
            self._object.configure(known[name].offset, parameters.encode(known[name], value))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def finish(self) -> None:
        """End the batches, after what is in the rings; callable from any thread."""
        self.stop.set()
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Detach and free everything."""
        for ring in self._rings:
            ring.close()
        self._object.close()
        os.close(self._wake)

    def batches(self) -> Iterator[Batch]:
        """Batches as events come, until finish; then the programs are detached and the rings emptied."""
        with select.epoll() as poll:
            for fd in (self._wake, *(ring.fd for ring in self._rings)):
                poll.register(fd, select.EPOLLIN | select.EPOLLET)
            counted, told = 0.0, self.losses()
            while not self.stop.is_set():
                poll.poll(DRAIN_SECONDS)
                rows, losses = self._drain(), []
                if time.monotonic() - counted > LOSS_SECONDS:
                    counted = time.monotonic()
                    if (now := self.losses()) != told:
                        losses = told = now
                if rows or losses:
                    yield Batch(rows, self.new_containers(), losses)
        self._object.detach()
        while any(ring.waiting for ring in self._rings):
            if rows := self._drain():
                yield Batch(rows, self.new_containers())

    def new_containers(self) -> dict[int, Container]:
        """The containers that came up since this was last asked, by cgroup id."""
        news, self._news = self._news, {}
        return news

    def _drain(self) -> list[Rows]:
        drained = []
        for ring in self._rings:
            records = ring.peek()
            if records is None:
                continue
            rows = self._keep(records)
            ring.release()
            if len(rows):
                drained.append(rows)
                self.events += len(rows)
        return drained

    def _field(self, records: Rows, name: str) -> npt.NDArray[np.integer[Any]]:
        form, offset = self._dtype.fields[name][:2]  # type: ignore[index]
        column: npt.NDArray[np.integer[Any]] = records[:, offset : offset + form.itemsize].view(form)[:, 0]
        return column

    def _keep(self, records: Rows) -> Rows:
        """A copy of the chosen records, as short as their text allows."""
        cgroups, index = np.unique(self._field(records, "cgroup_id"), return_inverse=True)
        chosen = np.array([self._choose(int(cgroup_id)) for cgroup_id in cgroups])
        length = self._gadget.schema.text_offset + int(self._field(records, "text_length").max())
        trimmed = records[:, :length]
        return trimmed.copy() if chosen.all() else trimmed[chosen[index]]

    def _choose(self, cgroup_id: int) -> bool:
        container = self._containers.resolve(cgroup_id)
        if container is None or container.sandbox:
            return self._host
        if cgroup_id not in self._named:
            self._named.add(cgroup_id)
            self._news[cgroup_id] = container
        return True

    def losses(self) -> list[Loss]:
        """What was lost so far. The kernel only ever counts up."""
        losses = [Loss("ring full", cgroup, count) for cgroup, count in sorted(self._object.items("losses_by_cgroup"))]
        for loss in losses:
            self._choose(loss.cgroup_id)  # so that the client can name the losers
        (total,) = self._object.percpu_totals("losses", 1)
        unknown = total - sum(loss.count for loss in losses)
        if unknown > 0:
            losses.append(Loss("ring full", 0, unknown))
        if missed := self._object.missed():
            losses.append(Loss("program busy", 0, missed))
        return losses
