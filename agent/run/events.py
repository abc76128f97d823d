"""A source of events: the rings that a gadget's programs write to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.attach import Where
from agent.bpf_object import BpfObject, ring_bytes
from agent.limits import RunBudget
from agent.objects import read_object
from agent.ring import Ring
from agent.run.batch import Rows
from gadget import parameters
from gadget.catalog import Gadget

#: The parameter that GADGET_SAMPLES (bpf/include/samples.h) makes.
HZ = "hz"
RINGS = ("events", "events_long")
#: What losses that the kernel counts are called: enum gadget_loss, in its order.
LOSSES = ("ring full", "too many at once")


class Events:
    """A gadget's object, loaded and attached, and its rings."""

    def __init__(
        self,
        gadget: Gadget,
        settings: Mapping[str, str],
        containers_fd: int,
        cgroups: Path,
        budget: RunBudget,
        ring_size: int = 0,
    ) -> None:
        """Load gadget with parameter settings; ring_size in bytes, 0 for the gadget's own.

        containers_fd is of the map of containers, cgroups where cgroup2 is mounted. Exhausted if the rings do not fit
        into the budget.
        """
        self.gadget = gadget
        #: whether events of no container are asked for
        self.host = False
        self.object = BpfObject(read_object(gadget.name), gadget.name)
        self._rings: list[Ring] = []
        self._budget, self._taken = budget, 0
        try:
            hz = self._configure(settings)
            sizes = [self.object.resize(name, ring_bytes(ring_size) if ring_size else None) for name in RINGS]
            budget.take(sum(sizes))
            self._taken = sum(sizes)
            self.object.share("containers", containers_fd)
            if hz:
                self.object.preallocate("chosen", "losses_by_cgroup")
            self.object.load()
            self._rings = [Ring(self.object.map_fd(name), size) for name, size in zip(RINGS, sizes, strict=True)]
            self.object.attach(Where(cgroup=cgroups, hz=hz))
        except BaseException:
            self.close()
            raise

    def _configure(self, settings: Mapping[str, str]) -> int:
        """Set parameters; how many samples a second are asked for, if the gadget takes any."""
        hz = next((bytes.fromhex(each.default) for each in self.gadget.parameters if each.name == HZ), b"")
        for parameter, encoded in parameters.encode_all(self.gadget, settings):
            self.object.configure(parameter.offset, encoded)
            if parameter.name == "host":
                self.host = any(encoded)
            elif parameter.name == HZ:
                hz = encoded
        return int.from_bytes(hz, sys.byteorder)

    @property
    def fds(self) -> list[int]:
        """File descriptors that are readable when there is something to read."""
        return [ring.fd for ring in self._rings]

    @property
    def pressed(self) -> bool:
        """Whether it has to be read soon."""
        return any(ring.pressed for ring in self._rings)

    @property
    def waiting(self) -> bool:
        """Whether there is something to read."""
        return any(ring.waiting for ring in self._rings)

    def read(self) -> Iterator[Rows]:
        """The waiting rows, up to one message for each ring. They are valid until the next read."""
        for ring in self._rings:
            rows = ring.peek()
            if rows is not None:
                yield rows
                ring.release()

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        """Events lost so far, for each of LOSSES: in all, and by container as far as the container is known."""
        return self.object.percpu_totals("losses", len(LOSSES)), dict(
            sorted(self.object.tallies("losses_by_cgroup", len(LOSSES)))
        )

    def detach(self) -> None:
        """Stop the programs; what they wrote stays."""
        self.object.detach()

    def close(self) -> None:
        """Detach and free everything."""
        for ring in self._rings:
            ring.close()
        self._rings = []
        self.object.close()
        if self._taken:
            self._budget.give_back(self._taken)
            self._taken = 0
