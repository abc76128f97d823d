"""Flows added up to edges, by minute, for pages that ask what has changed since they last asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Any

from gadget.catalog import Gadget
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.schema import Column, Row
from gadget.text import counted
from kubectl_gadget.map.alerts import Alerts
from kubectl_gadget.map.owners import MapNode, Owners, shown
from kubectl_gadget.observe.lines import FIELDS, FlowText, named, process_of
from kubectl_gadget.page import Message

MINUTE_NS = 60 * 10**9
#: What is older is added up without a time: minutes that are kept, and sums of edges in all of them.
MOST_MINUTES = 60
MOST_SUMS = 100_000
#: Flows of further pairs are counted, and the page says how many.
MOST_EDGES = 20_000
#: Flows that an edge keeps for who looks at it; fewer if all edges together have too many.
MOST_OF_EDGE = 20
MOST_FLOWS = 50_000
#: Words that an edge keeps of a kind, as its ports and pods: who scans ports is one edge, not 65,535 words.
MOST_WORDS = 12
#: Changes in one message.
AT_ONCE = 2000
#: Quarters of powers of two, so that a round-trip time is told within a tenth.
BUCKETS_PER_OCTAVE = 4
OLDER = 0  # the minute of what has no time any more
_DROPPED = ("dropped", "rejected")
_STATE = "state"


@dataclass
class Sums:
    """What was seen of an edge at one of its ends."""

    connections: int = 0
    failed: int = 0
    dropped: int = 0
    sent: int = 0
    received: int = 0
    last_ns: int = 0
    rows: int = 0
    rtt: dict[int, int] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Add those of another minute."""
        for name in ("connections", "failed", "dropped", "sent", "received", "rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_ns = max(self.last_ns, other.last_ns)
        for bucket, count in other.rtt.items():
            self.rtt[bucket] = self.rtt.get(bucket, 0) + count


class EdgeSums:
    """Sums of an edge in a minute, by either end: each end of a connection between two pods tells of it."""

    __slots__ = ("egress", "ingress")

    def __init__(self) -> None:
        self.egress, self.ingress = Sums(), Sums()

    def add(self, other: EdgeSums) -> None:
        """Add those of another minute."""
        self.egress.add(other.egress)
        self.ingress.add(other.ingress)

    def told(self) -> list[Any]:
        """The sums in the form of model.js, from the end that saw more."""
        best = max(self.egress, self.ingress, key=lambda sums: (sums.connections, sums.rows))
        rtt = self.egress.rtt or self.ingress.rtt
        last = max(self.egress.last_ns, self.ingress.last_ns) // 10**9
        return [best.connections, best.failed, best.dropped, best.sent, best.received, last, [*rtt.items()]]


@dataclass
class Edge:
    """Two spots of which one talks to the other."""

    ends: tuple[int, int]
    words: Mapping[str, dict[str, None]] = field(
        default_factory=lambda: {name: {} for name in ("ports", "pods", "peers", "verdicts", "domains")}
    )
    flows: deque[Row] = field(default_factory=deque)

    def note(self, name: str, word: str) -> bool:
        """Keep a word, if there is room. Whether that changed anything."""
        known = self.words[name]
        if not word or word in known or len(known) > MOST_WORDS:
            return False
        known[word if len(known) < MOST_WORDS else "…"] = None
        return True


class Edges(FlowText):
    """Takes flows as an output does, and tells pages of the edges between those who had them."""

    def __init__(
        self,
        gadget: Gadget,
        known: Mapping[str, Column],
        owners: Owners,
        alerts: Alerts | None = None,
        *,
        most_minutes: int = MOST_MINUTES,
        most_edges: int = MOST_EDGES,
        most_flows: int = MOST_FLOWS,
    ) -> None:
        """The fields as an agent knows them."""
        super().__init__(gadget, known)
        self._most_minutes, self._most_edges, self._most_flows = most_minutes, most_edges, most_flows
        self._owners = owners
        self._alerts = alerts or Alerts(owners)
        self._lock = threading.Lock()
        self._version = 0
        self._changed: dict[Hashable, int] = {}  # in the order of the versions
        self._spots: dict[MapNode, int] = {}
        self._named: list[MapNode] = []
        self._labels: dict[int, list[str]] = {}
        self._told_owners = owners.known
        self._edges: dict[tuple[int | None, int | None], int] = {}
        self._all: list[Edge] = []
        self._minutes: dict[int, dict[int, EdgeSums]] = {}
        self._first = 0
        self._flows, self._of_edge = 0, MOST_OF_EDGE
        self._left_out = 0
        self._state: dict[str, Any] = {}

    def write(self, rows: Sequence[Row]) -> None:
        """Add flows."""
        with self._lock:
            for row in rows:
                self._add(row)
            self._forget()

    def refresh(self, sum_up: Callable[[], str]) -> None:
        """Tell pages how much there was so far."""
        told = sum_up()
        if self._left_out:
            told += f"; {self._left_out:,} of further pairs left out"
        if others := self._alerts.elsewhere(self._spots):
            told += f"; {counted(others, 'alert')} of what has no flows here"
        self.tell({**self._state, "told": told})

    def tell(self, state: dict[str, Any]) -> None:
        """Tell pages the state of the stream."""
        if state != self._state:
            with self._lock:
                self._state = state
                self._note(_STATE)

    def _add(self, row: Row) -> None:
        values = dict(zip(FIELDS, row, strict=True))
        word = self.words(values)
        egress = word["direction"] == "egress"
        ends = (values["src"], values["dst"]) if egress else (values["dst"], values["src"])
        at = self._edge((self._owners.spot(ends[0]), self._owners.spot(ends[1])))
        if at is None:
            self._left_out += 1
            return
        edge = self._all[at]
        protocol = word["protocol"].upper()
        port = f"{ends[1].port}/{protocol}" if ends[1] and ends[1].port else protocol
        pods = [shown(end.name) if end and end.kind == "pod" else "" for end in ends]
        verdict = word["verdict"] if word["type"] != "waiting" else ""
        words = {"ports": port, "pods": pods[0], "peers": pods[1], "verdicts": verdict}
        words["domains"] = shown(values.get("domain") or "")
        news = [edge.note(name, text) for name, text in words.items()]
        if any(news) or ("edge", at) not in self._changed:
            self._note(("edge", at))
        self._keep(edge, row)
        minute = values["timestamp"] // MINUTE_NS
        minute = minute if minute >= self._first else OLDER
        both = self._minutes.setdefault(minute, {}).setdefault(at, EdgeSums())
        _count(both.egress if egress else both.ingress, values, word, egress=egress)
        self._note((minute, at))

    def _edge(self, ends: tuple[MapNode, MapNode]) -> int | None:
        """The number of an edge. None if it is one too many, of whose ends nothing is kept either."""
        known = (self._spots.get(ends[0]), self._spots.get(ends[1]))
        at = self._edges.get(known)
        if at is None and len(self._edges) < self._most_edges:
            spots = (self._spot(ends[0]), self._spot(ends[1]))
            at = self._edges[spots] = len(self._all)
            self._all.append(Edge(spots))
        return at

    def _spot(self, spot: MapNode) -> int:
        if spot not in self._spots:
            self._spots[spot] = len(self._spots)
            self._named.append(spot)
            self._note(("spot", self._spots[spot]))
            if self._alerts.sum(spot)[0]:
                self._note(("alerts", self._spots[spot]))
            self._note_labels(spot, self._spots[spot])
        return self._spots[spot]

    def _note_labels(self, spot: MapNode, at: int) -> None:
        labels = self._owners.labels(spot)
        if labels != self._labels.get(at, []):
            self._labels[at] = labels
            self._note(("labels", at))

    def _note(self, key: Hashable) -> None:
        self._version += 1
        self._changed.pop(key, None)
        self._changed[key] = self._version

    def _keep(self, edge: Edge, row: Row) -> None:
        edge.flows.append(row)
        self._flows += 1
        self._flows -= _trim(edge, self._of_edge)
        while self._flows > self._most_flows and self._of_edge > 1:
            self._of_edge //= 2
            self._flows -= sum(_trim(each, self._of_edge) for each in self._all)

    def _forget(self) -> None:
        """Add what is too old, or too much, to what has no time."""
        while len(self._minutes) > 2 and (
            len(self._minutes) > self._most_minutes + 1 or sum(map(len, self._minutes.values())) > MOST_SUMS
        ):
            oldest = min(minute for minute in self._minutes if minute != OLDER)
            before = self._minutes.setdefault(OLDER, {})
            for at, both in self._minutes.pop(oldest).items():
                before.setdefault(at, EdgeSums()).add(both)
                self._changed.pop((oldest, at), None)
                self._note((OLDER, at))
            self._first = oldest + 1
            self._note(_STATE)

    def changes(self, since: int) -> tuple[int, Iterator[Message]]:
        """The newest version, and messages with what has changed since one; 0 is before all."""
        with self._lock:
            for spot in self._alerts.news() & self._spots.keys():
                self._note(("alerts", self._spots[spot]))
            if self._told_owners is not self._owners.known:
                self._told_owners = self._owners.known
                for spot, at in self._spots.items():
                    self._note_labels(spot, at)
            keys = []
            for key in reversed(self._changed):
                if self._changed[key] <= since:
                    break
                keys.append(key)
            version = self._version
        keys.reverse()
        return version, self._messages(keys)

    def _messages(self, keys: list[Hashable]) -> Iterator[Message]:
        for at in range(0, len(keys), AT_ONCE):
            message: dict[str, list[Any]] = {"spots": [], "labels": [], "alerts": [], "edges": [], "sums": []}
            with self._lock:
                for key in keys[at : at + AT_ONCE]:
                    self._fill(message, key)
                whole = {**message, "first": self._first, "state": self._state}
            yield whole

    def _fill(self, message: dict[str, list[Any]], key: Any) -> None:
        if key == _STATE:
            return
        kind, at = key
        if kind == "spot":
            message["spots"].append([at, *self._named[at]])
        elif kind == "labels":
            message["labels"].append([at, self._labels[at]])
        elif kind == "alerts":
            message["alerts"].append([at, *self._alerts.sum(self._named[at])])
        elif kind == "edge":
            edge = self._all[at]
            message["edges"].append([at, *edge.ends, *map(list, edge.words.values())])
        elif both := self._minutes.get(kind, {}).get(at):
            message["sums"].append([kind, at, *both.told()])

    def flows(self, at: int) -> list[dict[str, Any]]:
        """The last flows of an edge, the newest first."""
        with self._lock:
            rows = [*self._all[at].flows] if 0 <= at < len(self._all) else []
        return [self._flow(dict(zip(FIELDS, row, strict=True))) for row in reversed(rows)]

    def alerts(self, at: int) -> list[dict[str, Any]]:
        """The last alerts of a box, the newest first."""
        with self._lock:
            spot = self._named[at] if 0 <= at < len(self._named) else None
        return self._alerts.of(spot) if spot else []

    def _flow(self, row: Mapping[str, Any]) -> dict[str, Any]:
        word = self.words(row)
        ends, process = [named(row["src"]), named(row["dst"])], process_of(row)
        at = 0
        if word["direction"] == "ingress":
            ends, at = ends[::-1], 1
        ends[at] += process
        how = self.how(row, word)
        return {"time": row["timestamp"] // 10**6, "from": ends[0], "to": ends[1], "protocol": word["protocol"],
                "verdict": word["verdict"], "how": how}  # fmt: skip


def _trim(edge: Edge, most: int) -> int:
    """Keep the last flows of an edge. How many are gone."""
    gone = max(len(edge.flows) - most, 0)
    for _ in range(gone):
        edge.flows.popleft()
    return gone


def _count(sums: Sums, row: Mapping[str, Any], word: Mapping[str, str], *, egress: bool) -> None:
    sums.rows += 1
    sums.last_ns = max(sums.last_ns, row["timestamp"])
    if word["type"] in ("begun", "failed"):
        sums.connections += 1
    if word["type"] == "failed":
        if word["verdict"] in _DROPPED:
            sums.dropped += 1
        else:
            sums.failed += 1
    if word["type"] != "ended":
        return
    up, down = (row["sent"], row["received"]) if egress else (row["received"], row["sent"])
    sums.sent += up or 0
    sums.received += down or 0
    rtt = row["rtt"]
    if rtt not in (None, 0, DURATION_UNKNOWN):
        bucket = int(BUCKETS_PER_OCTAVE * log2(rtt))
        sums.rtt[bucket] = sums.rtt.get(bucket, 0) + 1
