"""The runs of an agent: those who ask for the same have one run, with one loaded object."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping

from agent.limits import RunBudget
from agent.run.choosing import Choosing
from agent.run.events import Events
from agent.run.run import Run
from agent.run.subscriber import Subscriber
from agent.selection import Selection
from agent.tracker import Tracker
from gadget.catalog import Gadget
from gadget.errors import Unsupported


def begin(
    gadget: Gadget,
    settings: Mapping[str, str],
    tracker: Tracker,
    selection: Selection,
    budget: RunBudget | None = None,
    ring_size: int = 0,
) -> Run:
    """A run of gadget with parameter settings; ring_size in bytes, 0 for the gadget's own.

    Exhausted if its rings do not fit into the budget.
    """
    if selection.needs_labels and not tracker.knows_labels:
        raise Unsupported("-l needs labels, which come from the Kubernetes API server: this agent watches none")
    source = Events(gadget, settings, tracker.map_fd, tracker.mount, budget or RunBudget(), ring_size)
    try:
        return Run(source, Choosing(source, tracker, selection))
    except BaseException:
        source.close()
        raise


#: How many dead threads are reported.
MOST_DEAD = 8


class Runs:
    """Each run that there is, by what was asked for."""

    def __init__(self) -> None:
        """None yet."""
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
