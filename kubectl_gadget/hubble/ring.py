"""The flows that clients can ask for: the last ones, of all nodes together."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from gadget._generated import observer_pb2
from gadget.schema import Row
from kubectl_gadget.observe.lines import FIELDS

#: A flow becomes a message once somebody asks for it.
Convert = Callable[[Row], observer_pb2.GetFlowsResponse]
#: Namespaces are told of that had flows so lately, as Hubble does; nobody keeps more of them.
NAMESPACE_SECONDS, MOST_NAMESPACES = 3600, 10_000
#: Flows a second are those of so long.
RATE_SECONDS = 60
_TIME, _NODE, _SRC, _DST = (FIELDS.index(name) for name in ("timestamp", "node", "src", "dst"))


class Slot:
    """A flow, as a row until somebody asks for it and then as a message; or how many were lost there."""

    __slots__ = ("_data", "_row", "index", "lost", "node", "time_ns")

    def __init__(self, index: int, time_ns: int, row: Row | None, lost: int = 0) -> None:
        """Number index of all."""
        self.index, self.time_ns, self.lost = index, time_ns, lost
        self.node: str = row[_NODE] if row else ""
        self._row, self._data = row, b""

    def message(self, convert: Convert) -> observer_pb2.GetFlowsResponse:
        """The flow for clients. Any thread may ask: what it becomes is kept before the row is let go."""
        row = self._row
        if row is None:
            return observer_pb2.GetFlowsResponse.FromString(self._data)
        message = convert(row)
        self._data, self._row = message.SerializeToString(), None
        return message


class FlowRing:
    """The last flows. One thread adds; any number read, none of which another or the writer waits for."""

    def __init__(self, size: int, most_namespaces: int = MOST_NAMESPACES) -> None:
        """Room for size."""
        self.size, self.written, self._most_namespaces = size, 0, most_namespaces
        self.seen_of: Counter[str] = Counter()
        self.kept_of: Counter[str] = Counter()
        self._slots: list[Slot | None] = [None] * size
        self._namespaces: dict[str, int] = {}
        self._came = threading.Condition()
        self.is_over = False

    @property
    def oldest(self) -> int:
        """The number of the first that is kept."""
        return max(self.written - self.size, 0)

    @property
    def seen(self) -> int:
        """How many flows have come."""
        return sum(self.seen_of.values())

    @property
    def kept(self) -> int:
        """How many flows are kept."""
        return sum(self.kept_of.values())

    def add(self, rows: Sequence[Row]) -> None:
        """Keep flows."""
        for row in rows:
            self._put(Slot(self.written, row[_TIME], row))
            for end in (row[_SRC], row[_DST]):
                if end and end.namespace:
                    self._namespaces[end.namespace] = max(row[_TIME], self._namespaces.get(end.namespace, 0))
        self.seen_of.update([row[_NODE] for row in rows])
        if len(self._namespaces) > self._most_namespaces:
            latest = sorted(self._namespaces.items(), key=lambda item: -item[1])
            self._namespaces = dict(latest[: self._most_namespaces // 2])
        with self._came:
            self._came.notify_all()

    def lose(self, count: int) -> None:
        """Keep that so many flows did not come."""
        self._put(Slot(self.written, time.time_ns(), None, count))
        with self._came:
            self._came.notify_all()

    def _put(self, slot: Slot) -> None:
        at = slot.index % self.size
        if (before := self._slots[at]) and not before.lost:
            self.kept_of[before.node] -= 1
        if not slot.lost:
            self.kept_of[slot.node] += 1
        self._slots[at] = slot
        self.written += 1

    def get(self, index: int) -> Slot | None:
        """One of those that were written, by its number; None if another has taken its place."""
        slot = self._slots[index % self.size]
        return slot if slot and slot.index == index else None

    def wait(self, index: int, seconds: float) -> None:
        """Wait until that one is written, but no longer."""
        with self._came:
            self._came.wait_for(lambda: self.is_over or self.written > index, seconds)

    def end(self) -> None:
        """Let go of those who wait: nothing comes any more."""
        self.is_over = True
        with self._came:
            self._came.notify_all()

    def backwards(self) -> Iterator[Slot]:
        """All that are kept, the last one first."""
        for index in range(self.written - 1, self.oldest - 1, -1):
            if slot := self.get(index):
                yield slot

    def rate(self) -> float:
        """Flows a second, of late."""
        since, count = time.time_ns() - RATE_SECONDS * 10**9, 0
        for slot in self.backwards():
            if slot.time_ns < since:
                break
            count += not slot.lost
        return count / RATE_SECONDS

    def namespaces(self) -> list[str]:
        """Those that had flows of late, by name."""
        since = time.time_ns() - NAMESPACE_SECONDS * 10**9
        return sorted(name for name, last in self._namespaces.copy().items() if last >= since)
