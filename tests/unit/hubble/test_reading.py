"""GetFlows: which of the flows that are kept a client gets, and what of those that it was too slow for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gadget._generated import flow_pb2, observer_pb2
from gadget.endpoints import Endpoint
from kubectl_gadget.hubble.ring import NAMESPACE_SECONDS, FlowRing
from kubectl_gadget.hubble.server import FlowsCall
from kubectl_gadget.observe.lines import FIELDS

SECOND = 10**9


def row(number: int, namespace: str = "shop") -> tuple[Any, ...]:
    """A flow at so many seconds, of web-0 if they are even, else of web-1."""
    values = dict.fromkeys(FIELDS) | {
        "timestamp": number * SECOND, "node": "node-a", "src": Endpoint("10.0.0.1", number, "pod", namespace, f"web-{number % 2}"),
    }  # fmt: skip
    return tuple(values.values())


class Session:
    """Makes messages of rows."""

    @staticmethod
    def message(values: tuple[Any, ...]) -> observer_pb2.GetFlowsResponse:
        """With what tests choose by."""
        source = values[FIELDS.index("src")]
        end = {"namespace": source.namespace, "pod_name": source.name}
        time = {"seconds": values[0] // SECOND}
        return observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(time=time, source=end), node_name=values[1])


class Context:
    """A client that is there for so many flows."""

    def __init__(self, patience: int = 1_000_000) -> None:
        self.patience = patience

    def is_active(self) -> bool:
        """Whether it is."""
        self.patience -= 1
        return self.patience >= 0


def responses(ring: FlowRing, **request: Any) -> Iterator[observer_pb2.GetFlowsResponse]:
    """What a client gets."""
    reading = FlowsCall(ring, Session(), observer_pb2.GetFlowsRequest(**request))  # type: ignore[arg-type]
    return reading.responses(Context())  # type: ignore[arg-type]


def times(ring: FlowRing, **request: Any) -> list[int]:
    """The seconds of the flows that a client gets."""
    return [response.flow.time.seconds for response in responses(ring, **request)]


@pytest.fixture
def ring() -> FlowRing:
    """Of ten flows the last eight are kept: 2 to 9."""
    made = FlowRing(8)
    made.add([row(number) for number in range(10)])
    return made


EVEN = {"whitelist": [{"source_pod": ["shop/web-0"]}]}
CHOICES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "nothing set: all": ({}, [2, 3, 4, 5, 6, 7, 8, 9]),
    "the last": ({"number": 3}, [7, 8, 9]),
    "the first": ({"number": 3, "first": True}, [2, 3, 4]),
    "more than there are": ({"number": 100}, [2, 3, 4, 5, 6, 7, 8, 9]),
    "the last that pass": ({"number": 2, **EVEN}, [6, 8]),
    "the first that pass": ({"number": 2, "first": True, **EVEN}, [2, 4]),
    "all but those": ({"number": 2, "blacklist": EVEN["whitelist"]}, [7, 9]),
    "allowed and denied": ({**EVEN, "blacklist": [{"source_pod": ["shop/web-"]}]}, []),
    "since": ({"since": {"seconds": 7}}, [7, 8, 9]),
    "since beats number, which limits": ({"since": {"seconds": 5}, "number": 2}, [5, 6]),
    "since, of those that pass": ({"since": {"seconds": 5}, **EVEN}, [6, 8]),
    "since and first": ({"since": {"seconds": 5}, "number": 2, "first": True}, [5, 6]),
    "until": ({"until": {"seconds": 4}}, [2, 3, 4]),
    "from one to the other": ({"since": {"seconds": 4}, "until": {"seconds": 6}}, [4, 5, 6]),
    "since the future": ({"since": {"seconds": 99}}, []),
}


@pytest.mark.parametrize(("request_", "wanted"), CHOICES.values(), ids=CHOICES)
def test_selection(ring: FlowRing, request_: dict[str, Any], wanted: list[int]) -> None:
    """first, last, since, until and filters choose what Hubble's server chooses."""
    assert times(ring, **request_) == wanted


def test_follow(ring: FlowRing) -> None:
    """Follow has the last N, or those since a time, and then what comes; alone it has what comes."""
    for request, before in (({"number": 2}, [8, 9]), ({"since": {"seconds": 9}}, [9]), ({}, [])):
        made = FlowRing(8)
        made.add([row(number) for number in range(10)])
        coming = responses(made, follow=True, **request)
        made.add([row(10)])
        assert [next(coming).flow.time.seconds for _ in (*before, 10)] == [*before, 10]


def test_slow_client() -> None:
    """A client that is too slow is told how many flows it has lost, in one event; nobody else waits for it."""
    ring = FlowRing(8)
    ring.add([row(number) for number in range(8)])
    slow = responses(ring)
    assert next(slow).flow.time.seconds == 0
    ring.add([row(number) for number in range(8, 28)])  # at once: whoever writes never waits
    (event,) = list(slow)
    assert (event.lost_events.source, event.lost_events.num_events_lost) == (flow_pb2.HUBBLE_RING_BUFFER, 7 + 12)
    assert times(ring, number=1) == [27]


def test_lost(ring: FlowRing) -> None:
    """What agents have lost has its place among the flows, whatever is asked for, and does not count as one."""
    ring.lose(17)
    ring.add([row(10), row(11)])
    found = list(responses(ring, number=2, **EVEN))
    assert [(each.flow.time.seconds, each.lost_events.num_events_lost) for each in found] == [(8, 0), (0, 17), (10, 0)]
    assert (ring.kept, ring.seen) == (7, 12)


def test_gone_client(ring: FlowRing) -> None:
    """A client that is gone ends its call."""
    reading = FlowsCall(ring, Session(), observer_pb2.GetFlowsRequest(follow=True, number=4))  # type: ignore[arg-type]
    assert len(list(reading.responses(Context(3)))) == 3  # type: ignore[arg-type]


def test_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces are those with flows in the last hour, and bounded in number."""
    ring = FlowRing(4, most_namespaces=5)
    now = 10 * NAMESPACE_SECONDS
    monkeypatch.setattr("kubectl_gadget.hubble.ring.time.time_ns", lambda: now * SECOND)
    ring.add([row(now - NAMESPACE_SECONDS - 1, "old"), row(now - 1, "shop")])
    assert ring.namespaces() == ["shop"]
    ring.add([row(now - 10 + number, f"n{number}") for number in range(9)])
    assert ring.namespaces() == ["n8", "shop"]  # the latest
