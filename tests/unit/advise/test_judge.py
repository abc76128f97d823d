"""Check, from a recording to its lines: whose address a policy looks at, and how often each connection counts."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import Result, check, show, to_json
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.observation import Observation, read_flows
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import BEGAN, SECOND, Build

GOLDEN = Path(__file__).parent / "golden"


def shown(*given: Any, **more: Any) -> list[str]:
    return [*show(*given, **more)]


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def to_block(cidr: str) -> dict[str, Any]:
    """Web may connect to a network only."""
    egress = [{"to": [{"ipBlock": {"cidr": cidr}}]}]
    return policy("web", {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": egress})


def judged(build: Build, *policies: dict[str, Any]) -> Result:
    evaluator = Evaluator(policies, {})
    observation = Observation(build.context, build.flows, by_address=evaluator.looks_at_addresses)
    return check(evaluator, flows_of(observation, Settings()))


def test_replicas_by_their_addresses() -> None:
    """An ipBlock that holds some replicas allows the connections with those, and denies those with the others."""
    build = Build()
    for node in ("node-a", "node-b"):
        build.node(node)
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    owner = build.deployment("shop", "cart", {"app": "cart"})
    carts = [build.pod("shop", f"cart-{node}", node, {"app": "cart"}, owner) for node in ("node-a", "node-b")]
    for cart, count in zip(carts, (5, 7), strict=True):
        build.talk(web, cart, 8080, count=count)
    result = judged(build, to_block("10.244.1.0/24"))
    assert (result.allowed, result.denied_number) == (5, 7)
    address = build.service("shop", "cart", "10.96.0.10", [{"port": 80}], carts, [8080])
    build.flows = []
    build.egress(web, address, 80, count=13)
    build.ingress(carts[1], web.address, 8080, count=11)
    result = judged(build, to_block("10.244.1.0/24"))
    # of two that no target's agent saw it is not known which they reached
    assert (result.allowed, result.denied_number) == (0, 13)
    assert [(each.count, each.maybe) for each in result.denied] == [(11, False), (2, True)]
    assert [(each.count, each.maybe) for each in result.passed] == [(2, True)]


def test_both_addresses_of_a_pod() -> None:
    """A connection by IPv6 is judged by the IPv6 address of a pod that has one of each."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.pod("shop", "cart", "node-a", {"app": "cart"})
    for item in build.context.objects:
        if item["kind"] == "Pod":
            own = item["status"]["podIPs"]
            own.append({"ip": f"fd00::{own[0]['ip'].rpartition('.')[2]}"})
    build.egress(web, "fd00::3", 8080, count=3)
    build.egress(web, "10.244.1.3", 8080, count=2)
    result = judged(build, to_block("10.0.0.0/8"))
    assert (result.allowed, result.denied_number) == (2, 3)


def test_each_connection_counts_once() -> None:
    """Of connections to a Service check counts as many as the advice does, however many workloads are behind it."""
    observation = read_flows(GOLDEN / "service-of-two-workloads/flows.jsonl")
    advice = advise(observation)
    result = check(Evaluator([each.to_dict() for each in advice.policies], {}), flows_of(observation, Settings()))
    assert f": {result.allowed} connections between" in advice.summary
    assert (result.allowed, result.denied_number) == (13, 0)


def test_everything() -> None:
    """--all shows what is allowed too, and by which rules; JSON has the same."""
    observation = read_flows(GOLDEN / "service-80-to-8080/flows.jsonl")
    advised = [each.to_dict() for each in advise(observation).policies]
    result = check(Evaluator([*advised, to_block("10.9.0.0/16") | {"metadata": {"name": "x", "namespace": "shop"}}], {}),
                   flows_of(observation, Settings()))  # fmt: skip
    assert shown(result, 60 * 10**9, everything=True) == [
        "allowed shop/web → shop/cart 8080/TCP   12 connections, last 2023-11-14 22:15   "
        "web egress rule 1 (to app=cart on 8080/TCP); cart ingress rule 1 (from app=web on 8080/TCP)",
        "unused  shop/x egress rule 1 (to 10.9.0.0/16)   no flow in 1m00s",
        "12 of 12 connections allowed, 0 denied, 1 rule unused.",
    ]
    body = json.loads("".join(to_json(result, 60 * 10**9)))
    assert body["flows"] == [
        {
            "verdict": "allowed", "source": "shop/web", "target": "shop/cart", "protocol": "TCP", "port": 8080,
            "connections": 12, "maybe": False, "last": "2023-11-14T22:15:20.000000000Z",
            "reason": "web egress rule 1 (to app=cart on 8080/TCP); cart ingress rule 1 (from app=web on 8080/TCP)",
            "policies": ["shop/cart", "shop/web"],
        }
    ]  # fmt: skip
    assert body["unused"] == [
        {
            "namespace": "shop", "policy": "x", "direction": "egress", "rule": 1, "allows": "to 10.9.0.0/16",
            "effective": True, "seconds": 60,
        }
    ]  # fmt: skip
    assert (body["allowed"], body["denied"], body["not judged"]) == (12, 0, {})


def test_service_by_both_ip_versions() -> None:
    """Connections to a Service by IPv4 and by IPv6 are counted as what they are, in whatever order they come."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    cart = build.pod("shop", "cart", "node-a", {"app": "cart"})
    build.service("shop", "mixed", "10.96.0.10", [{"port": 80}], [cart], [8080])
    build.context.objects[-2]["spec"]["clusterIPs"].append("fd00:96::a")
    build.context.objects[-1]["endpoints"] += [
        {"addresses": [address]} for address in ("203.0.113.9", "2001:db8::9", "2001:db8::a")
    ]
    build.egress(web, "10.96.0.10", 80, count=5)
    build.egress(web, "fd00:96::a", 80, count=2)
    for _ in range(2):
        assert ": 7 connections" in advise(Observation(build.context, build.flows)).summary
        build.flows.reverse()
        build.context.objects.reverse()


@pytest.mark.parametrize("others", [0, 600])
def test_since_wants_a_success(others: int) -> None:
    """With --since a peer counts only if a connection came about since then, however many attempts failed."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.egress(web, "203.0.113.7", 443, count=5, first=60, last=120)
    build.egress(web, "203.0.113.7", 443, count=3, failed=3, first=3000, last=3100)
    for number in range(others):
        build.egress(web, f"198.51.{number // 250}.{number % 250}", 443, first=3000, last=3100)
    observation = Observation(build.context, build.flows)
    late = Settings(since=BEGAN + 1800 * SECOND)
    allowed = {
        peer.cidr
        for policy in advise(observation, late).policies
        for rule in policy.rules["Egress"]
        for peer in rule.peers
    }
    assert not any(ip_address("203.0.113.7") in ip_network(each) for each in allowed)
    assert check(Evaluator([], {}), flows_of(observation, late)).allowed == others
    assert check(Evaluator([], {}), flows_of(observation, Settings())).allowed == others + 5
