"""The session behind `hubble serve`: flows of all nodes, into the ring that clients read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget._generated import observer_pb2, relay_pb2
from gadget.schema import Row, Schema
from kubectl_gadget.hubble.messages import message_of
from kubectl_gadget.hubble.metrics import FlowTotals
from kubectl_gadget.hubble.ring import FlowRing
from kubectl_gadget.observe.hubble import Flows
from kubectl_gadget.observe.session import FlowSession
from kubectl_gadget.output import Output, all_fields
from kubectl_gadget.stream.merge import TimedRow
from kubectl_gadget.stream.session import AT_ONCE
from kubectl_gadget.stream.streams import Message


class RingOutput(Flows):
    """Keeps rows in a ring, and makes them messages when they are asked for."""

    ring: FlowRing
    totals: FlowTotals | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Keep rows."""
        self.ring.add(rows)
        if self.totals:
            self.totals.add([self.response(row)["flow"] for row in rows])

    def message(self, row: Row) -> observer_pb2.GetFlowsResponse:
        """A row as clients get it."""
        return message_of(self.response(row), row[0])


class ServedSession(FlowSession):
    """Fills a ring with flows. A server's threads ask it how the nodes are."""

    def __init__(self, ring: FlowRing, totals: FlowTotals | None, caught_up: Callable[[], None], *args: Any) -> None:
        """Call caught_up once what agents have kept is in the ring; totals have it, too."""
        super().__init__(*args)
        self._ring, self._totals, self._tell_caught_up = ring, totals, caught_up
        self._lost = 0

    def _make_output(self, schema: Schema) -> Output:
        output = RingOutput(self._request.gadget, all_fields(schema))
        output.ring, output.totals = self._ring, self._totals
        return output

    def message(self, row: Row) -> observer_pb2.GetFlowsResponse:
        """A row of the ring as clients get it."""
        assert isinstance(self._output, RingOutput)
        return self._output.message(row)

    def _count(self, target: str, reply: pb.RunReply) -> None:
        super()._count(target, reply)
        lost = sum(node.lost for node in self._nodes.values())
        if lost > self._lost:
            self._ring.lose(lost - self._lost)
            if self._totals:
                self._totals.lose(lost - self._lost)
            self._lost = lost

    def _follow(self, messages: Iterable[Message], stop: Callable[[], None]) -> None:
        """At the end clients are gone: what is still on its way then is left, as is what is held."""
        wanted = takewhile(lambda _: self._output is None or not self._is_ending(), messages)
        super()._follow(wanted, stop)

    def _show(self, rows: list[TimedRow]) -> None:
        for at in range(0, len(rows), AT_ONCE):
            if not self._is_ending():
                super()._show(rows[at : at + AT_ONCE])

    def _caught_up(self) -> None:
        self._tell_caught_up()

    def nodes(self) -> dict[str, relay_pb2.NodeState]:
        """How each node is, by its name."""
        found = dict.fromkeys(self._away.copy(), relay_pb2.NODE_UNAVAILABLE)
        for target, node in self._nodes.copy().items():
            found.pop(target, None)
            is_there = target not in self._away and not node.silent
            found[node.decoder.node] = relay_pb2.NODE_CONNECTED if is_there else relay_pb2.NODE_UNAVAILABLE
        return found
