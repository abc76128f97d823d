"""observe -o jsonpb: flows as Hubble's own clients read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_gadget.observe.hubble import CompactFlows, Flows
from kubectl_gadget.observe.lines import FIELDS
from kubectl_gadget.output import all_fields
from tests.conftest import run_cli
from tests.unit.observe.flows import FLOWS, GADGET, table


@pytest.fixture
def flows(capsysbinary: pytest.CaptureFixture[bytes]) -> dict[str, dict[str, Any]]:
    """Flows by name, each as it is in a line."""
    output = Flows(GADGET, all_fields(GADGET.schema))
    output.write(list(zip(*(table().column(name) for name in FIELDS), strict=True)))
    lines = capsysbinary.readouterr().out.decode().splitlines()
    return {name: json.loads(line)["flow"] for name, line in zip(FLOWS, lines, strict=True)}


def test_flow(flows) -> None:
    """A flow goes from who began it, with names, ports and node, whichever end it was seen at."""
    flow = flows["web answers cart"]
    assert flow["time"] == "1970-01-01T00:00:02.000000000Z"
    assert (flow["verdict"], flow["traffic_direction"], flow["is_reply"]) == ("FORWARDED", "INGRESS", False)
    assert flow["IP"] == {"source": "10.77.0.1", "destination": "10.77.0.2", "ipVersion": "IPv4"}
    assert flow["l4"] == {"TCP": {"source_port": 40001, "destination_port": 8080, "flags": {"FIN": True}}}
    assert (flow["source"]["pod_name"], flow["destination"]["pod_name"]) == ("cart-0", "web-0")
    assert flow["destination"]["labels"] == ["k8s:io.kubernetes.pod.namespace=front"]
    assert flow["node_name"] == "node-a"
    assert flow["Summary"] == "forwarded nginx[9] 1.2 kB↑ 3.4 MB↓ 812ms rtt 210µs 2 sent again"
    value = flow["extensions"]["value"]
    assert (value["sent"], value["rtt"], value["pid"]) == (3_400_000, 210_000, 9)


def test_verdicts(flows) -> None:
    """What came to nothing is ERROR or DROPPED; who is outside is the world; a Service is named."""
    assert {name: flow["verdict"] for name, flow in flows.items()} == {
        "cart asks web": "FORWARDED",
        "web answers cart": "FORWARDED",
        "db asks web6": "FORWARDED",
        "db asks world": "ERROR",
        "db asks service": "ERROR",
    }
    assert flows["db asks world"]["destination"] == {"identity": 2, "labels": ["reserved:world"]}
    assert flows["db asks service"]["destination_service"] == {"name": "cart", "namespace": "shop"}
    assert flows["db asks web6"]["l4"]["TCP"]["flags"] == {"RST": True}


def test_domains(flows) -> None:
    """The domain of what is outside is its name, as Hubble has it; of any other end it is in extensions."""
    assert {name: flow["destination_names"] for name, flow in flows.items() if "destination_names" in flow} == {
        "db asks world": ["api.stripe.com"]
    }
    assert flows["db asks world"]["Summary"] == "no answer pg[7] api.stripe.com after 7.0s"
    assert flows["db asks web6"]["extensions"]["value"]["domain"] == "web.example.com"
    assert flows["db asks web6"]["extensions"]["value"]["domain_by"] == "sni"


def test_identities(flows) -> None:
    """All pods of a workload have one identity, which is none of Hubble's reserved ones."""
    same = {flows["cart asks web"]["destination"]["identity"], flows["db asks web6"]["destination"]["identity"]}
    assert len(same) == 1
    assert all(flow["source"]["identity"] >> 24 > 2 for flow in flows.values() if "pod_name" in flow["source"])


def test_fields() -> None:
    """-o jsonpb has Hubble's fields: others cannot be chosen with it."""
    done = run_cli("observe", "--agent", "unix:///none", "-o", "jsonpb", "--fields", "pid")
    assert (done.returncode, done.stderr.startswith("error: -o jsonpb has Hubble's fields")) == (2, True)


def test_compact(capsys: pytest.CaptureFixture[str]) -> None:
    """-o hubble has a flow in a line, as `hubble observe` has it: names or addresses, identities, verdict and our summary."""
    output = CompactFlows(GADGET, all_fields(GADGET.schema))
    output.write(list(zip(*(table().column(name) for name in FIELDS), strict=True)))
    lines = capsys.readouterr().out.splitlines()
    shop, web = "shop/cart-0:40001 (ID:864259587)", "front/web-0:8080 (ID:1989029999)"
    assert lines[0] == f"Jan  1 00:00:01.000: {shop} -> {web} to-stack FORWARDED (forwarded python[812] begun in 310µs)"
    assert lines[1].startswith(f"Jan  1 00:00:02.000: {shop} -> {web} to-endpoint FORWARDED (")
    assert " -> api.stripe.com:443 (world) to-stack ERROR (" in lines[3]
    assert " -> shop/cart:80 (ID:" in lines[4]
