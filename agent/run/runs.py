"""The runs of an agent: those who ask for the same have one run, with one loaded object."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial

from agent.containers.tracker import Cgroup, Tracker
from agent.limits import RunBudget
from agent.masking import Masker
from agent.readers import find_reader
from agent.run.batch import Step
from agent.run.choosing import Choosing
from agent.run.events import Events
from agent.run.masked import Masked, check_maskable, masked_fields
from agent.run.run import Run
from agent.run.snapshot import Snapshots
from agent.run.source import LoadPlan, Source
from agent.run.subscriber import Subscriber
from agent.run.table import Tables
from agent.selection import Selection
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget, find
from gadget.errors import Unsupported, UsageError
from gadget.schema import SNAPSHOT, TABLE

#: Between tables. A shorter one would cost more than what it counts.
USUAL_INTERVAL_NS = 10**9


def key_of(start: pb.Start) -> Hashable:
    """What those have in common who may share a run. A run that tells of its own beginning is nobody else's."""
    alone = start.totals or (find(start.gadget).source == SNAPSHOT and not start.interval_ns)
    return object() if alone else start.SerializeToString(deterministic=True)


def begin(
    gadget: Gadget,
    settings: Mapping[str, str],
    tracker: Tracker,
    selection: Selection,
    budget: RunBudget | None = None,
    ring_size: int = 0,
    interval_ns: int = 0,
    totals: bool = False,
    masker: Masker | None = None,
) -> Run:
    """A run of gadget with parameter settings; ring_size in bytes, 0 for the gadget's own.

    Of tables: interval_ns is the time between them, 0 for the gadget's own; totals are since the beginning. masker
    masks what may not leave this machine. Exhausted if its memory does not fit into the budget.
    """
    if selection.needs_labels and not tracker.knows_labels:
        raise Unsupported("-l needs labels, which come from the Kubernetes API server: this agent watches none")
    others: list[Step] = []
    if masker and masked_fields(gadget):
        check_maskable(gadget, settings)
        others.append(Masked(gadget, masker))
    plan = LoadPlan(gadget, settings, tracker.map_fd, tracker.mount, budget or RunBudget())
    source = _open(plan, tracker, selection, ring_size, interval_ns, totals)
    try:
        return Run(source, Choosing(source, tracker, selection), others)
    except BaseException:
        source.close()
        raise


def _open(
    plan: LoadPlan, tracker: Tracker, selection: Selection, ring_size: int, interval_ns: int, totals: bool
) -> Source:
    """The source that a gadget is. UsageError if it does not have what is asked for."""
    gadget = plan.gadget
    gadget.check_interval(interval_ns)
    if totals and gadget.source != TABLE:
        raise UsageError(f"{gadget.name} counts nothing: it takes no --totals")
    reader, wanted = find_reader(gadget.name, tracker.mount, tracker.proc), partial(_wanted, tracker, selection)
    if gadget.source == TABLE:
        interval_ns = interval_ns or int(gadget.interval * 1e9) or USUAL_INTERVAL_NS
        return Tables(plan, interval_ns, totals=totals)
    if gadget.source == SNAPSHOT:
        of_all = reader if not plan.settings.keys() & _OF_PROCESSES else None
        more = (lambda: of_all.read(wanted())) if of_all else None
        return Snapshots(plan, interval_ns, more)
    return Events(plan, ring_size)


def _wanted(tracker: Tracker, selection: Selection) -> list[Cgroup]:
    """The containers that run and are chosen, or may be."""
    running = [each for each in tracker.containers() if not each.ended]
    return [
        each
        for each in running
        if each.container and selection.decide(each.container, tracker.labels(each.container)) is not False
    ]


#: Parameters that choose processes: what no process has is not chosen then.
_OF_PROCESSES = {"pid", "uid", "comm"}

#: How many dead threads are reported.
MOST_DEAD = 8


class Runs:
    """Each run that there is, by what was asked for."""

    def __init__(self, redact: Sequence[str] = ()) -> None:
        """None yet. redact: patterns of what may not leave this machine. UsageError if one is no regular expression."""
        #: what masks it, if there are any
        self.masker = Masker(redact) if redact else None
        self._lock = threading.Lock()
        self._by_key: dict[Run, Hashable] = {}
        self._died: deque[str] = deque(maxlen=MOST_DEAD)

    def subscribe(self, key: Hashable, begin_run: Callable[[], Run]) -> Subscriber:
        """A subscriber of the run with this key. A new run begins if there is none."""
        for run in self.all():
            if self._by_key.get(run) == key and (subscriber := run.subscribe()):
                return subscriber
        run = begin_run()  # beginning takes time; if another thread begins one by the same key meanwhile, there are two
        with self._lock:
            self._by_key[run] = key
        return run.first

    def all(self) -> list[Run]:
        """Those that have not ended."""
        with self._lock:
            self._died.extend(run.worker.problem for run in self._by_key if run.is_closed and run.worker.problem)
            self._by_key = {run: key for run, key in self._by_key.items() if not run.is_closed}
            return list(self._by_key)

    def problems(self) -> list[str]:
        """Those whose thread has died or hangs."""
        return [*(run.worker.problem for run in self.all() if run.worker.problem), *self._died]

    def finish(self) -> None:
        """End every subscriber in order."""
        for run in self.all():
            run.finish()
