"""Serves what services count, and what the agent costs, as prometheus.io's text format has it.

Everybody on the pod network may ask. So clients get a few threads and seconds, and numbers are added up once a second
at most. Labels are names of gadgets, standing runs, rules and reasons alone.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agent.listen import host_and_port
from agent.metrics.settings import Settings
from agent.service import Context, Number, Running
from agent.threads import Worker
from gadget import __version__
from gadget.errors import UsageError

PATH = "/metrics"
PREFIX = "gadget_"
#: How old numbers may be that a client gets.
KNOWN_SECONDS = 1.0
#: How often the thread that accepts looks whether it is to end.
LOOK_SECONDS = 0.5
TOTAL = "_total"


class Numbers(Collector):
    """All numbers of an agent, as they are when they are asked for."""

    def __init__(self, context: Context) -> None:
        """Of all that is at work there."""
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """Families of numbers, each of one name. One service that cannot tell does not keep the others from it."""
        families: dict[tuple[str, ...], Any] = {}
        for number in self._all():
            name, values = PREFIX + number.name, list(number.labels.values())
            family = families.get((name, *number.labels))
            if family is None:
                family = _kind(number)(name, number.doc, labels=list(number.labels))
                families[name, *number.labels] = family
            if number.buckets:
                family.add_metric(values, number.buckets, number.value)
            else:
                family.add_metric(values, number.value)
        return iter(families.values())

    def _all(self) -> Iterator[Number]:
        tracker = self._context.tracker
        about = {"version": __version__, "kernel": os.uname().release, "node": self._context.node}
        yield Number("info", "Always 1: which agent this is.", 1, about)
        running = sum(not each.ended for each in tracker.containers())
        yield Number("containers", "Containers that run on this node.", running)
        for gadget, number in self._subscribers():
            yield Number("streams", "Streams of a gadget that go on.", number, {"gadget": gadget})
        for name, service in self._context.running.items():
            with suppress(Exception):  # it is on its way to its end
                yield from _of(name, service)

    def _subscribers(self) -> Iterable[tuple[str, int]]:
        found: dict[str, int] = {}
        for run in self._context.runs.all():
            found[run.gadget.name] = found.get(run.gadget.name, 0) + len(run.subscribers)
        return sorted(found.items())


def _kind(number: Number) -> Callable[..., Any]:
    if number.buckets:
        return HistogramMetricFamily
    return CounterMetricFamily if number.name.endswith(TOTAL) else GaugeMetricFamily


def _of(name: str, service: Running) -> list[Number]:
    """What one service counts; whole, or not at all."""
    dead = sum(bool(worker.problem) for worker in service.workers)
    made = [Number("dead_threads", "Threads that died or hang.", dead, {"service": name})]
    made += [
        Number("lost_total", "What a service should have and has not.", count, {"service": name, "reason": reason})
        for reason, count in service.losses().items()
    ]
    return [*made, *service.numbers()]


class MetricsService(Running):
    """Serves at one address until it is closed."""

    def __init__(self, context: Context, settings: Settings) -> None:
        """Begin.

        Raises:
            UsageError: The address is none.
            OSError: Nobody can be served there.

        """
        registry = CollectorRegistry()
        registry.register(Numbers(context))
        ProcessCollector(registry=registry)
        self._server = _Server(_address(settings.listen), registry, settings)
        self.worker = Worker("metrics", self._work)
        self.worker.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def workers(self) -> Sequence[Worker]:
        """The thread that accepts."""
        return (self.worker,)

    def describe(self) -> str:
        """Where."""
        host, port = self._server.server_address[:2]
        return f"at {f'[{host!s}]' if ':' in str(host) else host!s}:{port}{PATH}"

    def close(self) -> None:
        """Serve nobody any more."""
        self.worker.stop()
        self._server.server_close()

    def _work(self, worker: Worker) -> None:
        self._server.timeout = LOOK_SECONDS
        while not worker.stopping:
            worker.beat()
            self._server.handle_request()


class _Server(HTTPServer):
    """Gives each client a thread, while there are some left; others wait in the kernel's queue, or are sent away."""

    request_queue_size = 16

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, settings: Settings) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.registry, self._seconds = registry, settings.seconds
        self._slots = threading.BoundedSemaphore(settings.most_connections)
        self._lock = threading.Lock()
        self._known: dict[Any, tuple[float, bytes]] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own."""
        if not self._slots.acquire(timeout=LOOK_SECONDS):
            self.shutdown_request(request)
            return
        deadline = threading.Timer(self._seconds, _cut, (request,))
        deadline.daemon = True

        def serve() -> None:
            try:
                deadline.start()
                self.finish_request(request, client_address)
            except OSError:  # it went away, or took too long
                pass
            finally:
                deadline.cancel()
                self._slots.release()
                self.shutdown_request(request)

        try:
            threading.Thread(target=serve, name="metrics-client", daemon=True).start()
        except RuntimeError:  # no more threads may be made
            self._slots.release()
            self.shutdown_request(request)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The numbers as a client wishes them, and how that is called."""
        encode, kind = choose_encoder(accept)
        with self._lock:
            at, page = self._known.get(kind, (float("-inf"), b""))
            if time.monotonic() - at > KNOWN_SECONDS:
                page = encode(self.registry)
                self._known = {kind: (time.monotonic(), page)}
        return page, kind


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes."""

    server: _Server
    server_version, sys_version = "kubectl-gadget", ""

    def do_GET(self) -> None:
        """The numbers; nothing else is here."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        page, kind = self.server.page(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        """Say nothing: whoever can reach the port could fill the log."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def _address(text: str) -> tuple[str, int]:
    parts = host_and_port(text)
    if parts is None or parts[1] > 0xFFFF:
        raise UsageError(f"--metrics {text}: want HOST:PORT, such as 0.0.0.0:7071")
    return parts
