"""A queue of alerts, bounded in bytes, until a reader takes them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Protocol

from gadget._generated import gadget_pb2 as pb
from gadget.rules.messages import MOST_ALERTS

#: Of all that wait, and of those that are taken at a time; what an alert takes beside its bytes.
MOST_BYTES, TAKEN_BYTES, ALERT_BYTES = 4 << 20, 1 << 20, 512
#: How long an alert waits for its like that is kept.
KEPT_SECONDS = 0.5


class AlertKeeper(Protocol):
    """Keeps alerts, and knows which."""

    def keeps(self, rule: str) -> bool:
        """Whether alerts of a rule of that name are kept, if one fires."""

    def has(self, name: str) -> bool:
        """Whether the alert of an id is kept."""


class WithIds:
    """Gives an alert its id once the alert is kept under it. An alert that nobody keeps has no id."""

    def __init__(self, known: AlertKeeper | None) -> None:
        """Known keeps alerts; None: nobody does."""
        self._known = known
        self._held: deque[tuple[float, pb.Alert]] = deque()

    def __call__(self, alerts: Iterable[pb.Alert], *, rest: bool = False) -> list[pb.Alert]:
        """The alerts that can be sent now, in their order; with rest all alerts."""
        now = time.monotonic()
        self._held.extend((now + KEPT_SECONDS, each) for each in alerts)
        given: list[pb.Alert] = []
        while self._held:
            until, alert = self._held[0]
            if not (self._known and self._known.has(alert.id)):
                may_come = self._known is not None and self._known.keeps(alert.rule) and now < until
                if may_come and not rest and len(self._held) <= MOST_ALERTS:
                    break
                alert.ClearField("id")
            given.append(alert)
            self._held.popleft()
        return given


class Waiting:
    """A queue of alerts. Putting an alert in never waits."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Empty."""
        self._most = most_bytes
        self._queue: deque[tuple[pb.Alert, int]] = deque()
        self._bytes, self._is_closed = 0, False
        self._of: Counter[int] = Counter()  # bytes by container
        self._changed = threading.Condition()

    def put(self, alert: pb.Alert) -> bool:
        """Put in an alert. Returns whether there was room."""
        size, cgroup = alert.ByteSize() + ALERT_BYTES, alert.container.cgroup_id
        with self._changed:
            # one container may take half of the room: the rest is for others
            if self._bytes + size > self._most or (cgroup and self._of[cgroup] + size > self._most // 2):
                return False
            self._of[cgroup] += size
            self._queue.append((alert, size))
            self._bytes += size
            self._changed.notify()
        return True

    def take(self, seconds: float) -> list[pb.Alert]:
        """As many alerts as fit into a message: waiting ones, or those that come within seconds."""
        taken: list[pb.Alert] = []
        with self._changed:
            if not (self._queue or self._is_closed):
                self._changed.wait(seconds)
            room = TAKEN_BYTES
            while self._queue and room > 0 and len(taken) < MOST_ALERTS:
                alert, size = self._queue.popleft()
                taken.append(alert)
                self._bytes -= size
                self._of[alert.container.cgroup_id] -= size
                room -= size
            self._of = +self._of  # without those that have none left
        return taken

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing comes."""
        with self._changed:
            return self._is_closed and not self._queue

    def close(self) -> None:
        """No more come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
