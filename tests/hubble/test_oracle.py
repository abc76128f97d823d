"""Which flows a client gets, beside Hubble's own server with the same flows and the same requests."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf.message import Message

from gadget._generated import flow_pb2, observer_pb2
from gadget.errors import UsageError
from kubectl_gadget.hubble.ring import FlowRing
from kubectl_gadget.hubble.server import FlowsCall
from kubectl_gadget.observe.lines import FIELDS
from tests.hubble.generated import BEGAN, make_flow, make_request
from tests.unit.hubble.test_reading import Context

#: So many worlds, each of so many flows and asked so many times: 10,000 requests, of which each is judged of all flows.
WORLDS, FLOWS, REQUESTS = 20, 50, 500


class Session:
    """Rows that are messages already."""

    def message(self, row: tuple[Any, ...]) -> observer_pb2.GetFlowsResponse:
        """The flow that a row carries."""
        return observer_pb2.GetFlowsResponse(flow=row[-1])


def framed(messages: Sequence[Message]) -> bytes:
    """Each with its length before it, and an empty one behind all: one that has nothing set says that a field is 0."""
    written = [message.SerializeToString() or b"\x18\x00" for message in messages]
    return b"".join(struct.pack(">I", len(data)) + data for data in [*written, b""])


def without_empty(message: Message) -> Message:
    """Without messages in it that have nothing: Hubble leaves them where a mask names a field of what there is not."""
    message.DiscardUnknownFields()
    for field, value in message.ListFields():
        if isinstance(value, Message) and not without_empty(value).ByteSize():
            message.ClearField(field.name)
    return message


def ring_of(flows: Sequence[flow_pb2.Flow]) -> FlowRing:
    """A ring that has them."""
    ring = FlowRing(4095)
    empty = dict.fromkeys(FIELDS)
    ring.add([(*{**empty, "timestamp": flow.time.ToNanoseconds(), "node": "n"}.values(), flow) for flow in flows])
    return ring


def ours(ring: FlowRing, request: observer_pb2.GetFlowsRequest) -> list[flow_pb2.Flow] | str:
    """What a client of ours gets, or why it gets nothing."""
    try:
        reading = FlowsCall(ring, Session(), request)  # type: ignore[arg-type]
    except UsageError as error:
        return str(error)
    return [response.flow for response in reading.responses(Context())]  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(WORLDS))
def test_selection(binaries: Path, seed: int) -> None:
    """Filters, number, first, since, until and masks choose what Hubble's own server chooses, and what it refuses is refused."""
    random = Random(seed)
    seconds = [BEGAN + number // 2 for number in range(FLOWS)]
    flows = [make_flow(random, each) for each in seconds]
    if seed % 2:  # of several nodes they come out of order
        random.shuffle(flows)
    requests = [make_request(random, seconds) for _ in range(REQUESTS)]
    last = flow_pb2.Flow(Summary="Hubble never reads the newest of its ring", time=flows[-1].time)
    done = subprocess.run(
        [str(binaries / "oracle")],
        input=framed([*flows, last]) + framed(requests),
        stdout=subprocess.PIPE,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    ring, seen = ring_of(flows), Counter[str]()
    for request, answer in zip(requests, answers, strict=True):
        found = ours(ring, request)
        if answer["code"]:
            assert isinstance(found, str), f"Hubble refuses it: {answer['error']}\n{request}"
            seen["refused"] += 1
            continue
        assert not isinstance(found, str), f"{found}: Hubble does not refuse it\n{request}"
        wanted = [
            observer_pb2.GetFlowsResponse.FromString(base64.b64decode(each)) for each in answer["responses"] or ()
        ]
        assert list(map(without_empty, found)) == [without_empty(each.flow) for each in wanted], request
        seen["some" if 0 < len(found) < FLOWS else "all" if found else "none"] += 1
    assert min(seen[kind] for kind in ("refused", "some", "all", "none")) >= 5, seen


def test_oracle_tells_apart(binaries: Path) -> None:
    """The oracle itself refuses, chooses and leaves out: two flows, of which one is asked for."""
    flows = [flow_pb2.Flow(source={"pod_name": name}, time={"seconds": 1}) for name in ("a", "b", "last")]
    requests = [
        observer_pb2.GetFlowsRequest(whitelist=[{"source_pod": ["/b"]}]),
        observer_pb2.GetFlowsRequest(whitelist=[{"source_pod": [""]}]),
        observer_pb2.GetFlowsRequest(first=True, follow=True),
    ]
    done = subprocess.run(
        [str(binaries / "oracle")], input=framed(flows) + framed(requests), stdout=subprocess.PIPE, check=True
    )
    chosen, empty, both = map(json.loads, done.stdout.splitlines())
    (one,) = [observer_pb2.GetFlowsResponse.FromString(base64.b64decode(each)) for each in chosen["responses"]]
    assert one.flow == flows[1]
    assert "must not be empty" in empty["error"] and both["code"] == 3
