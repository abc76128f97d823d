"""An agent without a kernel that has flows, and `hubble serve` in front of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated import observer_pb2, observer_pb2_grpc
from tests.conftest import Cli
from tests.fakes import WholeAgent
from tests.unit.observe.flows import GADGET, NAMES, PEERS, section

#: Of one batch: about 1 MiB.
BATCH_FLOWS = 4000


def containers() -> list[pb.Container]:
    """Those whose flows there are."""
    return [
        pb.Container(cgroup_id=number, namespace=namespace, pod=pod, container=name, id=runtime_id)
        for number, (namespace, pod, name, runtime_id) in NAMES.items()
    ]


class FlowAgent(WholeAgent):
    """One that has kept the flows of tests, and sends what the test makes up after them."""

    def __init__(self, folder: Path, node: str = "node-a") -> None:
        """Serve as node."""
        super().__init__(folder, node, schema=GADGET.schema)
        self.began_ns = time.time_ns() - 30 * 10**9  # within the minute that a rate is of, on a slow machine too

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """What was kept, then what comes."""
        first = next(requests)
        self._batches.put(pb.Batch(sections=[section(self.began_ns)], containers=containers()))
        self._batches.put(pb.Batch())
        for reply in super().Run(chain([first], requests), context):
            reply.caught_up = reply.WhichOneof("what") == "batch" and not reply.batch.sections
            yield reply

    @property
    def waiting(self) -> int:
        """How many batches have not been sent."""
        return self._batches.qsize()

    def more(self, times: int = 1, lost: int = 0) -> None:
        """Send the flows again, so many times."""
        losses = [pb.Loss(reason="ring full", cgroup_id=11, count=lost)] if lost else []
        for _ in range(times):
            self._batches.put(pb.Batch(sections=[section(self.began_ns)], losses=losses))

    def flood(self, flows: int) -> None:
        """Send so many flows at once, in batches as large as agents'."""
        few = section(self.began_ns)
        times = BATCH_FLOWS // few.count
        many = pb.Section(rows=few.rows * times, count=few.count * times, record_size=few.record_size)
        for _ in range(flows // many.count):
            self._batches.put(pb.Batch(sections=[many]))

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        """Whose flows there are."""
        self._say_contract(context)
        who = containers()
        addresses = [[at for at, name in PEERS.items() if name.name == each.pod] for each in who]
        known = [pb.ContainerState(container=each, addresses=own) for each, own in zip(who, addresses, strict=True)]
        yield pb.ContainersReply(node=self.node, containers=known)


@dataclass
class Served:
    """A server of flows, and a client of it."""

    agents: list[FlowAgent]
    cli: Cli
    address: str
    channel: grpc.Channel
    observer: observer_pb2_grpc.ObserverStub

    @property
    def agent(self) -> FlowAgent:
        """The first."""
        return self.agents[0]

    def flows(self, **request: object) -> list[observer_pb2.GetFlowsResponse]:
        """What GetFlows answers."""
        return list(self.observer.GetFlows(observer_pb2.GetFlowsRequest(**request)))  # type: ignore[arg-type]


@contextmanager
def serving(
    folder: Path, start_cli: Callable[..., Cli], nodes: Sequence[str] = ("node-a",), *options: str
) -> Iterator[Served]:
    """A server that has all that the agents of nodes have kept."""
    agents = [FlowAgent(folder, node) for node in nodes]
    where = [word for agent in agents for word in ("--agent", agent.address)]
    cli = start_cli("hubble", "serve", *where, "--listen", "127.0.0.1:0", *options)
    assert cli.process.stderr
    line = cli.process.stderr.readline()
    assert line.startswith("serving flows on "), line + cli.process.stderr.read()
    address = line.split()[3].rstrip(",")
    with grpc.insecure_channel(address) as channel:
        yield Served(agents, cli, address, channel, observer_pb2_grpc.ObserverStub(channel))
    for agent in agents:
        agent.die()
