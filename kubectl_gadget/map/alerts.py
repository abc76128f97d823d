"""Alerts that agents keep, by the box that each is about."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import Endpoint, name_of
from gadget.rules import messages
from gadget.rules.alerts import Alert
from gadget.rules.files import PRIORITIES
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.detect.live import AlertCheck
from kubectl_gadget.map.owners import MapNode, Owners, shown
from kubectl_gadget.stream.streams import Streams

#: Boxes whose alerts are kept, and how many of each, the newest; of further boxes they are counted alone.
MOST_SPOTS, MOST_OF_SPOT = 2000, 20
#: Letters of what an alert says, and of a rule's name: processes choose their names themselves.
LONGEST, LONGEST_NAME = 600, 120
#: Takes an alert, and who it is about.
Take = Callable[[Alert, pb.Container], None]


@dataclass
class BoxAlerts:
    """Alerts of a box: how many, and the worst of PRIORITIES by its place there."""

    count: int = 0
    worst: int = len(PRIORITIES) - 1
    last: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_OF_SPOT))


class Alerts:
    """Keeps alerts for those who look at a box."""

    def __init__(self, owners: Owners, most_spots: int = MOST_SPOTS) -> None:
        """Of no box yet."""
        self._owners, self._most_spots = owners, most_spots
        self._lock = threading.Lock()
        self._fired: dict[MapNode, BoxAlerts] = {}
        self._news: set[MapNode] = set()
        self._of_others = 0

    def add(self, alert: Alert, container: pb.Container) -> None:
        """Keep an alert."""
        spot = self._owners.spot(_end(alert, container))
        with self._lock:
            if spot not in self._fired and len(self._fired) >= self._most_spots:
                self._of_others += alert.count
                return
            fired = self._fired.setdefault(spot, BoxAlerts())
            fired.count += alert.count
            fired.worst = min(fired.worst, PRIORITIES.index(alert.rule.priority))
            fired.last.append(_told(alert, container))
            self._news.add(spot)

    def news(self) -> set[MapNode]:
        """The boxes that got alerts since this was asked last."""
        with self._lock:
            news, self._news = self._news, set()
        return news

    def sum(self, spot: MapNode) -> tuple[int, str]:
        """How many a box has, and their worst priority."""
        with self._lock:
            fired = self._fired.get(spot)
            return (fired.count, PRIORITIES[fired.worst]) if fired else (0, "")

    def of(self, spot: MapNode) -> list[dict[str, Any]]:
        """The last alerts of a box, the newest first."""
        with self._lock:
            fired = self._fired.get(spot)
            return sorted(fired.last, key=lambda each: -each["time"]) if fired else []

    def elsewhere(self, spots: Collection[MapNode]) -> int:
        """How many alerts belong to none of these boxes."""
        with self._lock:
            return self._of_others + sum(fired.count for spot, fired in self._fired.items() if spot not in spots)


def _end(alert: Alert, container: pb.Container) -> Endpoint:
    """The subject of an alert, as an end of a flow: a pod, or outside containers the node."""
    name = name_of(container.namespace, container.pod, container.container, container.id)
    if name.kind == "raw":
        return Endpoint("", 0, "node", "", alert.node)
    return Endpoint("", 0, *name)


def _told(alert: Alert, container: pb.Container) -> dict[str, Any]:
    """As drawer.js has it."""
    return {
        "time": alert.time_ns // 10**6,
        "priority": alert.rule.priority,
        "rule": shown(alert.rule.name, LONGEST_NAME),
        "pod": shown(container.pod or container.container or alert.node, LONGEST_NAME),
        "text": shown(alert.text, LONGEST),
        "count": alert.count,
        "id": alert.id,
    }


@contextmanager
def watched(targets: Targets, since_ns: int, take: Take) -> Iterator[None]:
    """Meanwhile give take what agents keep since a time, and what comes; those that judge by no rules say nothing."""
    first = pb.RunRequest(kept_alerts=pb.KeptAlerts(since_ns=since_ns, follow=True))
    with Streams(targets, first, lambda node: AlertCheck((), node)) as streams:
        threading.Thread(target=_read, args=(streams, take), name="alerts", daemon=True).start()
        try:
            yield
        finally:
            streams.stop()


def _read(streams: Streams, take: Take) -> None:
    for target, message in streams:
        if isinstance(message, pb.RunReply) and message.WhichOneof("what") == "batch":
            for each in message.batch.alerts:
                take(messages.read(each, message.node or target), each.container)
