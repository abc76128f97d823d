"""map: what policies say of what was seen."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.map.policies import CachedAnswer, judge
from tests.unit.advise.build import Build


def seen() -> Observation:
    """Web asks cart at two ports."""
    build = Build()
    build.node("node-a")
    web, cart = (
        build.pod(
            "shop", f"{name}-6c9f7d5b8-x2x7l", "node-a", {"app": name}, build.deployment("shop", name, {"app": name})
        )
        for name in ("web", "cart")
    )
    build.talk(web, cart, 8080, count=5)
    build.talk(web, cart, 9090, count=2)
    return Observation(build.context, build.flows)


POLICY: dict[str, Any] = {
    "kind": "NetworkPolicy",
    "metadata": {"name": "cart", "namespace": "shop"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "cart"}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8080}]},
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        ],
    },
}


def test_judge() -> None:
    """The tab tells which flows the policies deny, which rules allowed what or nothing, and what is advised as a diff."""
    found = judge(seen(), [POLICY], ["shop"])
    assert (found["allowed"], found["denied"], found["policies"]) == (5, 2, ["shop/cart"])
    denied, allowed = found["flows"]
    assert (denied["verdict"], denied["source"], denied["target"], denied["port"]) == (
        "denied",
        "shop/web",
        "shop/cart",
        9090,
    )
    assert (allowed["verdict"], allowed["port"]) == ("allowed", 8080) and "cart" in allowed["reason"]
    assert [rule["rule"] for rule in found["unused"]] == [2]
    assert "shop/web" in found["diff"] and "+" in found["diff"]
    assert "kind: NetworkPolicy" in found["advised"]


def test_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often pages ask, the cluster and agents are asked once in a while; at once if I say so, and if policies have changed."""
    now, policies, asked = [100.0], [[POLICY]], list[int]()
    monkeypatch.setattr("kubectl_gadget.map.policies.time.monotonic", lambda: now[0])
    held = CachedAnswer(lambda: policies[0], lambda given: {"asked": asked.append(len(given))})
    assert [held()["number"] for _ in range(3)] == [1, 1, 1] and asked == [1]
    now[0] += 6
    assert held()["number"] == 1
    now[0] += 6
    assert held(anew=True)["number"] == 2
    policies[0] = []
    assert held(anew=True)["number"] == 2
    now[0] += 6
    assert held()["number"] == 3 and asked == [1, 1, 0]
    now[0] += 61
    assert held()["number"] == 4
