from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import yaml

from kubectl_gadget.advise.check import CheckedFlow, Result, check, show
from kubectl_gadget.advise.evaluate import Evaluator, PolicyEnd

NOON = int(time.mktime((2024, 5, 17, 12, 3, 0, 0, 0, -1))) * 10**9  # local time
SPAN = (6 * 3600 + 2 * 60) * 10**9

POLICIES = """
cart:
  podSelector: {matchLabels: {app: cart}}
  policyTypes: [Ingress, Egress]
  ingress:
  - {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}
  egress:
  - {ports: [{port: 53, protocol: UDP}, {port: 53}]}
  - {to: [{ipBlock: {cidr: 10.0.0.0/8}}]}
web:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{}]
  egress: [{}]
"""


def shown(*given: Any, **more: Any) -> list[str]:
    return [*show(*given, **more)]


def evaluator() -> Evaluator:
    specs: dict[str, Any] = yaml.safe_load(POLICIES)
    return Evaluator(
        [{"metadata": {"name": name, "namespace": "shop"}, "spec": spec} for name, spec in specs.items()], {}
    )


def flow(
    source: str, target: str, port: int, protocol: str = "TCP", count: int = 1, last_ns: int = NOON
) -> CheckedFlow:
    ends = [
        PolicyEnd("203.0.113.7") if name == "world" else PolicyEnd("", "shop", "", {"app": name})
        for name in (source, target)
    ]
    return CheckedFlow(*ends, protocol, port, count, last_ns, source, target)


FLOWS = [
    flow("web", "cart", 8080, count=811),
    flow("world", "web", 443),
    flow("web", "cart", 9090, count=40, last_ns=NOON - 10**9),
    flow("web", "cart", 9090),  # another replica's
    flow("cart", "world", 53, "UDP", 3),
    flow("cart", "world", 443, count=1),
    flow("web", "cart", 0, "ICMP", 7),
]


def test_check_screen() -> None:
    """Check shows what would be denied and why, the rules that nothing needs, and a sum; replicas are one line."""
    assert shown(check(evaluator(), FLOWS), SPAN) == [
        "DENIED  web → cart 9090/TCP    41 connections, last 2024-05-17 12:03   no ingress rule of cart allows port 9090/TCP",
        "DENIED  cart → world 443/TCP   1 connection, last 2024-05-17 12:03     no egress rule of cart allows this peer on port 443/TCP",
        "unused  shop/cart egress rule 2 (to 10.0.0.0/8)   no flow in 6h02m",
        "unused  shop/web egress rule 1 (to everyone)      no effect: policyTypes has no Egress",
        "815 of 857 connections allowed, 42 denied, 2 rules unused, 7 ICMP not judged.",
    ]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
def test_check_fits(columns: int) -> None:
    """On a terminal no line is wider than it; ports and numbers are whole."""
    long = [flow("a-frontend-of-a-shop-with-a-very-long-name", "cart", 9090, count=12_345_678), *FLOWS]
    *lines, _ = shown(check(evaluator(), long), SPAN, columns=columns)
    assert max(map(len, lines)) <= columns
    assert any("9090/TCP" in line and "12,345,678 connections" in line for line in lines)


@pytest.mark.parametrize(("flows", "code"), [(FLOWS[:2], 0), (FLOWS, 1), ([], 0)])
def test_exit_code(flows: list[CheckedFlow], code: int) -> None:
    """In CI a denied flow fails the job; an unused rule does not."""
    assert check(evaluator(), flows).exit_code == code


@pytest.mark.parametrize("protocol", ["TCP", "ICMP"])
def test_one_of_several_counts_once(protocol: str) -> None:
    """Connections of which I can't be told which backend got them count once, in the sum and in each line."""
    several = [replace(flow("web", "cart", 9090, protocol, 37), either=1) for _ in range(3)]
    *lines, last = shown(check(evaluator(), several), SPAN)
    numbers = {"TCP": "0 of 37 connections allowed, 37 denied, ", "ICMP": "0 of 0 connections allowed, 0 denied, "}
    assert last.startswith(numbers[protocol])
    assert last.endswith("37 ICMP not judged.") == (protocol == "ICMP")
    assert ["up to 37 connections" in line for line in lines if line.startswith("DENIED")] == [True] * (
        protocol == "TCP"
    )


def test_order_of_flows_means_nothing() -> None:
    """The same traffic gives the same lines, in whatever order the nodes tell it."""
    assert shown(check(evaluator(), FLOWS), SPAN) == shown(check(evaluator(), reversed(FLOWS)), SPAN)


def test_names_are_harmless() -> None:
    """What a recording calls a workload can't move my cursor."""
    result = check(evaluator(), [flow("web\x1b[2J", "cart", 9090)])
    assert "\x1b" not in "\n".join(shown(result, SPAN))


def test_nothing_to_say() -> None:
    """With nothing denied and nothing unused, one line says so."""
    assert shown(Result([], [], 1234, check(evaluator(), []).unjudged), SPAN) == [
        "1,234 of 1,234 connections allowed, 0 denied, 0 rules unused."
    ]
