"""The agent's gRPC service: describes itself, and turns a run into a stream."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.bpf_object import BTF
from agent.clock import clock_offset
from agent.limits import OWN_FILES, RUN_FILES, RunBudget
from agent.run.replies import batch_reply, container_messages, is_wanted, started_reply, summary_reply
from agent.run.runs import Runs, begin, key_of
from agent.selection import Selection
from agent.service import Call, Method, Running
from agent.tracker import Cgroup, Tracker
from gadget import CONTRACT, __version__, catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import Exhausted, GadgetError, Unsupported, UsageError

log = logging.getLogger(__name__)

#: How many runs there may be at once; each holds two threads, two rings and its programs.
MAX_RUNS = 32
#: How many other streams there may be at once, such as `containers -w`; each holds a thread.
MAX_READERS = 32
#: Threads for short calls, so that they are answered even if all others are taken.
SPARE_THREADS = 8
#: How many connections there may be at once. One that says nothing ends after 5 s, one without a call after 1 min.
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


class AgentService(rpc.AgentServicer):
    """Answers clients of one node."""

    def __init__(
        self,
        node: str,
        tracker: Tracker,
        services: Mapping[str, Running],
        runs: Runs | None = None,
        budget: RunBudget | None = None,
    ) -> None:
        """Serve as node, with the containers of tracker and services by name. It is healthy as long as all workers are.

        What services answer are methods like those here.
        """
        self._node = node
        self._tracker = tracker
        self._services = services
        self._stopping = threading.Event()
        #: for all runs
        self._budget = budget or RunBudget(node=node)
        self._runs = runs or Runs()
        self._run_slots = threading.BoundedSemaphore(MAX_RUNS)
        self._reader_slots = threading.BoundedSemaphore(MAX_READERS)
        self._beginnings = {name: each for one in services.values() for name, each in one.beginnings().items()}
        for each in (call for one in services.values() for call in one.calls()):
            if not hasattr(rpc.AgentServicer, each.name):
                raise TypeError(f"{each.name} is no method of gadget.proto")
            setattr(self, each.name, self.answering(each))

    def answering(self, call: Call) -> Method:
        """The method of a servicer that answers a call."""

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with _answers(self._node, context), self._reader(context) if call.reads else nullcontext():
                yield from call.answer(request, partial(self._goes_on, context))

        def one(request: Any, context: grpc.ServicerContext) -> Any:
            with _answers(self._node, context), self._reader(context) if call.reads else nullcontext():
                return call.answer(request, partial(self._goes_on, context))

        return stream if call.stream else one

    def register(self, server: grpc.Server) -> None:
        """Add all that is served to server."""
        rpc.add_AgentServicer_to_server(self, server)
        for each in self._services.values():
            each.register(server, self.answering)

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeReply:
        """Who this agent is."""
        runs = self._runs.all()
        objects = [self._tracker.object, *(run.object for run in runs)]
        programs = [(item.name, program) for item in objects for program in item.programs()]
        programs += [(name, program) for name, each in self._services.items() for program in each.programs()]
        services = [_status(name, each) for name, each in self._services.items()]
        texts = {each.name: each.text for each in services}
        return pb.DescribeReply(
            node=self._node,
            version=__version__,
            contract=CONTRACT,
            kernel=os.uname().release,
            gadgets=list(catalog.load()),
            btf=BTF.exists(),
            cgroups=self._tracker.cgroups,
            containers=sum(not item.ended for item in self._tracker.containers()),
            traceloop=texts.get("traceloop", ""),
            flows=texts.get("flows", ""),
            services=services,
            problems=self.problems(),
            memory_bytes=_resident_bytes(),
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

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """Run one gadget until the client stops it or goes away."""
        with self._slot(self._run_slots, f"{MAX_RUNS} runs", context):  # first: a client may never say what it wants
            first = next(requests, None)
            what = first.WhichOneof("what") if first else None
            try:
                if first and what == "start":
                    yield from self._run(first.start, requests, context)
                elif first and what in self._beginnings:
                    yield from self._begin(what, getattr(first, what), requests, context)
                else:
                    raise UsageError("a run begins with start or attach")
            except GadgetError as error:
                asked = getattr(first, what) if what else None
                log.warning("%s: %s", getattr(asked, "gadget", "") or getattr(asked, "name", "") or what, error)
                context.abort(status_of(error), str(error))

    @contextmanager
    def _slot(self, slots: threading.BoundedSemaphore, what: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Take one of the slots for streams. Ends the call if none is free."""
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
        selection = Selection.of(start.selection)
        if start.ring_bytes > MAX_RING_BYTES:
            raise UsageError(f"--buffer: at most {MAX_RING_BYTES >> 30}G")
        parameters = dict(start.parameters)
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
                    target=_finish_with, args=(requests, subscriber.finish), name=f"requests-{gadget.name}"
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

    def _begin(
        self, what: str, asked: Any, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RunReply]:
        """What a service streams, until the client says stop or goes away."""
        over = threading.Event()
        watch = threading.Thread(target=_finish_with, args=(requests, over.set), name=f"requests-{what}")
        watch.daemon = True  # ends with the call
        watch.start()
        yield from self._beginnings[what](asked, lambda: self._goes_on(context) and not over.is_set())

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        """The containers that are known; with follow, each again when it changes."""
        with _answers(self._node, context), self._reader(context):
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
        with _answers(self._node, context):
            for each in self._services.values():
                each.end()
            self._tracker.unpin()
            return pb.EndReply()

    def _goes_on(self, context: grpc.ServicerContext) -> bool:
        """Whether a call is still waited for, and this agent does not end."""
        return context.is_active() and not self._stopping.is_set()

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
        workers += [worker for each in self._services.values() for worker in each.workers]
        return [*(worker.problem for worker in workers if worker.problem), *self._runs.problems()]

    def finish(self) -> None:
        """End every stream in order."""
        self._stopping.set()
        self._runs.finish()


def _status(name: str, service: Running) -> pb.ServiceStatus:
    """What Describe tells of a service. One that cannot tell does not keep the others from it."""
    problems = [worker.problem for worker in service.workers if worker.problem]
    text, losses = "", dict[str, int]()
    try:
        text, losses = service.describe(), dict(service.losses())
        problems += [problem] if (problem := service.problem()) else []
    except (GadgetError, OSError) as error:
        log.warning("%s: %s", name, error)
        problems.append(str(error))
    counts = [pb.Loss(reason=reason, count=count) for reason, count in losses.items() if count]
    return pb.ServiceStatus(name=name, text=text, problem="; ".join(problems), losses=counts)


@contextmanager
def _answers(node: str, context: grpc.ServicerContext) -> Iterator[None]:
    """Say first who answers, and by which contract; if there is a GadgetError, end the call with its status."""
    context.send_initial_metadata((("gadget-contract", str(CONTRACT)), ("gadget-node-bin", node.encode())))
    try:
        yield
    except GadgetError as error:
        context.abort(status_of(error), str(error))


def _resident_bytes() -> int:
    """This process's memory, as /proc has it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def _finish_with(requests: Iterator[pb.RunRequest], finish: Callable[[], None]) -> None:
    """Finish when the client says stop, half-closes or goes away."""
    try:
        for request in requests:
            if request.WhichOneof("what") == "stop":
                break
    except Exception:  # grpc raises a bare Exception when the call is cancelled
        log.debug("client went away")
    finish()


class Health(health_pb2_grpc.HealthServicer):
    """The answer to probes. An agent with a thread that has died or hangs is to be started anew."""

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
    service.register(server)
    checks = Health(service.problems)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}") from None
    server.start()
    return server
