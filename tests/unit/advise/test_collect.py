from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unreachable
from gadget.kube.api import ApiError
from kubectl_gadget.advise.collect import PATHS, between, hear, look_up
from kubectl_gadget.advise.flows import FlowContext, Header
from kubectl_gadget.agents.targets import Targets
from tests.fakes import FakeAgent


class Recorder(FakeAgent):
    """An agent that has seen these flows."""

    flows: tuple[pb.Flow, ...] = ()
    pods: tuple[pb.FlowPod, ...] = ()

    def Flows(self, request: pb.FlowsRequest, context: grpc.ServicerContext) -> Iterator[pb.FlowsReply]:
        """Head and pods, then flows."""
        pods = [
            pb.FlowPod(uid="u-1", namespace="shop", name="cart-0", labels={"app": "cart"}, addresses=["10.244.0.1"]),
            pb.FlowPod(uid="docker", name=""),
            *self.pods,
        ]
        head = pb.FlowsHead(began_ns=5, losses=[pb.Loss(reason="table full", count=3)], addresses=["192.168.0.1"])
        yield pb.FlowsReply(node=self.node, head=head, pods=pods)
        yield pb.FlowsReply(node=self.node, flows=self.flows)


def flow(uid: str = "u-1", last: int = 10, count: int = 1, **more: Any) -> pb.Flow:
    peer = IPv6Address("::ffff:10.244.0.9").packed
    return pb.Flow(uid=uid, protocol=6, peer=peer, local=peer, port=80, count=count, first_ns=1, last_ns=last, **more)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Callable[[str], Recorder]]:
    made: list[Recorder] = []

    def make(node: str) -> Recorder:
        made.append(Recorder(tmp_path, node))
        return made[-1]

    yield make
    for each in made:
        each.die()


def test_what_is_missing_is_said(recorder, tmp_path: Path) -> None:
    """Traffic that the advice cannot be about is counted and told: of nodes without agent, of pods nobody knows."""
    good, older = recorder("node-a"), FakeAgent(tmp_path, "node-b")
    good.flows = (flow(), flow(uid=""), flow(uid=""), flow(uid="docker"))
    heard = hear(Targets({"node-a": good.reach, "node-b": older.reach}))
    older.die()
    (seen,) = heard.flows
    assert (seen.pod, seen.direction, seen.protocol, seen.peer, seen.port) == (
        "cart-0", "egress", "TCP", "10.244.0.9", 80,
    )  # fmt: skip
    assert heard.context.header.nodes == ("node-a",)
    assert [(lost.node, lost.reason, lost.count) for lost in heard.context.lost] == [("node-a", "table full", 3)]
    assert [pod.name for pod in heard.context.pods] == ["cart-0"]
    assert heard.context.notes == [
        "node-a: without 2 flows of pods that came and went while no agent was there",
        "node-a: without 1 flows of containers that belong to no pod",
        "without the traffic of node-b: node-b: its agent is older and cannot do this: "
        "update it with `kubectl gadget deploy`",
    ]


def test_former_addresses(recorder) -> None:
    """An address that a pod had before is its own only in its time."""
    agent = recorder("node-a")
    agent.pods = (
        pb.FlowPod(
            uid="u-2", namespace="shop", name="cart-1", first_ns=3, since_ns=11, last_ns=17, addresses=["10.244.0.2"],
            former=[pb.FormerAddress(address="10.244.0.1", first_ns=3, last_ns=7)],
        ),
    )  # fmt: skip
    pods = [pod for pod in hear(Targets({"node-a": agent.reach})).context.pods if pod.uid == "u-2"]
    assert [(pod.addresses, pod.first, pod.last) for pod in pods] == [
        (("10.244.0.2",), 11, 17),
        (("10.244.0.1",), 3, 7),
    ]


@pytest.mark.parametrize(
    ("number", "name"), [(1, "ICMP"), (58, "ICMP"), (2, "OTHER"), (47, "OTHER"), (136, "OTHER"), (132, "SCTP")]
)
def test_protocols(recorder, number: int, name: str) -> None:
    """What is neither TCP, UDP, SCTP nor ICMP is called none of them."""
    agent = recorder("node-a")
    seen = flow()
    seen.protocol = number
    agent.flows = (seen,)
    assert [each.protocol for each in hear(Targets({"node-a": agent.reach})).flows] == [name]


def test_nobody(recorder) -> None:
    """If no agent answers, there is no advice but an error."""
    gone = recorder("node-a")
    gone.die()
    with pytest.raises(Unreachable, match="node-a: no agent answers there"):
        hear(Targets({"node-a": gone.reach}))


def test_between(recorder) -> None:
    """What is seen from now on is what has been counted since, and what was there before is not in it."""
    agent = recorder("node-a")
    agent.flows = (flow(count=5, failed=1), flow(count=7, ingress=True))
    targets = Targets({"node-a": agent.reach})
    before = hear(targets)
    late = before.time_ns + 1
    agent.flows = (flow(count=8, failed=2, last=late), flow(count=7, ingress=True))
    watched = between(before, hear(targets))
    assert [(seen.direction, seen.count, seen.failed) for seen in watched.flows] == [("egress", 3, 1)]
    assert watched.context.header.from_ns == before.time_ns


class Api:
    """An API server that lets its user list pods alone."""

    def list(self, path: str) -> list[dict[str, Any]]:
        if path == PATHS["Pod"]:
            return [{"metadata": {"name": "cart-0", "namespace": "shop", "managedFields": ["long"]}, "status": {}}]
        if path == PATHS["Job"]:
            raise Unreachable("the API server at x does not answer")
        kind = path.rpartition("/")[2]
        raise ApiError(403, f'{kind} is forbidden: User "alice" cannot list resource "{kind}" in API group ""')


def test_rights(recorder) -> None:
    """What I may not list costs its names and nothing else, and the missing right is named."""
    context = FlowContext(Header(0, 1, ()))
    look_up(Api(), context)  # type: ignore[arg-type]
    (pod,) = context.objects
    assert (pod["kind"], pod["metadata"]) == ("Pod", {"name": "cart-0", "namespace": "shop"})
    assert len(context.notes) == len(PATHS) - 1
    assert "names may be missing: you may not list services: ask for list on services" in context.notes


def test_between_evictions(recorder) -> None:
    """A flow whose entry was evicted while I watched is counted anew, and begins no earlier than I did."""
    agent = recorder("node-a")
    agent.flows = (flow(count=50, failed=9),)
    targets = Targets({"node-a": agent.reach})
    before = hear(targets)
    agent.flows = (flow(count=2, last=before.time_ns + 7),)
    (seen,) = between(before, hear(targets)).flows
    assert (seen.count, seen.failed, seen.first, seen.last) == (2, 0, before.time_ns, before.time_ns + 7)


def test_rights_in_one_namespace() -> None:
    """If I may list a namespace's objects alone, advice on it has their names, and says whose it has."""

    class Mine(Api):
        def list(self, path: str) -> list[dict[str, Any]]:
            if path == "/api/v1/namespaces/shop/services":
                return [{"metadata": {"name": "cart", "namespace": "shop"}}]
            return super().list(path)

    context = FlowContext(Header(0, 1, ()))
    look_up(Mine(), context, ["shop", "!kube-system"])  # type: ignore[arg-type]
    assert sorted(item["kind"] for item in context.objects) == ["Pod", "Service"]
    assert "services of shop only: you may not list those of all namespaces" in context.notes
    assert not [note for note in context.notes if "list services:" in note]
