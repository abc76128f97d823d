"""Chooses the alerts that a client asked for: alerts of the containers that it selected."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping

from agent.containers.identity import Container
from agent.containers.tracker import Tracker
from agent.selection import Selection
from gadget.rules.alerts import Alert

#: How long an alert waits for the labels of its pod, if those are asked for, and how many may wait. What waits longer
#: is sent, and counted: a pod is never left out because we did not know it.
HELD_SECONDS, MOST_HELD = 2.0, 1024
NOT_KNOWN = "container not known"

#: An alert, and the container that it is of; None outside containers.
Chosen = tuple[Alert, Container | None]


class KnownLabels(Selection):
    """Everything, as soon as the labels of its pod are known: a run holds the events of others, for 2 s at most."""

    needs_labels = True

    def decide(self, container: Container, labels: Mapping[str, str] | None) -> bool | None:
        """True; None as long as the pod's labels are not known."""
        return True if labels is not None or not container.pod_uid else None


class AlertChoice:
    """Chooses alerts by the container of their event."""

    def __init__(self, tracker: Tracker, selection: Selection, *, host: bool) -> None:
        """Choose by selection, and with host also those from outside containers."""
        self._tracker, self._selection, self._host = tracker, selection, host
        self._held: deque[tuple[float, Alert]] = deque()
        #: alerts that were chosen although it is not known whether they should be
        self.undecided = 0
        #: those that may be what was asked for, by cgroup: nobody knows the container
        self.missed: Counter[int] = Counter()

    def __call__(self, alerts: Iterable[Alert]) -> Iterator[Chosen]:
        """The chosen alerts among these, and earlier ones that are chosen by now or have waited long enough."""
        yield from self._release(time.monotonic())
        for alert in alerts:
            yield from self._choose(alert, time.monotonic() + HELD_SECONDS)

    def rest(self) -> Iterator[Chosen]:
        """The alerts that still wait, which are then forgotten."""
        return self._release(float("inf"))

    def _release(self, now: float) -> Iterator[Chosen]:
        for _ in range(len(self._held)):
            until, alert = self._held.popleft()
            yield from self._choose(alert, until if until > now else 0.0)

    def _choose(self, alert: Alert, until: float) -> Iterator[Chosen]:
        """The alert if it is chosen. It may wait for its pod's labels until a time; 0: it may not wait."""
        cgroup = self._tracker.resolve(alert.cgroup_id)
        container = cgroup.container if cgroup else None
        if cgroup is None and not self._host:
            self.missed[alert.cgroup_id if len(self.missed) < MOST_HELD else 0] += 1
        elif container is None or container.sandbox:
            if self._host:
                yield alert, None
        else:
            chosen = self._selection.decide(container, self._tracker.labels(container))
            if chosen is None and until and len(self._held) < MOST_HELD:
                self._held.append((until, alert))
            elif chosen is not False:
                self.undecided += chosen is None
                yield alert, container
            elif container.nameless:
                self.missed[alert.cgroup_id if len(self.missed) < MOST_HELD else 0] += 1
