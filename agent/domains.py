"""The names of addresses, by the answers of DNS that a container got. Nobody is asked.

A run of dnssnoop tells the answers. A container, and who answers it, may say anything in these. What they say counts
for that container alone. So a name tells what a container asked for, not whose an address is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import closing

import numpy as np
import numpy.typing as npt

from agent.containers.tracker import Tracker
from agent.limits import RunBudget
from agent.run.batch import Batch, Packed
from agent.run.runs import Runs, begin
from agent.run.subscriber import Subscriber
from agent.selection import Selection
from agent.threads import Worker
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated.kinds.dnssnoop import Message, read
from gadget.endpoints import unmapped
from gadget.errors import GadgetError

log = logging.getLogger(__name__)

#: An answer counts for as long as it says, but at least and at most so long: programs keep addresses longer.
LEAST_SECONDS, MOST_SECONDS = 300, 86_400
#: Names of an address, addresses of a container, and of all, at 3 KB if they have as many and as long names as can be.
#: The oldest make room.
NAMES, ADDRESSES, ALL_ADDRESSES = 8, 256, 8192
#: A name without characters that are shown as numbers is no longer (RFC 1035, 2.3.4).
NAME_LETTERS = 253
#: Answers to one container that are read of each batch, the newest; and of how many containers as many.
ANSWERS, MOST_CGROUPS = 256, 256
AGAIN_SECONDS = 10.0
#: How long to wait for answers that have come already and were not read yet.
CATCH_UP_SECONDS = 0.3

#: When each name of an address ends to count, the newest last.
_Names = dict[str, float]
#: The owner of names: a container's cgroup, or the pod that it belongs to.
Owner = int | str


class Domains:
    """What names addresses have, by container. Its methods may be called by any thread."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        owner_of: Callable[[int], Owner | None] = lambda cgroup_id: cgroup_id,
        answers: int = ANSWERS,
        most: int = ALL_ADDRESSES,
    ) -> None:
        """None yet: learn is to be called, or follow.

        owner_of says whose the names are that a container's cgroup asked for, None for nobody's. So many answers to one
        cgroup are read of a batch, and of all together the newest so many times MOST_CGROUPS. most bounds addresses.
        """
        self._clock, self._owner_of, self._answers, self._most = clock, owner_of, answers, most
        self._gadget = catalog.find("dnssnoop")
        self._answer = _number(self._gadget.schema["message"].values, "answer")
        self._no_error = _number(self._gadget.schema["rcode"].values, "NOERROR")
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._known: OrderedDict[Owner, OrderedDict[bytes, _Names]] = OrderedDict()
        self._size = 0
        #: how often an address got a name that it did not have
        self.changes = 0
        #: answers that were not read, as there were too many for one container
        self.skipped = 0
        #: every answer that came before this time is known (nanoseconds since 1970)
        self.read_ns = 0

    def names(self, owner: Owner, address: bytes) -> tuple[str, ...]:
        """The names, in lower case, that an address had when a container asked for them, the newest first.

        owner is the container's own cgroup, if owner_of does not say otherwise. The address has 4 or 16 bytes; one of
        IPv4 may be written as one of IPv6.
        """
        now = self._clock()
        with self._lock:
            known = self._known.get(owner)
            found = known.get(unmapped(address)) if known else None
            return tuple(name for name, end in reversed(found.items()) if end > now) if found else ()

    def answers(self, cgroup_id: int, most: int) -> list[tuple[bytes, tuple[str, ...]]]:
        """The last addresses that a container got, at most so many, the oldest first, each with its names."""
        with self._lock:
            addresses = [*self._known.get(cgroup_id, ())][-most:]
        return [(each, names) for each in addresses if (names := self.names(cgroup_id, each))]

    def learn(self, batch: Batch) -> None:
        """Take the answers of a batch of dnssnoop that containers got from others."""
        for section in batch.sections:
            rows = np.frombuffer(section.rows, self._gadget.schema.dtype(section.record_size), section.count)
            chosen = (rows["message"] == self._answer) & (rows["rcode"] == self._no_error)
            chosen &= rows["server"] == rows["dst"]  # the end that asked
            at = np.flatnonzero(chosen)
            newest = at[_newest(rows["cgroup_id"][at], self._answers)][-MOST_CGROUPS * self._answers :]
            self.skipped += len(at) - len(newest)
            self._take(rows, newest, section)
        with self._changed:
            self.read_ns = batch.read_ns
            self._changed.notify_all()

    def wait(self, until_ns: int, seconds: float) -> bool:
        """Wait until all answers up to a time (since 1970) are known, some seconds at most. True if they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self.read_ns >= until_ns, seconds)

    def _take(self, rows: npt.NDArray[np.void], at: npt.NDArray[np.intp], section: Packed) -> None:
        places = rows["name"][at]
        starts = at * section.record_size + self._gadget.schema.text_offset + places["offset"]
        ends = starts + places["length"]
        cgroups = rows["cgroup_id"][at].tolist()
        for cgroup_id, start, end in zip(cgroups, starts.tolist(), ends.tolist(), strict=True):
            self._keep(cgroup_id, read(section.rows[start:end]))

    def _keep(self, cgroup_id: int, said: Message) -> None:
        name, owner = said.name.lower(), self._owner_of(cgroup_id)
        if said.records and len(name) <= NAME_LETTERS and owner is not None:
            self.add(owner, name, said.records)

    def add(self, owner: Owner, name: str, records: Iterable[tuple[bytes, int]]) -> None:
        """Note that a name had addresses, for so many seconds each."""
        now = self._clock()
        with self._lock:
            known = self._known.setdefault(owner, OrderedDict())
            self._known.move_to_end(owner)
            self._size -= len(known)
            for address, seconds in records:
                address = unmapped(address)
                names = known.setdefault(address, {})
                known.move_to_end(address)
                ends = now + min(max(seconds, LEAST_SECONDS), MOST_SECONDS)
                self.changes += name not in names
                names[name] = max(names.pop(name, 0.0), ends)
                if len(names) > NAMES:
                    del names[next(iter(names))]
                if len(known) > ADDRESSES:
                    known.popitem(last=False)
            self._size += len(known)
            while self._size > self._most:
                self._drop_oldest()

    def all(self) -> list[tuple[Owner, bytes, tuple[str, ...]]]:
        """Every address with its names, the one that was learned last at the end."""
        with self._lock:
            return [
                (owner, address, tuple(names))
                for owner, known in self._known.items()
                for address, names in known.items()
            ]

    def _drop_oldest(self) -> None:
        """Make room for one address, of the container that has learned nothing for longest."""
        owner, oldest = next(iter(self._known.items()))
        oldest.popitem(last=False)
        self._size -= 1
        if not oldest:
            del self._known[owner]


class Follower:
    """Keeps a Domains up to date by a run of dnssnoop, until it is closed."""

    def __init__(self, domains: Domains, runs: Runs, tracker: Tracker, budget: RunBudget) -> None:
        """Begin. What keeps the run from beginning is tried again, and told by problem."""
        self._domains, self._runs, self._tracker, self._budget = domains, runs, tracker, budget
        self._subscriber: Subscriber | None = None
        self._why_not = ""
        self.worker = Worker("domains", self._work)
        self.worker.start()

    @property
    def problem(self) -> str:
        """Why no answers are learned; empty if they are."""
        return self.worker.problem or self._why_not

    @property
    def lost(self) -> int:
        """Messages of DNS that were lost, or not read, since the run began."""
        subscriber = self._subscriber
        return self._domains.skipped + (subscriber.lost if subscriber else 0)

    def catch_up(self, until_ns: int) -> None:
        """See to it that all is known that was answered until then, in nanoseconds since 1970, unless it takes long."""
        if (subscriber := self._subscriber) and self._domains.read_ns < until_ns:
            subscriber.look()
            self._domains.wait(until_ns, CATCH_UP_SECONDS)

    def close(self) -> None:
        """Leave the run, which ends if nobody else subscribes to it."""
        if subscriber := self._subscriber:
            subscriber.finish()
        self.worker.stop()

    def _work(self, worker: Worker) -> None:
        while not worker.stopping:
            try:
                self._follow(worker)
                self._why_not = "" if worker.stopping else "dnssnoop has ended: begun anew"
            except (GadgetError, OSError) as error:
                if self._why_not != str(error):
                    log.warning("domains: %s", error)
                self._why_not = str(error)
            worker.wait(AGAIN_SECONDS)

    def _follow(self, worker: Worker) -> None:
        start = pb.Start(gadget="dnssnoop")
        gadget = catalog.find(start.gadget)
        subscriber = self._runs.subscribe(
            start.SerializeToString(deterministic=True),
            lambda: begin(gadget, {}, self._tracker, Selection.of(start.selection), self._budget),
        )
        with closing(subscriber):
            self._subscriber, self._why_not = subscriber, ""
            try:
                for batch in subscriber.batches():
                    worker.beat()
                    self._domains.learn(batch)
                    if worker.stopping:
                        subscriber.finish()
            finally:
                self._subscriber = None


def _number(values: dict[str, str], name: str) -> int:
    return next(int(number) for number, word in values.items() if word == name)


def _newest(cgroups: npt.NDArray[np.uint64], most: int) -> npt.NDArray[np.intp]:
    """Which rows are among the last of their cgroup, in order."""
    order = np.argsort(cgroups, kind="stable")
    _, starts, counts = np.unique(cgroups[order], return_index=True, return_counts=True)
    behind = np.repeat(starts + counts, counts) - np.arange(len(order))
    return np.sort(order[behind <= most])
