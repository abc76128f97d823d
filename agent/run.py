"""A run: one client's use of a gadget, from open to close, as a stream of batches."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agent.bpf_object import BpfObject, ring_bytes
from agent.identity import Container
from agent.limits import RunBudget
from agent.objects import read_object
from agent.ring import Ring
from agent.selection import Selection
from agent.tracker import Cgroup, Tracker
from gadget import parameters
from gadget.catalog import Gadget
from gadget.errors import Unsupported, UsageError

#: How long an event may wait in a ring that is far from full. A message costs each side about a millisecond of CPU,
#: however little is in it: more often is a load, and more seldom is seen by the eye. Where more events come than an
#: eye can follow, a third as often is enough.
DRAIN_SECONDS, BUSY_SECONDS = 0.05, 0.15
#: Events in one look that are more than that.
MANY = 20
#: How long to sleep where there was nothing: the next event wakes the reader, but for one that was sent as it looked.
IDLE_SECONDS = 0.25
#: Counting losses costs a few system calls, so not with every batch.
LOSS_SECONDS = 0.25
#: A stream says at least this often that it lives.
BEAT_SECONDS = 1.0
#: Over how long events per second are counted.
RATE_SECONDS = 2.0
RINGS = ("events", "events_long")
#: What losses that the kernel counts are called: enum gadget_loss, in its order.
LOSSES = ("ring full", "too many at once")

#: How long events of a pod wait for its labels, if those are asked for, and how much may wait. Whatever waits
#: longer is sent and counted: a pod is never left out because we did not know it.
HELD_SECONDS = 2.0
HELD_BYTES = 8 << 20
#: Cgroups whose names a stream remembers to have sent; after that it sends names again.
NAMED = 16_384
#: Containers whose missed events are counted apart; those of more are counted together.
MISSED = 1024
DROP, KEEP, HOLD, MISS = range(4)

Rows = npt.NDArray[np.uint8]


@dataclass
class Loss:
    """Events that were lost so far, all told, for one reason. cgroup_id 0: not known whose."""

    reason: str
    cgroup_id: int
    count: int


@dataclass(frozen=True)
class Packed:
    """Rows of one size, one after the other."""

    record_size: int
    count: int
    rows: bytes


@dataclass
class Batch:
    """What one look at the rings gave: rows, and news about containers and losses."""

    sections: list[Packed]
    containers: dict[int, Container]
    losses: list[Loss] = field(default_factory=list)


class Held(NamedTuple):
    """Rows that wait until a time (monotonic, seconds) for the labels of their pods."""

    until: float
    rows: Rows


class Run:
    """Open, configure, load, attach on entry; detach, close on exit."""

    def __init__(
        self,
        gadget: Gadget,
        settings: Mapping[str, str],
        tracker: Tracker,
        selection: Selection,
        ring_size: int = 0,
        budget: RunBudget | None = None,
    ) -> None:
        """Prepare a run of gadget with parameter settings; ring_size in bytes, 0 for the gadget's own.

        Exhausted if its rings do not fit into the budget.
        """
        if selection.needs_labels and not tracker.knows_labels:
            raise Unsupported("-l needs labels, which come from the Kubernetes API server: this agent watches none")
        self._gadget = gadget
        self._tracker = tracker
        self._selection = selection
        self._host = False
        self._dtype = gadget.schema.dtype(gadget.schema.text_offset)
        self._object = BpfObject(read_object(gadget.name), gadget.name)
        self._rings: list[Ring] = []
        self._budget, self._taken = budget or RunBudget(), 0
        self._named: set[int] = set()
        self._decided: dict[int, bool] = {}
        self._generation = -1
        self._held: list[Held] = []
        #: events by cgroup that may have been asked for: see Container.nameless
        self._missed: Counter[int] = Counter()
        self.undecided = 0
        self._news: dict[int, Container] = {}
        self.stop = threading.Event()
        self.started_ns = time.time_ns()
        #: Events lost, when that was last looked at.
        self.lost = 0
        self._closing = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events = 0
        self.rate = 0.0
        try:
            self._configure(settings)
            sizes = [self._object.resize(name, ring_bytes(ring_size) if ring_size else None) for name in RINGS]
            self._budget.take(sum(sizes))
            self._taken = sum(sizes)
            self._object.share("containers", tracker.map_fd)
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
            encoded = parameters.encode(known[name], value)
            self._object.configure(known[name].offset, encoded)
            if name == "host":
                self._host = any(encoded)

    @property
    def gadget(self) -> str:
        """What it runs."""
        return self._gadget.name

    @property
    def object(self) -> BpfObject:
        """The loaded object."""
        return self._object

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def finish(self) -> None:
        """End the batches, after what is in the rings; callable from any thread, and after close."""
        self.stop.set()
        with self._closing:  # the number may be another file's by now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Detach and free everything."""
        for ring in self._rings:
            ring.close()
        self._object.close()
        if self._taken:
            self._budget.give_back(self._taken)
            self._taken = 0
        with self._closing:
            os.close(self._wake)
            self._wake = -1

    def batches(self) -> Iterator[Batch]:
        """Batches as events come, until finish; then the programs are detached and the rings emptied."""
        with select.epoll() as poll:
            for fd in (self._wake, *(ring.fd for ring in self._rings)):
                poll.register(fd, select.EPOLLIN | select.EPOLLET)
            counted, told, beat = 0.0, self.losses(), time.monotonic()
            measured, before = beat, 0
            due, idle = time.monotonic() + DRAIN_SECONDS, False
            while not self.stop.is_set():
                poll.poll(max(0.0, due - time.monotonic()))
                pressed = idle or any(ring.pressed for ring in self._rings)
                if time.monotonic() < due and not self.stop.is_set() and not pressed:
                    continue  # it will be soon enough
                seen, idle = self.events, not self._waiting()
                sections, losses = self._drain(), []
                wait = IDLE_SECONDS if idle else BUSY_SECONDS if self.events - seen > MANY else DRAIN_SECONDS
                due = time.monotonic() + wait
                if time.monotonic() - counted > LOSS_SECONDS:
                    counted = time.monotonic()
                    if (now := self.losses()) != told:
                        losses = told = now
                if (now_at := time.monotonic()) - measured > RATE_SECONDS:
                    self.rate = (self.events - before) / (now_at - measured)
                    measured, before = now_at, self.events
                if sections or losses or time.monotonic() - beat > BEAT_SECONDS:
                    yield Batch(sections, self.new_containers(), losses)
                    beat = time.monotonic()
        self._object.detach()
        while self._waiting():
            if sections := self._drain():
                yield Batch(sections, self.new_containers())

    def _waiting(self) -> bool:
        return bool(self._held) or any(ring.waiting for ring in self._rings)

    def new_containers(self) -> dict[int, Container]:
        """The containers that came up since this was last asked, by cgroup id."""
        news, self._news = self._news, {}
        return news

    def _drain(self) -> list[Packed]:
        self._review()
        drained = list(map(_pack, self._release_held()))
        for ring in self._rings:
            records = ring.peek()
            if records is None:
                continue
            rows = self._keep(records)
            if len(rows):
                drained.append(_pack(rows))
            ring.release()
        self.events += sum(section.count for section in drained)
        return drained

    def _field(self, records: Rows, name: str) -> npt.NDArray[np.integer[Any]]:
        form, offset = self._dtype.fields[name][:2]  # type: ignore[index]
        column: npt.NDArray[np.integer[Any]] = records[:, offset : offset + form.itemsize].view(form)[:, 0]
        return column

    def _keep(self, records: Rows) -> Rows:
        """The chosen records, as short as their text allows; holds back those not decided yet."""
        length = self._gadget.schema.text_offset + int(self._field(records, "text_length").max())
        trimmed = records[:, :length]
        chosen = self._choices(records)
        if chosen is None:
            return trimmed
        if (chosen == HOLD).any():
            self._hold(trimmed[chosen == HOLD])
        kept: Rows = trimmed[chosen == KEEP]
        return kept

    def _choices(self, records: Rows) -> npt.NDArray[np.int8] | None:
        """DROP, KEEP or HOLD for each record; None if all are kept. What is a MISS is counted and dropped."""
        ids = self._field(records, "cgroup_id")
        if (ids == ids[0]).all():  # a flood is most often of one: no need to sort it
            choice = self._settle(int(ids[0]), len(ids))
            return None if choice == KEEP else np.full(len(ids), choice, np.int8)
        cgroups, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
        each = zip(cgroups.tolist(), counts.tolist(), strict=True)
        choices = np.array([self._settle(cgroup_id, count) for cgroup_id, count in each], np.int8)
        return None if (choices == KEEP).all() else choices[index]

    def _settle(self, cgroup_id: int, count: int) -> int:
        """What becomes of so many events of a cgroup."""
        choice = self._choose(cgroup_id)
        if choice == MISS:
            room = cgroup_id in self._missed or len(self._missed) < MISSED
            self._missed[cgroup_id if room else 0] += count
            return DROP
        return choice

    def _choose(self, cgroup_id: int) -> int:
        cgroup = self._tracker.resolve(cgroup_id)
        if cgroup is None:  # perhaps of a container that came and went while more changed than could be followed
            return KEEP if self._host else MISS
        if cgroup.container is None or cgroup.container.sandbox:
            return KEEP if self._host else DROP
        decision = self._decide(cgroup)
        if decision is False and not cgroup.container.nameless:
            return DROP
        if cgroup_id not in self._named:
            if len(self._named) >= NAMED:
                self._named.clear()
            self._named.add(cgroup_id)
            self._news[cgroup_id] = cgroup.container
        if decision is False:
            return MISS  # perhaps it is one of those that were asked for
        return HOLD if decision is None else KEEP

    def _decide(self, cgroup: Cgroup) -> bool | None:
        decision = self._decided.get(cgroup.id)
        if decision is None and cgroup.container is not None:
            decision = self._selection.decide(cgroup.container, self._tracker.labels(cgroup.container))
            if decision is not None and not cgroup.ended:
                self._decided[cgroup.id] = decision
                if decision or not cgroup.container.nameless:  # else its events are counted here
                    self._object.set("chosen", cgroup.id, int(decision))
        return decision

    def _review(self) -> None:
        """Decide again on every container when one came, went or got other labels."""
        if self._generation == self._tracker.generation:
            return
        self._generation = self._tracker.generation
        for root, before in list(self._decided.items()):
            cgroup = self._tracker.resolve(root)
            if cgroup is None or cgroup.ended:
                del self._decided[root]
                self._object.delete("chosen", root)
            elif self._selection.needs_labels:
                del self._decided[root]
                if self._decide(cgroup) is None:  # labels were known and are not now: what was decided stays
                    self._decided[root] = before

    def _hold(self, rows: Rows) -> None:
        if sum(held.rows.nbytes for held in self._held) + rows.nbytes > HELD_BYTES:
            self._held.insert(0, Held(0.0, rows))  # sent with the next batch: shown rather than left out
        else:
            self._held.append(Held(time.monotonic() + HELD_SECONDS, rows))

    def _release_held(self) -> list[Rows]:
        """The held rows that are chosen by now, or have waited long enough."""
        released = []
        held, self._held = self._held, []
        for item in held:
            choices = self._choices(item.rows)
            if choices is None:
                released.append(item.rows)
            elif time.monotonic() >= item.until or self.stop.is_set():
                self.undecided += int((choices == HOLD).sum())
                released.append(item.rows[choices != DROP])
            else:
                released.append(item.rows[choices == KEEP])
                self._held.append(Held(item.until, item.rows[choices == HOLD]))
        self._held = [item for item in self._held if len(item.rows)]
        return [rows for rows in released if len(rows)]

    def losses(self) -> list[Loss]:
        """What was lost so far. The kernel only ever counts up."""
        totals = self._object.percpu_totals("losses", len(LOSSES))
        counts = sorted(self._object.tallies("losses_by_cgroup", len(LOSSES)))
        # what was lost of others, before the kernel knew that they are not chosen, is no loss of this client
        own = {cgroup for cgroup, _ in counts if self._choose(cgroup) != DROP}
        losses = []
        for at, reason in enumerate(LOSSES):
            losses += [Loss(reason, cgroup, each[at]) for cgroup, each in counts if each[at] and cgroup in own]
            unknown = totals[at] - sum(each[at] for _, each in counts)
            if unknown > 0:
                losses.append(Loss(reason, 0, unknown))
        losses += [Loss("container not known", cgroup, number) for cgroup, number in sorted(self._missed.items())]
        if missed := self._object.missed():
            losses.append(Loss("program busy", 0, missed))
        self.lost = sum(loss.count for loss in losses)
        return losses


def _pack(rows: Rows) -> Packed:
    """A copy of rows, wherever they are. Each is one item for numpy, which would else go byte by byte."""
    size = rows.shape[1]
    return Packed(size, len(rows), rows.view(f"V{size}").tobytes())
