"""A source of rows: what every kind of source offers to its run, and what a gadget's object needs in each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Protocol

from agent.bpf.attach import Where
from agent.bpf.bpf_object import BpfObject, ring_bytes
from agent.bpf.calls import LANES
from agent.bpf.objects import read_object
from agent.limits import MAP_BYTES, RunBudget
from agent.run.batch import Rows, TableInfo
from gadget import parameters
from gadget.catalog import Gadget

#: The parameter that GADGET_SAMPLES (bpf/include/samples.h) makes.
HZ = "hz"
#: The two tables of a gadget that counts, of which programs use one at a time.
TABLES = ("rows_first", "rows_second")
#: The map of the tracker, which gadgets share.
CONTAINERS = "containers"
#: The rings of a gadget with events.
RINGS = ("events", "events_long")
#: Programs that run where the kernel holds a run queue: to allocate there may wake a thread, which needs it, too.
IN_SCHEDULER = "tp_btf/sched_s"
#: What losses that the kernel counts are called: enum gadget_loss, in its order.
LOSSES = ("ring full", "too many at once", "table full")


class Source(Protocol):
    """Gives rows in the gadget's schema until it is closed."""

    gadget: Gadget
    object: BpfObject
    #: whether events of no container are asked for
    host: bool
    #: whether rows of containers that are not decided yet may be held back
    holds: bool
    #: whether its rows come again each time, as totals do
    repeats: bool
    #: of which table the rows of the last read were; None if they were of none
    whole: TableInfo | None

    @property
    def due(self) -> float:
        """When it has to be read though no descriptor says so (monotonic, seconds)."""

    @property
    def fds(self) -> Sequence[int]:
        """File descriptors that are readable when there is something to read."""

    @property
    def pressed(self) -> bool:
        """Whether it has to be read soon."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to read."""

    def read(self) -> Iterator[Rows]:
        """The rows that there are. They are valid until the next one is taken."""

    def so_far(self) -> tuple[Rows, TableInfo] | None:
        """What a table has up to now, which goes on; None if it has no such thing."""

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        """Events lost so far, for each of LOSSES: in all, and by container as far as the container is known."""

    def detach(self) -> None:
        """Stop the programs; what they wrote stays."""

    def close(self) -> None:
        """Detach and free everything."""


@dataclass(frozen=True)
class LoadPlan:
    """A gadget that is to be loaded, with parameter settings.

    containers_fd is of the map of containers, cgroups where cgroup2 is mounted. Memory is taken from budget.
    """

    gadget: Gadget
    settings: Mapping[str, str]
    containers_fd: int
    cgroups: Path
    budget: RunBudget


class Loaded:
    """A gadget's object through its life, and what it takes of the budget."""

    holds = True
    repeats = False
    whole: TableInfo | None = None

    def __init__(self, plan: LoadPlan) -> None:
        """Open the gadget's object, and configure it."""
        self.gadget = gadget = plan.gadget
        self.host = False
        self.object = BpfObject(read_object(gadget.name), gadget.name)
        self._plan, self._taken = plan, 0
        hz = next((bytes.fromhex(each.default) for each in gadget.parameters if each.name == HZ), b"")
        try:
            for parameter, encoded in parameters.encode_all(gadget, plan.settings):
                self.object.configure(parameter.offset, encoded)
                if parameter.name == "host":
                    self.host = any(encoded)
                elif parameter.name == HZ:
                    hz = encoded
        except BaseException:
            self.object.close()
            raise
        self._where = Where(cgroup=plan.cgroups, hz=int.from_bytes(hz, sys.byteorder), calls=LANES)

    @property
    def due(self) -> float:
        """Never."""
        return inf

    def so_far(self) -> tuple[Rows, TableInfo] | None:
        """Nothing that goes on."""
        return None

    def load(self, size: int) -> None:
        """Load the object, with rings or tables of size bytes. Exhausted if its maps do not fit into the budget."""
        size += max(self.object.preallocated_bytes((*TABLES, CONTAINERS)) - MAP_BYTES, 0)
        self._plan.budget.take(size)
        self._taken = size
        self.object.share(CONTAINERS, self._plan.containers_fd)
        if self._where.hz or self.object.has_programs(IN_SCHEDULER):
            self.object.preallocate("chosen", "losses_by_cgroup")
        self.object.load()

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
        self.object.close()
        if self._taken:
            self._plan.budget.give_back(self._taken)
            self._taken = 0


def check_loadable(plan: LoadPlan) -> None:
    """Load a gadget's object as a run of it would, and attach nothing. GadgetError if that is not possible."""
    loaded = Loaded(plan)
    try:
        for name in filter(loaded.object.has_map, RINGS):
            loaded.object.resize(name, ring_bytes(0))
        loaded.load(0)
    finally:
        loaded.close()
