"""Flows counted for Prometheus, beside Hubble's own handlers with the same flows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from gadget.endpoints import Endpoint
from kubectl_gadget.hubble.messages import message_of
from kubectl_gadget.hubble.metrics import ENDS, FlowTotals
from kubectl_gadget.observe.hubble import Flows
from kubectl_gadget.observe.lines import FIELDS
from kubectl_gadget.output import all_fields
from tests.hubble.test_oracle import framed
from tests.unit.observe.flows import GADGET

FLOWS = 2000
#: Hubble's metrics, of which a cluster's owner chooses some; http counts what no flow here has, and so do dns and icmp.
HANDLERS = ("flow", "drop", "tcp", "port-distribution", "flows-to-world", "dns", "icmp", "policy")
ENDPOINTS = (
    Endpoint("10.0.0.1", 0, "pod", "shop", "cart-6c9f7d5b8-x2x7l"),
    Endpoint("10.0.0.2", 0, "pod", "shop", "db-0"),
    Endpoint("10.0.0.3", 0, "pod", "front", "web"),
    Endpoint("10.96.0.7", 0, "svc", "shop", "cart"),
    Endpoint("10.1.0.1", 0, "node", "", "node-a"),
    Endpoint("10.0.0.4", 0, "container", "", "loose"),
    Endpoint("203.0.113.7", 0, "raw", "", ""),
    Endpoint("fd77::9", 0, "raw", "", ""),
)

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def rows(random: Random) -> list[tuple[Any, ...]]:
    """Any mix of what flows may be."""
    schema = GADGET.schema
    protocols = [int(key) for key, each in schema["protocol"].values.items() if each in ("tcp", "udp")]

    def word(name: str) -> int:
        return int(random.choice(list(schema[name].values)))

    def end(port: int) -> Endpoint:
        return random.choice(ENDPOINTS)._replace(port=port)

    def row(number: int) -> tuple[Any, ...]:
        values: dict[str, Any] = {
            "timestamp": number, "node": random.choice(("node-a", "node-b")), "pid": 7, "comm": "curl",
            "src": end(40001), "dst": random.choice((None, end(80), end(443), end(53))),
            "version": random.choice((4, 6)), "error": 0, "drop": random.choice(("", "NETFILTER_DROP")),
            "domain": random.choice(("", "example.org")), "sent": random.choice((0, 17, 1 << 60)), "received": 3,
            "retransmits": random.choice((0, 2)), "duration": 5, "rtt": 5,
            **{name: word(name) for name in ("type", "verdict", "direction", "reason", "domain_by")},
            "protocol": random.choice(protocols),
        }  # fmt: skip
        return tuple(values[name] for name in FIELDS)

    return [row(number) for number in range(FLOWS)]


def ours(flows: Sequence[dict[str, Any]]) -> Series:
    """What we count, under Hubble's names."""
    totals = FlowTotals()
    totals.add(flows)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in totals.collect()
        for sample in family.samples
        if sample.name.startswith("hubble_") and "lost" not in sample.name and "created" not in sample.name
    }


def theirs(binaries: Path, flows: Iterable[Any]) -> Series:
    """What Hubble counts."""
    handlers = [f"{name}:labelsContext={','.join(ENDS)}" for name in HANDLERS]
    done = subprocess.run(
        [binaries / "oracle", "metrics", *handlers], input=framed(list(flows)), stdout=subprocess.PIPE, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(each["name"], tuple(sorted(each["labels"].items()))): each["value"] for each in found}


def test_as_hubble_counts(binaries: Path) -> None:
    """What is counted under a name of Hubble's has the labels and numbers that Hubble gives to the same flows, and nothing that it counts of them is missing."""
    output = Flows(GADGET, all_fields(GADGET.schema))
    found = [(row, output.response(row)) for row in rows(Random(7))]
    wanted = theirs(binaries, [message_of(response, row[0]).flow for row, response in found])
    assert ours([response["flow"] for _, response in found]) == wanted
    assert sum(value for (name, _), value in wanted.items() if name == "hubble_flows_processed_total") == FLOWS
    names = {name for name, _ in wanted}
    assert len(names) == 5, names
