"""How a gRPC service of an agent answers: its contract, errors and limits, what its services add, and its health."""

from __future__ import annotations

import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.service import Method, Running, ServedCall
from gadget import CONTRACT, __version__
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


class Answering(rpc.AgentServicer):
    """Answers clients with what services do, as methods like those here. It is healthy as long as all workers are."""

    def __init__(self, node: str, services: Mapping[str, Running]) -> None:
        """Serve as node, with services by name."""
        self._node = node
        self._services = services
        self._stopping = threading.Event()
        self._run_slots = threading.BoundedSemaphore(MAX_RUNS)
        self._reader_slots = threading.BoundedSemaphore(MAX_READERS)
        self._beginnings = {name: each for one in services.values() for name, each in one.beginnings().items()}
        for each in (call for one in services.values() for call in one.calls()):
            if not hasattr(rpc.AgentServicer, each.name):
                raise TypeError(f"{each.name} is no method of gadget.proto")
            setattr(self, each.name, self.answering(each))

    def answering(self, call: ServedCall) -> Method:
        """The method of a servicer that answers a call."""

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with answers(self._node, context), self._reader(context) if call.reads else nullcontext():
                yield from call.answer(request, partial(self._goes_on, context))

        def one(request: Any, context: grpc.ServicerContext) -> Any:
            with answers(self._node, context), self._reader(context) if call.reads else nullcontext():
                return call.answer(request, partial(self._goes_on, context))

        return stream if call.stream else one

    def register(self, server: grpc.Server) -> None:
        """Add all that is served to server."""
        rpc.add_AgentServicer_to_server(self, server)
        for each in self._services.values():
            each.register(server, self.answering)

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeReply:
        """Who this is, and how its services are."""
        return pb.DescribeReply(
            node=self._node,
            version=__version__,
            contract=CONTRACT,
            kernel=os.uname().release,
            services=[_status(name, each) for name, each in self._services.items()],
            problems=self.problems(),
            memory_bytes=_resident_bytes(),
        )

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """Run one gadget, or what a service begins, until the client stops it or goes away."""
        runs = f"{MAX_RUNS} runs, of which a story has one for each kind,"
        with self._slot(self._run_slots, runs, context):  # first: a client may never say what it wants
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

    def _run(
        self, start: pb.Start, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RunReply]:
        raise Unsupported(f"{self._node} runs no gadgets")

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

    def _begin(
        self, what: str, asked: Any, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RunReply]:
        """What a service streams, until the client says stop or goes away."""
        over = threading.Event()
        watch = threading.Thread(target=finish_with, args=(requests, over.set), name=f"requests-{what}")
        watch.daemon = True  # ends with the call
        watch.start()
        yield from self._beginnings[what](asked, lambda: self._goes_on(context) and not over.is_set())

    def _goes_on(self, context: grpc.ServicerContext) -> bool:
        """Whether a call is still waited for, and this agent does not end."""
        return context.is_active() and not self._stopping.is_set()

    def problems(self) -> list[str]:
        """What is wrong with the threads; nothing as a rule."""
        return [worker.problem for each in self._services.values() for worker in each.workers if worker.problem]

    def finish(self) -> None:
        """End every stream in order."""
        self._stopping.set()


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
def answers(node: str, context: grpc.ServicerContext) -> Iterator[None]:
    """Say first who answers, and by which contract; if there is a GadgetError, end the call with its status."""
    context.send_initial_metadata((("gadget-contract", str(CONTRACT)), ("gadget-node-bin", node.encode())))
    try:
        yield
    except GadgetError as error:
        context.abort(status_of(error), str(error))


def _resident_bytes() -> int:
    """This process's memory, as /proc has it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def finish_with(requests: Iterator[pb.RunRequest], finish: Callable[[], None]) -> None:
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


def serve(address: str, service: Answering) -> grpc.Server:
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
