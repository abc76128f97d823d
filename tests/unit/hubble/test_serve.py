"""hubble serve: what Hubble's clients ask of a server, asked of ours."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import create_server
from threading import Event, Thread
from typing import cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gadget._generated import flow_pb2, observer_pb2, peer_pb2, peer_pb2_grpc, relay_pb2
from gadget.errors import GadgetError
from kubectl_gadget.hubble.server import Server
from kubectl_gadget.hubble.state import HubbleState
from tests.conftest import Cli, run_cli, wait_until
from tests.unit.hubble.served import Served, serving
from tests.unit.observe.flows import FLOWS


@pytest.fixture
def served(tmp_path: Path, start_cli: Callable[..., Cli]) -> Iterator[Served]:
    """A server of the flows of tests."""
    with serving(tmp_path, start_cli) as found:
        yield found


def test_flows(served: Served) -> None:
    """`hubble observe` needs no option but --server: GetFlows has the last flows that agents keep, in order."""
    flows = [response.flow for response in served.flows(number=3)]
    assert [flow.l4.WhichOneof("protocol") for flow in flows] == ["TCP", "TCP", "UDP"]
    assert [flow.source.pod_name for flow in flows] == ["db-0"] * 3
    assert [flow.verdict for flow in flows] == [flow_pb2.FORWARDED, flow_pb2.ERROR, flow_pb2.ERROR]
    assert all(flow.HasField("is_reply") and not flow.is_reply.value for flow in flows)
    assert len(served.flows()) == len(FLOWS)


def test_status_where_another_listens() -> None:
    """--status at an address that somebody has is told, not shared with them."""
    with closing(create_server(("127.0.0.1", 0))) as other, pytest.raises(GadgetError, match="--status"):
        HubbleState(f"127.0.0.1:{other.getsockname()[1]}", cast(Server, None))
    first = HubbleState("127.0.0.1:0", cast(Server, None))
    with first, pytest.raises(GadgetError, match="--status"):
        HubbleState(f"127.0.0.1:{first.port}", cast(Server, None))


def test_follow(served: Served) -> None:
    """With follow, flows go on to come, after the last N."""
    call = served.observer.GetFlows(observer_pb2.GetFlowsRequest(number=1, follow=True))
    assert next(call).flow.source.pod_name == "db-0"
    served.agent.more()
    assert [next(call).flow.source.pod_name for _ in range(2)] == ["cart-0", "cart-0"]
    call.cancel()


def test_status(served: Served) -> None:
    """`hubble status`: health is asked for by Hubble's own name of the service; nodes and flows are counted."""
    health = health_pb2_grpc.HealthStub(served.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="hubble.server.Observer"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    status = served.observer.ServerStatus(observer_pb2.ServerStatusRequest())
    assert (status.num_flows, status.max_flows, status.seen_flows) == (len(FLOWS), 65_535, len(FLOWS))
    assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (1, 0)
    assert status.flows_rate == pytest.approx(len(FLOWS) / 60)
    assert status.uptime_ns
    assert status.version.startswith("kubectl-gadget ")


def test_lists(served: Served) -> None:
    """`hubble list nodes` and `list namespaces`, and `watch peers`, which has one for all nodes."""
    (node,) = served.observer.GetNodes(observer_pb2.GetNodesRequest()).nodes
    assert (node.name, node.state, node.num_flows) == ("node-a", relay_pb2.NODE_CONNECTED, len(FLOWS))
    namespaces = served.observer.GetNamespaces(observer_pb2.GetNamespacesRequest()).namespaces
    assert [each.namespace for each in namespaces] == ["data", "front", "shop"]
    peer = next(peer_pb2_grpc.PeerStub(served.channel).Notify(peer_pb2.NotifyRequest()))
    assert (peer.address, peer.type) == (served.address, peer_pb2.PEER_ADDED)


def test_agent_away(tmp_path: Path, start_cli: Callable[..., Cli]) -> None:
    """A node whose agent is away is told as unavailable; the others' flows go on, and what it sent can be asked for."""
    with serving(tmp_path, start_cli, ("node-a", "node-b")) as served:
        served.agent.die()

        def away() -> list[str]:
            return [*served.observer.ServerStatus(observer_pb2.ServerStatusRequest()).unavailable_nodes]

        assert wait_until(away, "the node's end") == ["node-a"]
        nodes = served.observer.GetNodes(observer_pb2.GetNodesRequest()).nodes
        assert [(node.name, node.state) for node in nodes] == [
            ("node-a", relay_pb2.NODE_UNAVAILABLE),
            ("node-b", relay_pb2.NODE_CONNECTED),
        ]
        served.agents[1].more()
        wait_until(lambda: len(served.flows()) == 3 * len(FLOWS), "the flows of the other")


def test_others(served: Served) -> None:
    """Calls that there is nothing for are answered as Hubble answers those that it has not: unimplemented."""
    call = served.channel.unary_stream("/observer.Observer/GetAgentEvents")
    with pytest.raises(grpc.RpcError) as error:
        list(call(b""))
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_refused(served: Served) -> None:
    """What a request asks that is not known here is refused and not left out; so is what makes no sense."""
    unknown = flow_pb2.FlowFilter.FromString(b"\xaa\x01\x03GET")  # http_method = 21
    for request, said in (
        ({"whitelist": [unknown]}, "field 21 of flow.FlowFilter is not supported here"),
        ({"blacklist": [unknown]}, "field 21"),
        ({"first": True, "follow": True}, "first cannot be specified with follow"),
        ({"whitelist": [{"source_port": ["http"]}]}, "port 'http'"),
        ({"field_mask": FieldMask(paths=["source.nose"])}, "no field of flow.Flow"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            served.flows(**request)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert said in error.value.details()


def test_mask(served: Served) -> None:
    """Of a flow only the fields are sent that were asked for; those that no flow here has may be asked for."""
    paths = ["IP", "source.pod_name", "verdict", "is_reply", "uuid", "Summary", "l4"]
    (response,) = served.flows(number=1, field_mask=FieldMask(paths=paths))
    fields = {field.name for field, _ in response.flow.ListFields()}
    assert fields == {"IP", "source", "verdict", "is_reply", "Summary", "l4"}
    assert [field.name for field, _ in response.flow.source.ListFields()] == ["pod_name"]


def test_lost(served: Served) -> None:
    """What agents have lost is told to clients, as LostEvents that no filter leaves out."""
    call = served.observer.GetFlows(
        observer_pb2.GetFlowsRequest(number=1, follow=True, whitelist=[{"source_port": ["40004"]}])  # the last one's
    )
    assert next(call).flow.source.pod_name == "db-0"
    served.agent.more(lost=17)
    event = next(call).lost_events
    assert (event.source, event.num_events_lost) == (flow_pb2.OBSERVER_EVENTS_QUEUE, 17)
    call.cancel()


def test_clients_are_bounded(served: Served) -> None:
    """Clients that stay are 32 at most; one more is refused, and the others go on."""
    calls = [served.observer.GetFlows(observer_pb2.GetFlowsRequest(number=1, follow=True)) for _ in range(32)]
    assert all(next(call).flow for call in calls)
    with pytest.raises(grpc.RpcError) as error:
        served.flows(number=1)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.observer.ServerStatus(observer_pb2.ServerStatusRequest()).seen_flows
    for call in calls:
        call.cancel()
    wait_until(lambda: _answers(served), "a free place")


def _answers(served: Served) -> bool:
    try:
        return bool(served.flows(number=1))
    except grpc.RpcError:
        return False


def test_state(tmp_path: Path, start_cli: Callable[..., Cli]) -> None:
    """What deploy --hubble runs has a row of its own in `status`: ready, with its flows and clients."""
    where = f"unix://{tmp_path}/state.sock"
    with serving(tmp_path, start_cli, ("node-a",), "--status", where) as served:
        call = served.observer.GetFlows(observer_pb2.GetFlowsRequest(number=1, follow=True))
        assert next(call).flow
        done = run_cli("status", "--agent", where, "-o", "json")
        row = json.loads(done.stdout)
        call.cancel()
    assert (row["node"], row["state"], row["hubble"]) == ("hubble", "ready", f"{len(FLOWS)} flows, 1 client")


def test_end(served: Served) -> None:
    """Ctrl-C ends it, with clients or without, and the last line tells how complete it was."""
    call = served.observer.GetFlows(observer_pb2.GetFlowsRequest(number=1, follow=True))
    assert next(call).flow
    _, err = served.cli.finish()
    assert served.cli.process.returncode == 0, err
    assert err.strip().endswith("nothing lost.")


def test_address_in_use(tmp_path: Path) -> None:
    """A port that another has is an error that says so, and so is an address without one."""
    with closing(create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run_cli("hubble", "serve", "--agent", f"unix://{tmp_path}/none", "--listen", address)
    assert (done.returncode, done.stderr) == (1, f"error: --listen {address}: address already in use\n")
    done = run_cli("hubble", "serve", "--agent", f"unix://{tmp_path}/none", "--listen", "localhost")
    assert (done.returncode, done.stderr.startswith("error: --listen localhost: want HOST:PORT")) == (2, True)


def test_end_in_a_flood(served: Served) -> None:
    """Ctrl-C ends hubble serve in order though flows come faster than it takes them, from an agent that goes on."""
    served.agent.deaf = True
    over = Event()

    def flood() -> None:
        while not over.wait(0.001):
            served.agent.more(100 - served.agent.waiting)

    thread = Thread(target=flood)
    thread.start()
    try:
        wait_until(lambda: len(served.flows()) > 1000, "flows")
        served.cli.process.send_signal(signal.SIGINT)
        _, said = served.cli.process.communicate(timeout=20)
    finally:
        over.set()
        thread.join()
    assert served.cli.process.returncode == 0, said
    assert " from 1 node, " in said


def test_end_with_a_flood(tmp_path: Path, start_cli: Callable[..., Cli]) -> None:
    """Ctrl-C ends hubble serve within a second though 160,000 flows come at once, from an agent that goes on."""
    took = []
    for number in range(3):
        with serving(tmp_path, start_cli, [f"node-{number}"]) as served:
            served.agent.deaf = True
            served.agent.flood(160_000)
            wait_until(
                lambda served=served: (
                    served.observer.ServerStatus(observer_pb2.ServerStatusRequest()).seen_flows > 50_000
                ),
                "flows",
            )
            served.cli.process.send_signal(signal.SIGINT)
            began = time.monotonic()
            _, said = served.cli.process.communicate(timeout=20)
            took.append(time.monotonic() - began)
        assert served.cli.process.returncode == 0, said
        assert " flows from 1 node, " in said
    assert sorted(took)[1] < 1, took
