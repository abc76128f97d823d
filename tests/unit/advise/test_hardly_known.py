"""Pods of which an agent knows hardly anything."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, permutations

import pytest
from msgspec.structs import replace as changed

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build, Place


def cart() -> tuple[Build, Place]:
    build = Build()
    build.node("node-a")
    owner = build.deployment("shop", "cart", {"app": "cart"})
    return build, build.pod("shop", "cart-6c9f7d5b8-x2x7l", "node-a", {"app": "cart"}, owner)


def allowed(build: Build) -> tuple[list[str], list[str]]:
    """What workloads get a policy, all of which allow what was seen; and the warnings."""
    observation = Observation(build.context, build.flows)
    advice = advise(observation)
    result = check(Evaluator([each.to_dict() for each in advice.policies], {}), flows_of(observation, Settings()))
    assert result.denied == []
    return [policy.name for policy in advice.policies], [each.text for each in advice.warnings]


@pytest.mark.parametrize("replica", [True, False])
def test_only_a_name(replica: bool) -> None:
    """A gone pod of which only the name is left belongs to the Deployment whose pods are named so."""
    build, server = cart()
    owner = build.deployment("shop", "importer", {"app": "importer"})
    if replica:
        build.pod("shop", "importer-6c9f7d5b8-aaaaa", "node-a", {"app": "importer"}, owner)
    gone = build.gone("shop", "importer-6c9f7d5b8-ggggg", "node-a", {}, "", "10.244.1.50", 0, 100)
    build.talk(gone, server, 8080)
    assert allowed(build) == (["cart", "importer"], [])


def test_only_a_name_that_says_nothing() -> None:
    """A gone pod whose name is like no workload's gets no policy, and says why."""
    build, server = cart()
    gone = build.gone("shop", "importer", "node-a", {}, "", "10.244.1.50", 0, 100)
    build.talk(gone, server, 8080)
    observation = Observation(build.context, build.flows)
    assert "no policy for shop/importer: its pods have no labels that stay" in [
        each.text for each in advise(observation).warnings
    ]


@pytest.mark.parametrize("remembered", [True, False])
def test_address_from_its_own_flow(remembered: bool) -> None:
    """A gone pod's address that only its own flow tells names it at the other end too, in whatever order they come."""
    build, server = cart()
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.talk(web, server, 8080)
    build.owner("CronJob", "shop", "report", {})
    build.context.objects[-1]["spec"] = {
        "jobTemplate": {"spec": {"template": {"metadata": {"labels": {"app": "report"}}}}}
    }
    gone = build.gone("shop", "report-28333334-ggggg", "node-a", {"app": "report"}, "Job/report-28333334", "", 0, 100)
    pod = build.context.pods.pop()
    if remembered:
        build.context.pods.append(replace(pod, addresses=()))
    build.egress(gone, server.address, 9090, first=10, last=20, local="10.244.1.50")
    build.egress(gone, server.address, 9091, first=90, last=100, local="10.244.1.50")
    build.ingress(server, "10.244.1.50", 9090, first=10, last=20)
    build.ingress(server, "10.244.1.50", 9092, first=95, last=95)
    texts = set()
    for flows in islice(permutations(build.flows), 0, 720, 61):
        build.flows = list(flows)
        assert allowed(build) == (["cart", "report", "web"], [])
        texts.add(render_yaml(advise(Observation(build.context, build.flows)), explain=True))
    assert len(texts) == 1
    build.flows = [changed(flow, local="") for flow in build.flows]
    assert [text for text in allowed_warnings(build) if text.startswith("WILL BE DENIED")]


def allowed_warnings(build: Build) -> list[str]:
    return [each.text for each in advise(Observation(build.context, build.flows)).warnings]
