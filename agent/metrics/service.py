"""Serves what services count, and what the agent costs, as prometheus.io's text format has it.

Everybody on the pod network may ask. Labels are names of gadgets, standing runs, rules and reasons alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.metrics.settings import Settings
from agent.service import Number, Running, ServiceContext
from agent.threads import Worker
from gadget import __version__
from gadget.errors import UsageError
from gadget.exposition import PATH, PageServer
from gadget.text import host_and_port

PREFIX = "gadget_"
#: How often the thread that accepts looks whether it is to end.
LOOK_SECONDS = 0.5
TOTAL = "_total"


class Numbers(Collector):
    """All numbers of an agent, as they are when they are asked for."""

    def __init__(self, context: ServiceContext) -> None:
        """Count what is at work in context."""
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
    """All numbers of one service, or none."""
    dead = sum(bool(worker.problem) for worker in service.workers)
    made = [Number("dead_threads", "Threads that died or hang.", dead, {"service": name})]
    made += [
        Number("lost_total", "What a service should have and has not.", count, {"service": name, "reason": reason})
        for reason, count in service.losses().items()
    ]
    return [*made, *service.numbers()]


class MetricsService(Running):
    """Serves at one address until it is closed."""

    def __init__(self, context: ServiceContext, settings: Settings) -> None:
        """Begin.

        Raises:
            UsageError: The address is none.
            OSError: Nobody can be served there.

        """
        registry = CollectorRegistry()
        registry.register(Numbers(context))
        ProcessCollector(registry=registry)
        self._server = PageServer(_address(settings.listen), registry, settings.most_connections, settings.seconds)
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
            self._server.service_actions()


def _address(text: str) -> tuple[str, int]:
    parts = host_and_port(text)
    if parts is None or parts[1] > 0xFFFF:
        raise UsageError(f"--metrics {text}: want HOST:PORT, such as 0.0.0.0:7071")
    return parts
