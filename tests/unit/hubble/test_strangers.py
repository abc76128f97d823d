"""hubble serve and clients that mean harm: the others go on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from gadget._generated import observer_pb2, observer_pb2_grpc
from tests.conftest import Cli, wait_until
from tests.unit.hubble.served import Served, serving
from tests.unit.observe.flows import FLOWS


@pytest.fixture
def served(tmp_path: Path, start_cli: Callable[..., Cli]) -> Iterator[Served]:
    """A server of the flows of tests."""
    with serving(tmp_path, start_cli) as found:
        yield found


@pytest.mark.parametrize(
    ("filters", "code", "said"),
    [
        ([{"source_pod": ["x" * 70_000]}], grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
        ([{"source_port": ["1"] * 1001}], grpc.StatusCode.INVALID_ARGUMENT, "more than 1,000 values"),
        ([{"source_port": ["1"]}] * 1001, grpc.StatusCode.INVALID_ARGUMENT, "more than 1,000 values"),
        ([{"source_label": ["a," * 1001 + "a"]}], grpc.StatusCode.INVALID_ARGUMENT, "more than 1,000 values"),
        ([{"dns_query": ["(((a{1,99}){1,99}){1,99})"]}], grpc.StatusCode.INVALID_ARGUMENT, "regular expression"),
    ],
    ids=["long", "values", "filters", "labels", "expression"],
)
def test_giant_requests(served: Served, filters: list[dict[str, list[str]]], code: grpc.StatusCode, said: str) -> None:
    """A request that would have the server compare for ever is refused."""
    with pytest.raises(grpc.RpcError) as error:
        served.flows(whitelist=filters)
    assert error.value.code() == code
    assert said in error.value.details()
    assert len(served.flows(number=1)) == 1


def test_who_reads_nothing(served: Served) -> None:
    """Clients that follow and read nothing hold up neither the flows nor those who read."""
    silent = []
    with ExitStack() as stack:
        for _ in range(20):
            channel = stack.enter_context(
                grpc.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)])
            )
            request = observer_pb2.GetFlowsRequest(number=1, follow=True)
            silent.append(observer_pb2_grpc.ObserverStub(channel).GetFlows(request))
        reads = served.observer.GetFlows(observer_pb2.GetFlowsRequest(number=1, follow=True))
        assert next(reads).flow
        for _ in range(12):
            served.agent.more(50)
            for _ in range(50 * len(FLOWS)):
                assert next(reads).WhichOneof("response_types") == "flow"
        reads.cancel()
    assert len(silent) == 20
    assert served.observer.ServerStatus(observer_pb2.ServerStatusRequest()).seen_flows == 601 * len(FLOWS)


def test_silent_connections(served: Served) -> None:
    """Any number of connections that say nothing keep others out for some seconds only."""
    host, _, port = served.address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection((host, int(port))))

        def answers() -> bool:
            with grpc.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                try:
                    request = observer_pb2.ServerStatusRequest()
                    return bool(observer_pb2_grpc.ObserverStub(channel).ServerStatus(request, timeout=2).max_flows)
                except grpc.RpcError:
                    return False

        wait_until(answers, "an answer")
