"""The agent's gRPC service: describes itself, and turns a run into a stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing

import grpc

from agent.answering import MAX_CONNECTIONS, MAX_RUNS, Answering, answers, finish_with
from agent.bpf.bpf_object import BTF
from agent.bpf.calls import LANES, OBJECT
from agent.clock import clock_offset
from agent.containers.tracker import Cgroup, Tracker
from agent.limits import OWN_FILES, RUN_FILES, STANDING_RUNS, RunBudget
from agent.run.lacking import Lacking
from agent.run.replies import batch_reply, container_messages, is_wanted, started_reply, summary_reply
from agent.run.runs import Runs, begin, key_of
from agent.run.source import LoadPlan, check_loadable
from agent.selection import Selection
from agent.service import Running
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError

log = logging.getLogger(__name__)

#: File descriptors that all of this takes.
MAX_FILES = OWN_FILES + (MAX_RUNS + STANDING_RUNS) * RUN_FILES + MAX_CONNECTIONS
#: A ring is the kernel's memory, and a run has two. The command line's --buffer has the same limit.
MAX_RING_BYTES = 1 << 30
FOLLOW_SECONDS = 0.25
#: How many runs begin at once. Libbpf loads one object at a time, and others read files meanwhile; those who are gone
#: when it is their turn begin nothing.
BEGINNINGS = 2


class AgentService(Answering):
    """Answers clients of one node."""

    def __init__(
        self,
        node: str,
        tracker: Tracker,
        services: Mapping[str, Running],
        runs: Runs | None = None,
        budget: RunBudget | None = None,
    ) -> None:
        """Serve as node, with the containers of tracker and services by name."""
        super().__init__(node, services)
        self._tracker = tracker
        #: for all runs
        self._budget = budget or RunBudget(node=node)
        self._runs = runs or Runs()
        self._beginning = threading.BoundedSemaphore(BEGINNINGS)
        self._lacking = Lacking(
            lambda gadget: check_loadable(LoadPlan(gadget, {}, tracker.map_fd, tracker.mount, self._budget))
        )

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeReply:
        """Who this agent is."""
        runs = self._runs.all()
        objects = [self._tracker.object, *(run.object for run in runs)]
        programs = [(item.name, program) for item in objects for program in item.programs()]
        programs += [(OBJECT, program) for program in LANES.programs()]
        programs += [(name, program) for name, each in self._services.items() for program in each.programs()]
        reply = super().Describe(request, context)
        texts = {each.name: each.text for each in reply.services}
        more = pb.DescribeReply(
            gadgets=list(catalog.load()),
            btf=BTF.exists(),
            cgroups=self._tracker.cgroups,
            containers=sum(not item.ended for item in self._tracker.containers()),
            traceloop=texts.get("traceloop", ""),
            flows=texts.get("flows", ""),
            runs=[
                pb.RunStatus(
                    gadget=run.gadget.name,
                    started_ns=each.started_ns,
                    events=each.events,
                    lost=each.lost,
                    rate=run.rate,
                )
                for run in runs
                for each in run.subscribers
            ],
            programs=[
                pb.ProgramStatus(object=of, name=name, run_time_ns=info.run_time_ns, runs=info.run_cnt)
                for of, (name, info) in programs
            ],
        )
        reply.MergeFrom(more)
        return reply

    def _run(
        self, start: pb.Start, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RunReply]:
        gadget = catalog.find(start.gadget)
        selection = Selection.of(start.selection)
        if start.ring_bytes > MAX_RING_BYTES:
            raise UsageError(f"--buffer: at most {MAX_RING_BYTES >> 30}G")
        parameters = dict(start.parameters)
        with self._beginning:
            if not self._goes_on(context):
                return
            subscriber = self._runs.subscribe(
                key_of(start),
                lambda: begin(
                    gadget,
                    parameters,
                    self._tracker,
                    selection,
                    self._budget,
                    start.ring_bytes,
                    start.interval_ns,
                    start.totals,
                    self._runs.masker,
                ),
            )
        try:
            with closing(subscriber):
                watch = threading.Thread(
                    target=finish_with, args=(requests, subscriber.finish), name=f"requests-{gadget.name}"
                )
                watch.daemon = True  # ends with the call
                watch.start()
                log.info("%s: started for %s with %s", gadget.name, context.peer(), parameters)
                yield started_reply(self._node, gadget, self._tracker, selection)
                for batch in subscriber.batches():
                    if not context.is_active():
                        break
                    yield batch_reply(self._node, batch)
                yield summary_reply(self._node, subscriber)
        finally:  # also of a call that was cut off: gRPC then asks for nothing more
            log.info("%s: ended after %d events", gadget.name, subscriber.events)

    def Lacking(self, request: pb.LackingRequest, context: grpc.ServicerContext) -> pb.LackingReply:
        """Which gadgets this kernel cannot run, and why."""
        with answers(self._node, context), self._reader(context):
            found = self._lacking.find(lambda: self._goes_on(context))
            return pb.LackingReply(
                node=self._node, lacks=[pb.Lack(gadget=name, reason=why) for name, why in found.items()]
            )

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        """The containers that are known; with follow, each again when it changes."""
        with answers(self._node, context), self._reader(context):
            yield from self._containers_of(request, context)

    def _containers_of(
        self, request: pb.ContainersRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ContainersReply]:
        selection = Selection.of(request.selection)
        sent: dict[int, pb.ContainerState] = {}
        offset = clock_offset()
        generation = -1
        while self._goes_on(context):
            if generation != self._tracker.generation:
                generation = self._tracker.generation
                addresses = self._tracker.find_addresses()
                known = [item for item in self._tracker.containers() if is_wanted(self._tracker, selection, item)]
                states = {item.id: self._state(item, offset) for item in known}
                news = [state for id_, state in states.items() if sent.get(id_) != state]
                sent = states
                if news or not request.follow:
                    yield pb.ContainersReply(node=self._node, containers=news, addresses=addresses)
            if not request.follow:
                return
            self._stopping.wait(FOLLOW_SECONDS)

    def End(self, request: pb.EndRequest, context: grpc.ServicerContext) -> pb.EndReply:
        """Stop recording, and remove what would outlive this agent."""
        with answers(self._node, context):
            for each in self._services.values():
                each.end()
            self._tracker.unpin()
            return pb.EndReply()

    def _state(self, item: Cgroup, offset: int) -> pb.ContainerState:
        assert item.container
        pod = self._tracker.pods.get(item.container.pod_uid) if self._tracker.pods else None
        return pb.ContainerState(
            container=container_messages({item.id: item.container})[0],
            started_ns=item.started + offset,
            ended_ns=item.ended + offset if item.ended else 0,
            owner=pod.owner if pod else "",
            restarts=pod.restarts.get(item.container.name, 0) if pod else 0,
            addresses=item.addresses,
        )

    def problems(self) -> list[str]:
        """What is wrong with this agent's threads; nothing as a rule."""
        workers = [each.worker for each in (self._tracker, self._tracker.pods) if each]
        return [*(worker.problem for worker in workers if worker.problem), *super().problems(), *self._runs.problems()]

    def finish(self) -> None:
        """End every stream in order."""
        super().finish()
        self._runs.finish()
