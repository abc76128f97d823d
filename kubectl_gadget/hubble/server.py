"""Hubble's Observer and Peer, and health, for clients as the `hubble` command line, its relay and its page."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import UInt32Value
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gadget import __version__
from gadget._generated import flow_pb2, observer_pb2, observer_pb2_grpc, peer_pb2, peer_pb2_grpc, relay_pb2
from gadget.errors import GadgetError, UsageError
from gadget.text import host_and_port
from kubectl_gadget.hubble.filters import compile_filters
from kubectl_gadget.hubble.mask import copy, parse_mask
from kubectl_gadget.hubble.ring import FlowRing
from kubectl_gadget.hubble.session import ServedSession

#: Clients that read flows or peers; each has a thread, which waits for it alone.
MOST_READERS = 32
_OTHER_THREADS = 8
_MOST_CONNECTIONS = 128
#: Filters are short. Flows have no limit of their own: Hubble's clients take 4 MiB.
_LONGEST_REQUEST = 64 << 10
#: After so many flows it is asked whether the client is there still.
_LOOK_AFTER = 1000
#: What health calls the service, as Hubble's clients ask for it.
HEALTH = "hubble.server.Observer"
#: How often a reader that waits looks whether its client is there still.
LOOK_SECONDS = 0.5
#: Losses are told no more often, as Hubble does.
LOST_SECONDS = 1.0
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_allowed_incoming_connections", _MOST_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", _LONGEST_REQUEST),
)


@dataclass(frozen=True)
class Certificates:
    """The certificates of the server and its clients, as PEM, and the name in the server's certificate."""

    authority: bytes
    certificate: bytes
    key: bytes
    name: str = ""

    @classmethod
    def read(cls, folder: Path, name: str) -> Certificates:
        """The keys in a folder, with the file names of Hubble's Secrets. GadgetError if they cannot be read."""
        authority, certificate, key = (folder / each for each in ("ca.crt", "tls.crt", "tls.key"))
        try:
            read = cls(authority.read_bytes(), certificate.read_bytes(), key.read_bytes(), name)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # gRPC would say it in words of its own
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authority)
        except ssl.SSLError:
            raise GadgetError(f"--tls {folder}: no certificate with its key, or no authority") from None
        except OSError as error:
            raise GadgetError(f"--tls {error.filename}: {error.strerror}") from None
        return read


class Observer(observer_pb2_grpc.ObserverServicer, peer_pb2_grpc.PeerServicer):
    """Answers clients from the ring of a session."""

    def __init__(self, ring: FlowRing) -> None:
        """What is in the ring. It is told its session and its address once there are any."""
        self._ring = ring
        self.session: ServedSession | None = None
        self.address = self.tls_name = ""
        self._places = threading.BoundedSemaphore(MOST_READERS)
        self.readers = 0
        self._began_ns = time.monotonic_ns()

    @property
    def kept(self) -> int:
        """How many flows there are."""
        return self._ring.kept

    @contextmanager
    def _reader(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Take a slot for a client that stays."""
        if not self._places.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_READERS} clients read already: end one first")
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self._places.release()

    def GetFlows(
        self, request: observer_pb2.GetFlowsRequest, context: grpc.ServicerContext
    ) -> Iterator[observer_pb2.GetFlowsResponse]:
        """Flows that are kept, and those that come."""
        with self._reader(context):
            try:
                reading = FlowsCall(self._ring, self.session, request, context.is_active)
            except UsageError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            yield from reading.responses(context)

    def GetNodes(self, request: observer_pb2.GetNodesRequest, context: grpc.ServicerContext) -> Any:
        """The nodes whose agents are asked."""
        return observer_pb2.GetNodesResponse(
            nodes=[
                observer_pb2.Node(
                    name=name,
                    version=f"kubectl-gadget {__version__}",
                    state=state,
                    uptime_ns=self._uptime_ns(),
                    num_flows=self._ring.kept_of[name],
                    max_flows=self._ring.size,
                    seen_flows=self._ring.seen_of[name],
                )
                for name, state in sorted(self._nodes().items())
            ]
        )

    def GetNamespaces(self, request: observer_pb2.GetNamespacesRequest, context: grpc.ServicerContext) -> Any:
        """The namespaces that had flows of late."""
        names = self._ring.namespaces()
        return observer_pb2.GetNamespacesResponse(namespaces=[observer_pb2.Namespace(namespace=name) for name in names])

    def ServerStatus(self, request: observer_pb2.ServerStatusRequest, context: grpc.ServicerContext) -> Any:
        """How many flows and nodes there are."""
        nodes = self._nodes()
        away = sorted(name for name, state in nodes.items() if state != relay_pb2.NODE_CONNECTED)
        return observer_pb2.ServerStatusResponse(
            num_flows=self._ring.kept,
            max_flows=self._ring.size,
            seen_flows=self._ring.seen,
            uptime_ns=self._uptime_ns(),
            num_connected_nodes=UInt32Value(value=len(nodes) - len(away)),
            num_unavailable_nodes=UInt32Value(value=len(away)),
            unavailable_nodes=away,
            version=f"kubectl-gadget {__version__}",
            flows_rate=self._ring.rate(),
        )

    def Notify(
        self, request: peer_pb2.NotifyRequest, context: grpc.ServicerContext
    ) -> Iterator[peer_pb2.ChangeNotification]:
        """One peer, which has the flows of all nodes: this."""
        with self._reader(context):
            over = threading.Event()
            if context.add_callback(over.set):
                yield peer_pb2.ChangeNotification(
                    name=socket.gethostname(),
                    address=self.address,
                    type=peer_pb2.PEER_ADDED,
                    tls=peer_pb2.TLS(server_name=self.tls_name) if self.tls_name else None,
                )
                over.wait()

    def _nodes(self) -> dict[str, relay_pb2.NodeState]:
        return self.session.nodes() if self.session else {}

    def _uptime_ns(self) -> int:
        return time.monotonic_ns() - self._began_ns


class FlowsCall:
    """One GetFlows: where in the ring it begins, what of it is sent, and when it ends, as Hubble does all three."""

    def __init__(
        self,
        ring: FlowRing,
        session: ServedSession | None,
        request: observer_pb2.GetFlowsRequest,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """UsageError if the request makes no sense. It looks back no longer than it is wanted."""
        if request.first and request.follow:
            raise UsageError("first cannot be specified with follow")
        self._ring, self._session, self._follow = ring, session, request.follow
        self._matches = compile_filters(request.whitelist, request.blacklist)
        self._since = request.since.ToNanoseconds() if request.HasField("since") else None
        self._until = request.until.ToNanoseconds() if request.HasField("until") else None
        self._number = request.number
        paths = request.field_mask.paths
        self._mask = parse_mask(paths, flow_pb2.Flow.DESCRIPTOR) if paths else None
        self._end, self._is_wanted = ring.written, is_wanted
        self._next = self._first(request.first)
        self._lost, self._lost_ns, self._told = 0, (0, 0), time.monotonic()

    def _first(self, first: bool) -> int:
        """The number of the flow to begin with. since beats number, which then limits what is sent."""
        if first and self._since is None:
            return self._ring.oldest
        if self._follow and not self._number and self._since is None:
            return self._end
        found = 0
        for count, slot in enumerate(self._ring.backwards()):
            if not count % _LOOK_AFTER and not self._is_wanted():
                break
            if slot.index >= self._end or slot.lost or not self._passes(slot.message(self._convert)):
                continue
            found += 1
            if self._since is not None:
                if slot.time_ns < self._since:
                    return slot.index + 1
            elif found == self._number:
                return slot.index
        return self._ring.oldest

    def _convert(self, row: Any) -> observer_pb2.GetFlowsResponse:
        assert self._session
        return self._session.message(row)

    def _passes(self, message: observer_pb2.GetFlowsResponse) -> bool:
        return self._matches(message.flow)

    def responses(self, context: grpc.ServicerContext) -> Iterator[observer_pb2.GetFlowsResponse]:
        """What the client gets, as fast as it takes it. What is overwritten before that is lost to it, and told."""
        sent = 0
        while context.is_active() and not self._ring.is_over:
            if self._lost and time.monotonic() - self._told >= LOST_SECONDS:
                yield self._tell_lost()
            if not self._follow and (self._next >= self._end or (self._number and sent >= self._number)):
                break
            if self._next >= self._ring.written:
                self._ring.wait(self._next, LOOK_SECONDS)
                continue
            slot = self._ring.get(self._next)
            if slot is None:
                self._lose(max(self._ring.oldest - self._next, 1))
                continue
            self._next += 1
            if slot.lost:
                yield _lost(flow_pb2.OBSERVER_EVENTS_QUEUE, slot.lost, slot.time_ns, slot.time_ns)
                continue
            if self._until is not None and slot.time_ns > self._until:
                break
            if self._since is not None and slot.time_ns < self._since:
                continue
            message = slot.message(self._convert)
            if self._passes(message):
                sent += 1
                yield self._masked(message)
        if self._lost:
            yield self._tell_lost()

    def _masked(self, message: observer_pb2.GetFlowsResponse) -> observer_pb2.GetFlowsResponse:
        """The wanted fields of a flow."""
        if self._mask is None:
            return message
        kept = observer_pb2.GetFlowsResponse(node_name=message.node_name, time=message.time)
        kept.flow.SetInParent()
        copy(message.flow, kept.flow, self._mask)
        return kept

    def _lose(self, count: int) -> None:
        now = time.time_ns()
        self._next += count
        self._lost, self._lost_ns = self._lost + count, (self._lost_ns[0] or now, now)

    def _tell_lost(self) -> observer_pb2.GetFlowsResponse:
        response = _lost(flow_pb2.HUBBLE_RING_BUFFER, self._lost, *self._lost_ns)
        self._lost, self._lost_ns, self._told = 0, (0, 0), time.monotonic()
        return response


def _lost(source: flow_pb2.LostEventSource, count: int, first_ns: int, last_ns: int) -> observer_pb2.GetFlowsResponse:
    event = flow_pb2.LostEvent(source=source, num_events_lost=count, first=_moment(first_ns), last=_moment(last_ns))
    return observer_pb2.GetFlowsResponse(lost_events=event, time=_moment(time.time_ns()))


def _moment(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def _check_free(address: str) -> None:
    """GadgetError if an address cannot be bound: gRPC would say it in words of its own."""
    place = host_and_port(address)
    assert place, address
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    try:
        socket.create_server(place, family=family).close()
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", 0) or 0
        raise GadgetError(f"--listen {address}: {os.strerror(number).lower() if number > 0 else error}") from None


class Server:
    """Serves on an address. A context manager that ends all calls."""

    def __init__(self, address: str, ring: FlowRing, keys: Certificates | None = None) -> None:
        """With keys for those clients alone that have theirs. GadgetError if it cannot be bound."""
        self._ring, self.observer = ring, Observer(ring)
        self._server = grpc.server(
            ThreadPoolExecutor(MOST_READERS + _OTHER_THREADS, thread_name_prefix="hubble"), options=_OPTIONS
        )
        observer_pb2_grpc.add_ObserverServicer_to_server(self.observer, self._server)
        peer_pb2_grpc.add_PeerServicer_to_server(self.observer, self._server)
        self._health = health.HealthServicer()
        self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _check_free(address)
        try:
            port = self._add_port(address, keys)
        except RuntimeError as error:
            raise GadgetError(f"--listen {address}: {error}") from None
        self.address = self.observer.address = f"{address.rpartition(':')[0]}:{port}"

    def _add_port(self, address: str, keys: Certificates | None) -> int:
        if keys is None:
            return self._server.add_insecure_port(address)
        self.observer.tls_name = keys.name
        pair = [(keys.key, keys.certificate)]
        return self._server.add_secure_port(address, grpc.ssl_server_credentials(pair, keys.authority, True))

    def _say(self, status: Any) -> None:
        for name in ("", HEALTH):
            self._health.set(name, status)

    def __enter__(self) -> Server:
        self._server.start()
        return self

    def caught_up(self) -> None:
        """All that agents have kept can be asked for."""
        self._say(health_pb2.HealthCheckResponse.SERVING)

    def __exit__(self, *_: object) -> None:
        self._ring.end()
        self._server.stop(0).wait()
