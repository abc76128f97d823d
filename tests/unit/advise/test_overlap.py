"""Selectors that find the pods of other workloads too."""

from __future__ import annotations

import pytest

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy import Advice
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build, Place


def canary(node: str = "node-a") -> tuple[Build, Place, Place, Place]:
    """web, web-canary that web's selector finds too, and cart."""
    build = Build()
    build.node("node-a")
    build.node("node-b", agent=False)
    web = build.pod("shop", "web-1", "node-a", {"app": "web"}, build.deployment("shop", "web", {"app": "web"}))
    labels = {"app": "web", "track": "canary"}
    other = build.pod("shop", "web-canary-1", node, labels, build.deployment("shop", "web-canary", labels))
    cart = build.pod("shop", "cart-1", "node-a", {"app": "cart"}, build.deployment("shop", "cart", {"app": "cart"}))
    return build, web, other, cart


def denied(build: Build, advice: Advice) -> list[tuple[str, str, int]]:
    """What the advice denies of what was seen."""
    policies = Evaluator([policy.to_dict() for policy in advice.policies], {})
    result = check(policies, flows_of(Observation(build.context, build.flows), Settings()))
    return [(each.source, each.target, each.port) for each in result.denied]


@pytest.mark.parametrize("default_deny", [False, True])
def test_closed_by_another(default_deny: bool) -> None:
    """A workload that another's policy closes too gets a policy of its own, though only its peer's end was seen."""
    build, web, other, cart = canary("node-b")
    build.talk(cart, web, 8080)
    build.egress(cart, other.address, 9090)
    advice = advise(Observation(build.context, build.flows), Settings(default_deny=default_deny))
    assert denied(build, advice) == []
    types = {policy.name: policy.types for policy in advice.policies}
    assert types["web-canary"] == ("Ingress",)


def test_closed_by_another_of_another() -> None:
    """That a policy closes what others' pods do goes on from one to the next."""
    build = Build()
    build.node("node-a")
    build.node("node-b", agent=False)
    pods = []
    for number, node in enumerate(("node-a", "node-b", "node-b")):
        labels = {f"l{each}": "x" for each in range(number, 3)} | {f"l{number + 1}": "x"}
        selector = {f"l{number + 1}": "x"}
        name = f"w{number}"
        pods.append(
            build.pod("shop", f"{name}-1", node, labels | {"app": name}, build.deployment("shop", name, selector))
        )
    client = build.pod("shop", "client", "node-a", {"app": "client"})
    build.talk(client, pods[0], 8080)
    build.egress(client, pods[1].address, 8081)
    build.egress(client, pods[2].address, 8082)
    assert denied(build, advise(Observation(build.context, build.flows))) == []


def test_loose_pods_under_anothers_policy() -> None:
    """Pods that can have no policy of their own, and are closed by another's, are opened there."""
    build, web, _, cart = canary()
    owner = build.owner("Job", "shop", "mixed", {})
    one = build.pod("shop", "mixed-a", "node-a", {"app": "web"}, owner)
    build.pod("shop", "mixed-b", "node-a", {"app": "none"}, owner)
    build.talk(web, cart, 8080)
    build.egress(one, "203.0.113.7", 443, count=3)
    advice = advise(Observation(build.context, build.flows))
    assert denied(build, advice) == []
    (rule,) = [
        rule
        for policy in advice.policies
        if policy.name == "web"
        for rule in policy.rules["Egress"]
        if rule.peers[0].cidr
    ]
    assert rule.peers[0].evidence.count == 3
    assert "no policy for shop/mixed: its pods have no labels that stay" in [each.text for each in advice.warnings]


def test_denied_for_want_of_a_question() -> None:
    """With -l a warning says whose traffic the policies deny because nobody asked about it."""
    build, web, other, cart = canary()
    build.talk(web, cart, 8080)
    build.talk(other, cart, 9090)
    advice = advise(Observation(build.context, build.flows), Settings(selector="!track"))
    assert "the policy of shop/web denies what pods of shop/web-canary do: advise on those too, without -l" in [
        each.text for each in advice.warnings
    ]


def test_overlap_of_peers() -> None:
    """A rule whose selector lets in another workload too is told of, also where the peer itself is not asked for."""
    build, web, _, cart = canary()
    build.talk(web, cart, 8080)
    advice = advise(Observation(build.context, build.flows), Settings(selector="app=cart"))
    assert [each.text for each in advice.warnings] == ["the selector of shop/web also matches pods of shop/web-canary"]
