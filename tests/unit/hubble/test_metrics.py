"""hubble serve --metrics: flows counted for Prometheus."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.options import CLUSTER
from kubectl_gadget.hubble.living import has_all_nodes, living
from kubectl_gadget.hubble.metrics import METRICS, OTHER, FlowTotals
from kubectl_gadget.observe.hubble import Flows
from kubectl_gadget.observe.lines import FIELDS
from kubectl_gadget.output import all_fields
from tests.conftest import Cli, run_cli, wait_until
from tests.prometheus import check, scraping
from tests.unit.hubble.served import FlowAgent
from tests.unit.observe.flows import FLOWS, GADGET, table


def flows() -> list[dict[str, Any]]:
    """Those of tests."""
    output = Flows(GADGET, all_fields(GADGET.schema))
    return [output.response(row)["flow"] for row in zip(*(table().column(name) for name in FIELDS), strict=True)]


def numbers(totals: FlowTotals) -> dict[str, dict[tuple[str, ...], float]]:
    """Of each metric the values, by those of labels."""
    return {
        family.name: {
            tuple(each.labels.values()): each.value for each in family.samples if not each.name.endswith("_created")
        }
        for family in totals.collect()
    }


def test_numbers() -> None:
    """Flows, ports, flags, failures and bytes are counted by namespace and workload of both ends, bytes of a connection once."""
    totals = FlowTotals()
    totals.add(flows())
    found = numbers(totals)
    both = ("shop", "cart", "front", "web")
    processed = found["hubble_flows_processed"]
    assert sum(processed.values()) == len(FLOWS)
    assert processed["TCP", "Trace", "to-stack", "FORWARDED", *both] == 1
    assert processed["TCP", "Trace", "to-endpoint", "FORWARDED", *both] == 1
    assert found["hubble_tcp_flags"]["SYN", "IPv4", *both] == found["hubble_tcp_flags"]["FIN", "IPv4", *both] == 1
    assert found["hubble_port_distribution"]["TCP", "8080", *both] == 2
    assert found["hubble_flows_to_world"]["TCP", "ERROR", "data", "db", "", ""] == 1
    assert found["gadget_connect_failures"]["refused", "data", "db", "shop", ""] == 1
    assert sum(found["gadget_flow_sent_bytes"].values()) == 0  # of both ends the one that began it tells
    totals.lose(7)
    assert numbers(totals)["hubble_lost_events"]["observer_events_queue",] == 7


def test_bytes_once() -> None:
    """Bytes and segments sent again are those of the end that began a connection; of one from outside, of the end that it reached."""
    ended, *_ = (flow for flow in flows() if flow["extensions"]["value"]["type"] == "ended" and "TCP" in flow["l4"])
    value = {**ended["extensions"]["value"], "sent": 1200, "received": str(1 << 60), "retransmits": 3}
    flow = {**ended, "extensions": {"value": value}}
    pod, world = flow["source"], {"labels": ["reserved:world"]}
    asked = [
        {**flow, "traffic_direction": direction, "source": source}
        for direction, source in (("EGRESS", pod), ("INGRESS", pod), ("INGRESS", world))
    ]
    totals = FlowTotals()
    totals.add(asked)
    found = numbers(totals)
    to = ("front", "web")
    assert found["gadget_flow_sent_bytes"] == {("TCP", "shop", "cart", *to): 1200, ("TCP", "", "", *to): 1 << 60}
    assert found["gadget_flow_received_bytes"] == {("TCP", "shop", "cart", *to): 1 << 60, ("TCP", "", "", *to): 1200}
    assert sum(found["gadget_flow_retransmits"].values()) == 6


def test_bounded() -> None:
    """Any number of workloads makes so many series; what comes after counts as other, and that is told."""
    totals = FlowTotals(most_series=3)
    flow = flows()[0]
    for number in range(10):
        totals.add([{**flow, "source": {**flow["source"], "workloads": [{"name": f"w{number}"}]}}])
    found = numbers(totals)
    assert len(found["hubble_flows_processed"]) == 4
    assert found["hubble_flows_processed"]["TCP", "Trace", "to-stack", "FORWARDED", *[OTHER] * 4] == 7
    assert found["hubble_port_distribution"]["TCP", OTHER, *[OTHER] * 4] == 7
    assert found["gadget_flow_metrics_bounded"][()] == 3


def test_gone() -> None:
    """The numbers of a workload that is gone go five minutes after its last flow, and go on where they were if it comes back; those of one that is there, however idle, stay."""
    now = [0.0]
    totals = FlowTotals(lambda: now[0])
    first, second = (of_workload(name) for name in "ab")
    totals.add([first, second])
    totals.living = {("shop", "b"), ("front", "web")}
    now[0] = 299.0
    assert processed(totals) == {"a": 1, "b": 1}
    now[0] = 301.0
    assert processed(totals) == {"b": 1}
    now[0] = 100_000.0
    assert processed(totals) == {"b": 1}
    totals.add([first])
    assert processed(totals) == {"a": 2, "b": 1}
    totals.living = {("shop", "a"), ("shop", "b")}  # not who was asked
    now[0] = 200_000.0
    assert processed(totals) == {}
    totals.living = None
    totals.add([first])
    now[0] = 203_000.0
    assert processed(totals) == {"a": 3}
    now[0] = 204_000.0
    assert processed(totals) == {}


def test_gone_make_room() -> None:
    """Workloads that come and go leave room for others; one that comes back after that begins anew, as after a restart."""
    now = [0.0]
    totals = FlowTotals(lambda: now[0], most_series=2)
    totals.living = {("front", "web")}
    for number in range(10):
        totals.add([of_workload(f"w{number}"), of_workload("often")])
        now[0] += 301.0
        assert processed(totals) == {}
        assert numbers(totals)["gadget_flow_metrics_bounded"][()] == 0
    totals.add([of_workload("w9")])
    assert processed(totals) == {"w9": 2}
    totals.add([of_workload("w0")])
    assert processed(totals) == {"w9": 2, "w0": 1}


def of_workload(name: str) -> dict[str, Any]:
    return {**flows()[0], "source": {"namespace": "shop", "workloads": [{"name": name}]}}


def processed(totals: FlowTotals) -> dict[str, float]:
    """The numbers of flows, by the workload that began them."""
    return {labels[5]: value for labels, value in numbers(totals)["hubble_flows_processed"].items()}


def test_living(tmp_path: Path) -> None:
    """Workloads that are there are those of running containers of all agents; if one does not tell, nobody knows."""
    agents = [FlowAgent(tmp_path, node) for node in ("node-a", "node-b")]
    targets = Targets({agent.node: partial(str, agent.address) for agent in agents})
    assert living(targets) == {("shop", "cart"), ("front", "web"), ("data", "db")}
    agents[0].die()
    assert living(targets) is None
    agents[1].die()


@pytest.mark.parametrize(
    ("agent", "local", "nodes", "all_nodes"),
    [((), False, (), True), ((), True, (), True), ((), False, ("node-a",), False), (("unix:///a",), False, (), False)],
)
def test_all_nodes(agent: tuple[str, ...], local: bool, nodes: tuple[str, ...], all_nodes: bool) -> None:
    """With --node and --agent numbers of workloads elsewhere stay: nobody who is asked knows whether they are gone."""
    with click.Context(click.Command("serve")) as context:
        context.meta[CLUSTER] = {"node": nodes}
        assert has_all_nodes(agent, local) == all_nodes


def test_served(tmp_path: Path, start_cli: Callable[..., Cli]) -> None:
    """A real Prometheus reads them where I say, each flow counted, and its promtool finds nothing; promises of names are kept."""
    agent = FlowAgent(tmp_path)
    cli = start_cli("hubble", "serve", "--agent", agent.address, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    assert cli.process.stderr
    found = re.search(r"http://\S+/metrics", cli.process.stderr.readline())
    assert found

    def page() -> str:
        with urllib.request.urlopen(found[0], timeout=10) as answer:
            text = answer.read().decode()
        return text if "hubble_flows_processed_total{" in text else ""

    text = wait_until(page, "numbers")
    check(text)
    families = {family.name for family in text_string_to_metric_families(text)}
    with scraping(tmp_path, int(found[0].rpartition(":")[2].partition("/")[0])) as value:
        assert wait_until(lambda: value("sum(hubble_flows_processed_total)"), "a scrape", 60) == len(FLOWS)
    agent.die()
    assert {name.removesuffix("_total") for name in METRICS} <= families


def test_wrong_address(tmp_path: Path) -> None:
    """An address that is none, or another's, is an error that says so."""
    where = ("hubble", "serve", "--agent", f"unix://{tmp_path}/none", "--listen", "127.0.0.1:0", "--metrics")
    for address, why in (
        ("7071", "want HOST:PORT"),
        ("127.0.0.1:99999", "want HOST:PORT"),
        ("192.0.2.1:7071", "Cannot assign requested address"),
    ):
        done = run_cli(*where, address)
        assert (done.returncode, done.stderr) == (1, f"error: --metrics {address}: {why}\n")
