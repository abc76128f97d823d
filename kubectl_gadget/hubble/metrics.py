"""Flows counted for Prometheus, under Hubble's names where the meaning is Hubble's, and ours beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gadget.errors import GadgetError
from gadget.exposition import PageServer
from gadget.series import SeriesTable
from gadget.text import host_and_port

Flow = Mapping[str, Any]
#: Sets of labels of one metric; flows with further ones count with OTHER in place of all names.
MOST_SERIES = 5000
OTHER = "other"
#: As agents have them.
MOST_CLIENTS, CLIENT_SECONDS = 4, 5.0
#: Hubble's labelsContext: workloads, not pods, whose names have no end.
ENDS = ("source_namespace", "source_workload", "destination_namespace", "destination_workload")
_WORLD = "reserved:world"
#: pkg/monitor/api: what an event_type is called, by type and sub_type.
_TRACES = {0: "to-endpoint", 3: "to-stack"}
#: Each with its labels, before those of both ends, and what it counts.
METRICS = {
    "hubble_flows_processed_total": (("protocol", "type", "subtype", "verdict"), "Flows"),
    "hubble_drop_total": (("reason", "protocol"), "Flows that a filter, or a node's kernel, dropped"),
    "hubble_tcp_flags_total": (("flag", "family"), "TCP connections by how they begin and end"),
    "hubble_port_distribution_total": (("protocol", "port"), "Flows that arrived, by the port that was asked"),
    "hubble_flows_to_world_total": (("protocol", "verdict"), "Flows to addresses outside the cluster"),
    "gadget_flow_sent_bytes_total": (("protocol",), "Bytes of data that who began a flow sent"),
    "gadget_flow_received_bytes_total": (("protocol",), "Bytes of data that who began a flow received"),
    "gadget_flow_retransmits_total": ((), "TCP segments that were sent again"),
    "gadget_connect_failures_total": (("result",), "Connections that were not made, by what became of them"),
}


def count(flow: Flow) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """What a flow adds to which metric, with the values of its own labels."""
    (protocol, l4), verdict = next(iter(flow["l4"].items())), flow["verdict"]
    yield (
        "hubble_flows_processed_total",
        (protocol, "Trace", _TRACES[flow["event_type"].get("sub_type", 0)], verdict),
        1,
    )
    value = flow["extensions"]["value"]
    if verdict == "DROPPED":
        yield "hubble_drop_total", ("DROP_REASON_UNKNOWN", protocol), 1
    if verdict == "FORWARDED":
        for flag in l4.get("flags", ()):
            yield "hubble_tcp_flags_total", (flag, flow["IP"]["ipVersion"]), 1
        yield "hubble_port_distribution_total", (protocol, str(l4["destination_port"])), 1
    if _WORLD in flow["destination"]["labels"] and verdict != "DROPPED":  # of these Hubble counts policies' alone
        yield "hubble_flows_to_world_total", (protocol, verdict), 1
    is_first = flow["traffic_direction"] == "EGRESS"
    if not is_first and "pod_name" in flow["source"]:  # the other end has told it
        return
    if value["type"] == "failed":
        yield "gadget_connect_failures_total", (value["verdict"],), 1
    if value["type"] == "ended":
        sent, received = (
            int(value.get(name, 0)) for name in (("sent", "received") if is_first else ("received", "sent"))
        )
        yield "gadget_flow_sent_bytes_total", (protocol,), sent
        yield "gadget_flow_received_bytes_total", (protocol,), received
        yield "gadget_flow_retransmits_total", (), value.get("retransmits", 0)


def ends(flow: Flow) -> tuple[str, ...]:
    """The values of the labels of both ends."""
    return tuple(
        text
        for end in (flow["source"], flow["destination"])
        for text in (end.get("namespace", ""), next((each["name"] for each in end.get("workloads", ())), ""))
    )


class FlowTotals(Collector):
    """Adds flows up. One thread adds; any may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_series: int = MOST_SERIES) -> None:
        """Nothing was seen."""
        self._series = {
            name: SeriesTable(most_series, _Number, clock, partial(_other, own)) for name, (own, _) in METRICS.items()
        }
        #: the workloads that have running containers, by namespace and name; None if that is not known
        self.living: Collection[tuple[str, str]] | None = None
        self._lost = 0
        self._lock = threading.Lock()

    def add(self, flows: Sequence[Flow]) -> None:
        """Count flows."""
        with self._lock:
            for flow in flows:
                names = ends(flow)
                for metric, labels, number in count(flow):
                    self._series[metric].of((*labels, *names)).value += number

    def lose(self, number: int) -> None:
        """Count flows that did not come."""
        with self._lock:
            self._lost += number

    def collect(self) -> Iterator[Metric]:
        """All of it as it is now."""
        with self._lock:
            found = {
                name: [(labels, number.value) for labels, number in series.shown(self._lives)]
                for name, series in self._series.items()
            }
            full = sum(series.is_full for series in self._series.values())
            lost = self._lost
        for name, series in found.items():
            labels, what = METRICS[name]
            family = CounterMetricFamily(name, f"{what}.", labels=[*labels, *ENDS])
            for values, number in series:
                family.add_metric(values, number)
            yield family
        losses = CounterMetricFamily("hubble_lost_events_total", "Flows that were lost.", labels=["source"])
        losses.add_metric(["observer_events_queue"], lost)
        yield losses
        bounded = GaugeMetricFamily("gadget_flow_metrics_bounded", "Metrics whose new names count as other.")
        bounded.add_metric([], full)
        yield bounded

    def _lives(self, labels: tuple[str, ...]) -> bool | None:
        """Whether all workloads of a series are there; what is no workload always is."""
        if self.living is None:
            return None
        whose = (labels[-4:-2], labels[-2:])
        return all(each in self.living for each in whose if each[1] and each != (OTHER, OTHER))


def _other(own: Sequence[str], labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels with OTHER in place of all names. own are the labels that a metric has before those of the ends."""
    values = (OTHER if name == "port" else value for name, value in zip(own, labels[: -len(ENDS)], strict=True))
    return (*values, *(OTHER for _ in ENDS))


@dataclass
class _Number:
    value: int = 0


@contextmanager
def serving(address: str, totals: FlowTotals) -> Iterator[str]:
    """Serve numbers at HOST:PORT; gives that address. GadgetError if it cannot be bound."""
    place = host_and_port(address)
    if place is None:
        raise GadgetError(f"--metrics {address}: want HOST:PORT")
    registry = CollectorRegistry()
    registry.register(totals)
    try:
        server = PageServer(place, registry, MOST_CLIENTS, CLIENT_SECONDS)
    except (OSError, OverflowError) as error:
        raise GadgetError(f"--metrics {address}: {getattr(error, 'strerror', None) or 'want HOST:PORT'}") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{address.rpartition(':')[0]}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
