"""The agent's gRPC service: describes itself, and turns a run into a stream."""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import grpc
import orjson
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.bpf_object import BTF
from agent.clock import clock_offset
from agent.flows.service import FlowsService
from agent.identity import Container
from agent.inspect.service import Inspector
from agent.limits import OWN_FILES, RUN_FILES, RunBudget
from agent.run import BEAT_SECONDS, Batch, Loss, Run
from agent.selection import SELECTS, Selection
from agent.threads import Worker
from agent.traceloop.service import TraceloopService
from agent.tracker import Cgroup, Tracker
from gadget import CONTRACT, __version__, catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import Exhausted, GadgetError, Unsupported, UsageError
from gadget.pod_choice import PodChoice

log = logging.getLogger(__name__)

#: Runs at once; each holds two threads, two rings and its programs.
MAX_RUNS = 32
#: Other streams at once, such as `containers -w`; each holds a thread.
MAX_READERS = 32
#: Threads for calls that are answered at once, so that there is an answer when all of the others are taken.
SPARE_THREADS = 8
#: Connections at once, each a file descriptor. One that says nothing ends after 5 s, one without a call after 1 min.
MAX_CONNECTIONS = 512
#: File descriptors that all of this takes.
MAX_FILES = OWN_FILES + MAX_RUNS * RUN_FILES + MAX_CONNECTIONS
#: A ring is the kernel's memory, and a run has two. The command line's --buffer has the same limit.
MAX_RING_BYTES = 1 << 30
FOLLOW_SECONDS = 0.25
#: A client that does not answer for 20 s is gone, and its runs end. ping_timeout_ms is what is waited for, else 60 s.
SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
)
#: How long streams may take to send their last batches and summary when the agent stops.
GRACE_SECONDS = 5.0


def status_of(error: GadgetError) -> grpc.StatusCode:
    """The gRPC status that carries an error to the client."""
    if isinstance(error, UsageError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, Exhausted):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, Unsupported):
        return grpc.StatusCode.FAILED_PRECONDITION
    return grpc.StatusCode.INTERNAL


def _losses(losses: list[Loss]) -> list[pb.Loss]:
    return [pb.Loss(reason=loss.reason, cgroup_id=loss.cgroup_id, count=loss.count) for loss in losses]


def _containers(known: dict[int, Container]) -> list[pb.Container]:
    return [
        pb.Container(
            cgroup_id=cgroup_id,
            namespace=container.namespace,
            pod=container.pod,
            container=container.name,
            id=container.id,
            runtime=container.runtime,
        )
        for cgroup_id, container in known.items()
    ]


def _summary(run: Run) -> pb.Summary:
    losses = _losses(run.losses())  # first: it may name containers
    return pb.Summary(
        events=run.events,
        losses=losses,
        containers=_containers(run.new_containers()),
        undecided=run.undecided,
    )


def _selection(wanted: pb.Selection) -> Selection:
    any_of = [PodChoice(item.pattern, item.labels, item.namespace, item.without) for item in wanted.any_of]
    return Selection(wanted.namespaces, wanted.pods, wanted.containers, wanted.labels, any_of)


def _reply(node: str, batch: Batch) -> pb.RunReply:
    """A batch as a message, made in place: a message that is put into another one is copied, with all its rows."""
    reply = pb.RunReply(node=node, sent_ns=time.time_ns())
    while batch.sections:  # and freed when it has been: gRPC will make two more
        reply.batch.sections.add(**vars(batch.sections.pop(0)))
    reply.batch.containers.extend(_containers(batch.containers))
    reply.batch.losses.extend(_losses(batch.losses))
    reply.batch.clock_offset_ns = clock_offset()
    return reply


class AgentService(rpc.AgentServicer):
    """Answers clients of one node."""

    def __init__(
        self,
        node: str,
        tracker: Tracker,
        traceloop: TraceloopService,
        flows: FlowsService,
        workers: Sequence[Worker] = (),
        inspector: Inspector | None = None,
    ) -> None:
        """Serve as node, naming what tracker knows, well as long as all workers are."""
        self._inspector = inspector or Inspector(node, tracker)
        self._workers = workers
        self._traceloop = traceloop
        self._flows = flows
        self._node = node
        self._tracker = tracker
        self._stopping = threading.Event()
        #: for all runs
        self.budget = RunBudget(node=node)
        self._runs: set[Run] = set()
        self._run_slots = threading.BoundedSemaphore(MAX_RUNS)
        self._reader_slots = threading.BoundedSemaphore(MAX_READERS)

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeReply:
        """Who this agent is."""
        runs = list(self._runs)
        objects = [self._tracker.object, *(run.object for run in runs)]
        programs = [(item.name, program) for item in objects for program in item.programs()]
        programs += [("traceloop", program) for program in self._traceloop.programs()]
        programs += [("flows", program) for program in self._flows.programs()]
        return pb.DescribeReply(
            node=self._node,
            version=__version__,
            contract=CONTRACT,
            kernel=os.uname().release,
            gadgets=list(catalog.load()),
            btf=BTF.exists(),
            cgroups=self._tracker.cgroups,
            containers=sum(not item.ended for item in self._tracker.containers()),
            traceloop=self._traceloop.describe(),
            flows=self._flows.describe(),
            problems=self.problems(),
            memory_bytes=_resident_bytes(),
            runs=[
                pb.RunStatus(
                    gadget=run.gadget,
                    started_ns=run.started_ns,
                    events=run.events,
                    lost=run.lost,
                    rate=run.rate,
                )
                for run in runs
            ],
            programs=[
                pb.ProgramStatus(object=of, name=name, run_time_ns=info.run_time_ns, runs=info.run_cnt)
                for of, (name, info) in programs
            ],
        )

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """Run one gadget until the client stops it or goes away."""
        with self._slot(self._run_slots, f"{MAX_RUNS} runs", context):  # first: a client may never say what it wants
            first = next(requests, None)
            if first is None or first.WhichOneof("what") != "start":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a run begins with start")
                return
            try:
                yield from self._run(first.start, requests, context)
            except GadgetError as error:
                log.warning("%s: %s", first.start.gadget, error)
                context.abort(status_of(error), str(error))

    @contextmanager
    def _slot(self, slots: threading.BoundedSemaphore, what: str, context: grpc.ServicerContext) -> Iterator[None]:
        """One of the places for streams. Ends the call if there is none."""
        if not slots.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{what} on {self._node} already: end one first")
        try:
            yield
        finally:
            slots.release()

    def _reader(self, context: grpc.ServicerContext) -> AbstractContextManager[None]:
        return self._slot(self._reader_slots, f"{MAX_READERS} readers", context)

    def _run(
        self, start: pb.Start, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RunReply]:
        gadget = catalog.find(start.gadget)
        selection = _selection(start.selection)
        if start.ring_bytes > MAX_RING_BYTES:
            raise UsageError(f"--buffer: at most {MAX_RING_BYTES >> 30}G")
        with Run(gadget, start.parameters, self._tracker, selection, start.ring_bytes, self.budget) as run:
            self._runs.add(run)
            try:
                watch = threading.Thread(target=_finish_with, args=(requests, run), name=f"requests-{gadget.name}")
                watch.daemon = True  # ends with the call
                watch.start()
                log.info("%s: started for %s with %s", gadget.name, context.peer(), dict(start.parameters))
                schema = orjson.dumps(gadget.schema.to_json()).decode()
                living = _containers(self._chosen(selection))
                started = pb.Started(
                    schema=schema,
                    containers=living,
                    contract=CONTRACT,
                    beat_ms=int(BEAT_SECONDS * 1000),
                    selects=SELECTS,
                )
                yield pb.RunReply(node=self._node, started=started, sent_ns=time.time_ns())
                for batch in run.batches():
                    if not context.is_active():
                        break
                    yield _reply(self._node, batch)
                yield pb.RunReply(node=self._node, summary=_summary(run), sent_ns=time.time_ns())
            finally:
                self._runs.discard(run)
                log.info("%s: ended after %d events", gadget.name, run.events)

    def _chosen(self, selection: Selection) -> dict[int, Container]:
        """The running containers that are chosen, or may be, by cgroup."""
        return {
            item.id: item.container
            for item in self._tracker.containers()
            if not item.ended and item.container and self._wants(selection, item)
        }

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        """The containers that are known; with follow, each again when it changes."""
        with _answers(self._node, context), self._reader(context):
            yield from self._containers_of(request, context)

    def _containers_of(
        self, request: pb.ContainersRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ContainersReply]:
        selection = _selection(request.selection)
        sent: dict[int, pb.ContainerState] = {}
        offset = clock_offset()
        generation = -1
        while self._goes_on(context):
            if generation != self._tracker.generation:
                generation = self._tracker.generation
                addresses = self._tracker.find_addresses()
                known = [item for item in self._tracker.containers() if self._wants(selection, item)]
                states = {item.id: self._state(item, offset) for item in known}
                news = [state for id_, state in states.items() if sent.get(id_) != state]
                sent = states
                if news or not request.follow:
                    yield pb.ContainersReply(node=self._node, containers=news, addresses=addresses)
            if not request.follow:
                return
            self._stopping.wait(FOLLOW_SECONDS)

    def TraceloopList(self, request: pb.TraceloopListRequest, context: grpc.ServicerContext) -> pb.TraceloopListReply:
        """What the flight recorder keeps."""
        with _answers(self._node, context):
            return self._traceloop.list()

    def TraceloopRead(
        self, request: pb.TraceloopReadRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TraceloopReadReply]:
        """The calls of one container."""
        with _answers(self._node, context), self._reader(context):
            yield from self._traceloop.read(request, partial(self._goes_on, context))

    def TraceloopEnds(
        self, request: pb.TraceloopEndsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TraceloopReadReply]:
        """What may tell why containers ended."""
        with _answers(self._node, context), self._reader(context):
            yield from self._traceloop.ends(request.cgroup_ids, partial(self._goes_on, context))

    def TraceloopDelete(
        self, request: pb.TraceloopDeleteRequest, context: grpc.ServicerContext
    ) -> pb.TraceloopDeleteReply:
        """Forget one container's calls."""
        with _answers(self._node, context):
            self._traceloop.delete(request.cgroup_id)
            return pb.TraceloopDeleteReply()

    def Inspect(self, request: pb.InspectRequest, context: grpc.ServicerContext) -> pb.InspectReply:
        """What the node says of a container that runs."""
        with _answers(self._node, context), self._reader(context):
            return self._inspector.inspect(request)

    def Flows(self, request: pb.FlowsRequest, context: grpc.ServicerContext) -> Iterator[pb.FlowsReply]:
        """Who talked to whom."""
        with _answers(self._node, context), self._reader(context):
            yield from self._flows.read()

    def End(self, request: pb.EndRequest, context: grpc.ServicerContext) -> pb.EndReply:
        """Stop recording, and remove what would outlive this agent."""
        with _answers(self._node, context):
            self._traceloop.end()
            self._flows.end()
            self._tracker.unpin()
            return pb.EndReply()

    def _goes_on(self, context: grpc.ServicerContext) -> bool:
        """Whether a call is still waited for, and this agent does not end."""
        return context.is_active() and not self._stopping.is_set()

    def _wants(self, selection: Selection, item: Cgroup) -> bool:
        container = item.container
        return container is not None and selection.decide(container, self._tracker.labels(container)) is not False

    def _state(self, item: Cgroup, offset: int) -> pb.ContainerState:
        assert item.container
        pod = self._tracker.pods.get(item.container.pod_uid) if self._tracker.pods else None
        return pb.ContainerState(
            container=_containers({item.id: item.container})[0],
            started_ns=item.started + offset,
            ended_ns=item.ended + offset if item.ended else 0,
            owner=pod.owner if pod else "",
            restarts=pod.restarts.get(item.container.name, 0) if pod else 0,
            addresses=item.addresses,
        )

    def problems(self) -> list[str]:
        """What is wrong with this agent's threads; nothing as a rule."""
        return [worker.problem for worker in self._workers if worker.problem]

    def finish(self) -> None:
        """End every stream in order."""
        self._stopping.set()
        for run in list(self._runs):
            run.finish()


@contextmanager
def _answers(node: str, context: grpc.ServicerContext) -> Iterator[None]:
    """Says first who answers, and by which contract; ends the call with the status of a GadgetError."""
    context.send_initial_metadata((("gadget-contract", str(CONTRACT)), ("gadget-node-bin", node.encode())))
    try:
        yield
    except GadgetError as error:
        context.abort(status_of(error), str(error))


def _resident_bytes() -> int:
    """This process's memory, as /proc has it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def _finish_with(requests: Iterator[pb.RunRequest], run: Run) -> None:
    """Finish the run when the client says stop, half-closes or goes away."""
    try:
        for request in requests:
            if request.WhichOneof("what") == "stop":
                break
    except Exception:  # grpc raises a bare Exception when the call is cancelled
        log.debug("client went away")
    run.finish()


class Health(health_pb2_grpc.HealthServicer):
    """The answer to probes: an agent of which a thread has died or hangs is to be started anew."""

    def __init__(self, problems: Callable[[], Sequence[str]]) -> None:
        """Serve as long as there are no problems."""
        self._problems = problems

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """How it is now."""
        status = health_pb2.HealthCheckResponse
        return status(status=status.NOT_SERVING if self._problems() else status.SERVING)


def serve(address: str, service: AgentService) -> grpc.Server:
    """Start to serve on address, with health. OSError if it cannot be bound."""
    server = grpc.server(
        ThreadPoolExecutor(MAX_RUNS + MAX_READERS + SPARE_THREADS, thread_name_prefix="rpc"),
        options=SERVER_OPTIONS,
    )
    rpc.add_AgentServicer_to_server(service, server)
    checks = Health(service.problems)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}") from None
    server.start()
    return server
