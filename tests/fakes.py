"""Agents without a kernel, for tests of what the command line makes of many, of old and of dying ones."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, ClassVar

import grpc
import numpy as np
import orjson

from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.rules.alerts import Alert
from gadget.rules.processes import Processes
from gadget.schema import Schema

if TYPE_CHECKING:
    from agent.run.batch import Packed
    from gadget.rules.ruleset import Ruleset


class FakeAgent(rpc.AgentServicer):
    """Serves on a Unix socket, and sends the execs that the test makes up."""

    def __init__(
        self,
        folder: Path,
        node: str,
        schema: Schema | None = None,
        contract: int = CONTRACT,
        beat_ms: int = 0,
        selects: int = 1,
    ) -> None:
        """Serve as node."""
        self.selects, self.asked = selects, pb.Start()
        self.node, self._contract, self._beat_ms = node, contract, beat_ms
        self.schema = schema or catalog.find("execsnoop").schema
        self.started, self.asked_to_stop = Event(), Event()
        self.deaf = False
        self._batches: queue.Queue[pb.Batch | None] = queue.Queue()
        self.address = f"unix://{folder}/{node}-{time.monotonic_ns()}.sock"
        self._server = grpc.server(ThreadPoolExecutor(4))
        rpc.add_AgentServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def reach(self) -> str:
        """Where it serves."""
        return self.address

    def emit(self, *times_ns: int, lost: int = 0, why: str = "ring full") -> None:
        """Send a batch of execs that happened at those times."""
        size = self.schema.text_offset + 8
        rows = np.zeros(len(times_ns), self.schema.dtype(size))
        rows["timestamp"], rows["cgroup_id"] = times_ns, 7
        who = pb.Container(cgroup_id=7, namespace="shop", pod=f"on-{self.node}", container="app", id=self.node)
        section = pb.Section(record_size=size, count=len(rows), rows=rows.tobytes())
        losses = [pb.Loss(reason=why, cgroup_id=7, count=lost)] if lost else []
        self._batches.put(pb.Batch(sections=[section], containers=[who], losses=losses))

    def send(self, batch: pb.Batch) -> None:
        """Send a batch."""
        self._batches.put(batch)

    def beat(self) -> None:
        """Send an empty batch."""
        self._batches.put(pb.Batch())

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """A run."""
        self.asked = next(requests).start
        context.add_callback(lambda: self._batches.put(None))
        schema = orjson.dumps(self.schema.to_json()).decode()
        started = pb.Started(schema=schema, contract=self._contract, beat_ms=self._beat_ms, selects=self.selects)
        yield pb.RunReply(node=self.node, started=started)
        self.started.set()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._stop, requests)
            losses: list[pb.Loss] = []
            while (batch := self._batches.get()) is not None:
                losses = list(batch.losses) or losses
                yield pb.RunReply(node=self.node, batch=batch)
        yield pb.RunReply(node=self.node, summary=pb.Summary(losses=losses))

    def _stop(self, requests: Iterator[pb.RunRequest]) -> None:
        for _ in requests:
            self.asked_to_stop.set()
            if not self.deaf:
                self._batches.put(None)
                return

    def die(self) -> None:
        """Go away without a word."""
        self._server.stop(0).wait()


class WholeAgent(FakeAgent):
    """One that answers everything, not runs alone."""

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeReply:
        """Who this is."""
        return pb.DescribeReply(node=self.node, version="0.0.0", contract=self._contract)

    def _say_contract(self, context: grpc.ServicerContext) -> None:
        if self._contract:
            context.send_initial_metadata(
                (("gadget-contract", str(self._contract)), ("gadget-node-bin", self.node.encode()))
            )

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        """One container, with follow for as long as somebody listens and this agent lives."""
        self._say_contract(context)
        who = pb.Container(cgroup_id=7, namespace="shop", pod=f"on-{self.node}", container="app", id=self.node)
        wanted = not request.selection.namespaces or "shop" in request.selection.namespaces
        yield pb.ContainersReply(node=self.node, containers=[pb.ContainerState(container=who)] * wanted)
        if request.follow:
            over = Event()
            context.add_callback(over.set)
            over.wait()

    def TraceloopList(self, request: pb.TraceloopListRequest, context: grpc.ServicerContext) -> pb.TraceloopListReply:
        """Nothing is recorded."""
        self._say_contract(context)
        return pb.TraceloopListReply(node=self.node)

    def Flows(self, request: pb.FlowsRequest, context: grpc.ServicerContext) -> Iterator[pb.FlowsReply]:
        """Nobody talked."""
        self._say_contract(context)
        yield pb.FlowsReply(node=self.node, head=pb.FlowsHead(began_ns=1))

    def Syscalls(self, request: pb.SyscallsRequest, context: grpc.ServicerContext) -> Iterator[pb.SyscallsReply]:
        """One container did next to nothing."""
        self._say_contract(context)
        one = pb.WorkloadCalls(
            namespace="shop", workload="Pod/cart-0", container="app", calls=b"\1", containers=1, first_ns=1, last_ns=1
        )
        yield pb.SyscallsReply(node=self.node, head=pb.SyscallsHead(machine="x86_64"), workloads=[one])


class AlertAgent(FakeAgent):
    """One whose rules fire as the test says."""

    detect = pb.Detect()

    def fire(self, *alerts: pb.Alert, judged: int = 0, lost: int = 0, why: str = "ring full") -> None:
        """Send alerts."""
        who = pb.Container(cgroup_id=7, namespace="shop", pod=f"on-{self.node}", container="app", id=self.node)
        losses = [pb.Loss(reason=why, cgroup_id=7, count=lost)] if lost else []
        self._replies.put(pb.Batch(alerts=alerts, judged=judged, losses=losses, containers=[who]))

    def alert(
        self, rule: str = "Shell", at_ns: int = 10**18, output: str = "A shell in a container", **more: object
    ) -> pb.Alert:
        """An alert of the only container."""
        who = pb.Container(cgroup_id=7, namespace="shop", pod=f"on-{self.node}", container="app", id=self.node)
        usual = {"priority": "Warning", "source": "syscall", "fields_json": b'{"proc.name":"sh"}', "container": who}
        return pb.Alert(rule=rule, time_ns=at_ns, output=output, **{**usual, **more})  # type: ignore[arg-type]

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """A stream of alerts."""
        self.detect = next(requests).detect
        self._replies: queue.Queue[pb.Batch | None] = queue.Queue()
        context.add_callback(lambda: self._replies.put(None))
        yield pb.RunReply(node=self.node, started=pb.Started(contract=self._contract, selects=1))
        self.started.set()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._wait_for_stop, requests)
            losses: list[pb.Loss] = []
            while (batch := self._replies.get()) is not None:
                losses = list(batch.losses) or losses
                yield pb.RunReply(node=self.node, batch=batch)
        yield pb.RunReply(node=self.node, summary=pb.Summary(losses=losses))

    def _wait_for_stop(self, requests: Iterator[pb.RunRequest]) -> None:
        for _ in requests:
            self._replies.put(None)
            return


class FakeJudge:
    """Says of each event that the first rule fired, in the place of gadget.rules.live.Judge."""

    made: ClassVar[list[FakeJudge]] = []
    broken: ClassVar[Exception | None] = None
    adds: ClassVar[str] = ""
    at_ns: ClassVar[int] = 0

    def __init__(
        self,
        rules: Ruleset,
        schema: Schema,
        containers: object,
        *,
        first: bool = False,
        host: bool = False,
        remember: bool = False,
    ) -> None:
        """Judge events in schema's layout."""
        self.remember = remember
        self.rules, self.first, self.host = rules, first, host
        self.parameters: dict[str, str] = {}
        self.judged = self.changes = 0
        self.has_begun = False
        self.processes = Processes(lambda pid: None)
        self._dtype = schema.dtype(schema.text_offset)
        FakeJudge.made.append(self)

    def begin(self) -> None:
        """Note that it knows what runs."""
        self.has_begun = not self.judged

    def go_on_from(self, before: FakeJudge) -> None:
        """It knows nothing that another one would want to know."""

    def containers_changed(self) -> None:
        """Count how often it is told so."""
        self.changes += 1

    def judge(self, sections: Sequence[Packed], clock_offset_ns: int) -> list[Alert]:
        """An alert for each event, with what the class adds to its text; the error of the class, if it has one."""
        found = []
        for section in sections:
            if FakeJudge.broken:
                raise FakeJudge.broken
            rows = np.frombuffer(section.rows, self._dtype, section.count)
            self.judged += section.count
            for cgroup in rows["cgroup_id"].tolist():
                fields = {"proc.name": "sh", "container.id": f"c{cgroup}"}
                rule, says = self.rules.rules[0], f"A shell in c{cgroup}{FakeJudge.adds}"
                found.append(
                    Alert(rule, FakeJudge.at_ns or time.time_ns(), says, fields, cgroup_id=cgroup, program=object())
                )
        return found
