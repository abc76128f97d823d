"""What the advice promises, judged by an evaluator that was written from the specification and knows nothing of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import product

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.evaluate import End, Evaluator
from kubectl_gadget.advise.flows import Flow
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy import Advice
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build, Place
from tests.unit.advise.strategies import OUTSIDE, PORTS, PROTOCOLS, Group, Truth, World, worlds

MANY = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def observe(build: Build) -> Observation:
    return Observation(build.context, build.flows)


def evaluator_of(advice: Advice) -> Evaluator:
    return Evaluator([policy.to_dict() for policy in advice.policies], {})


def end(group: Group | None, place: Place | None, address: str, other: Place | None) -> End:
    """An end as the specification looks at it."""
    own_node = place is not None and other is not None and place.host_network and place.node == other.node
    if group is None or place is None or group.host_network:
        return End(address=place.address if place else address, host_network=bool(place), is_own_node=own_node)
    return End(address=place.address, namespace=group.namespace, pod=place.name, labels=group.labels)


def ends(truth: Truth) -> tuple[End, End]:
    return (
        end(truth.source_group, truth.source, truth.address, truth.target),
        end(truth.target_group, truth.target, truth.address, truth.source),
    )


@MANY
@given(world=worlds(), default_deny=st.booleans())
def test_observed_flows_are_allowed(world: World, default_deny: bool) -> None:
    """Whatever an agent has seen goes on to work under the advised policies, also where other agents were missing."""
    advice = advise(observe(world.build), Settings(default_deny=default_deny))
    evaluator = evaluator_of(advice)
    for truth in world.truths:
        if truth.seen:
            verdict = evaluator.decide(*ends(truth), truth.protocol, truth.port)
            event(f"isolated: {verdict.egress.isolated}, {verdict.ingress.isolated}")
            assert verdict.allowed, f"{truth}: {verdict.reason}\n{render_yaml(advice)}"


@MANY
@given(world=worlds())
def test_directions(world: World) -> None:
    """A policy closes a direction that its own pods were seen to use, and no other."""
    advice = advise(observe(world.build))
    key_of = {group.labels["app"]: group.key for group in world.groups}
    closed = {
        (key_of[app], each)
        for policy in advice.policies
        for app in re.findall(r"app-\d", str(policy.selector))
        for each in policy.types
    }
    used = set()
    for truth in world.truths:
        if truth.seen_by_source and truth.source_group and not truth.source_group.host_network:
            used.add((truth.source_group.key, "Egress"))
        if truth.seen_by_target and truth.target_group and not truth.target_group.host_network:
            source, target = truth.source, truth.target
            if not (source and target and source.host_network and source.node == target.node):
                used.add((truth.target_group.key, "Ingress"))
    assert closed == used


def strangers(world: World) -> Iterator[tuple[str, str, Group | None, Place | None, Group | None, Place | None, str]]:
    """All pairs of pods, and pods with addresses: what the pair is called in world.open, and its ends."""
    places = [(group, place) for group in world.groups for place in group.pods]
    for (group, place), (other_group, other) in product(places, places):
        if place.address != other.address and not (group.host_network and other_group.host_network):
            names = [
                each.address if own.host_network else own.key for own, each in ((group, place), (other_group, other))
            ]
            yield names[0], names[1], group, place, other_group, other, ""
    for (group, place), address in product(places, (*OUTSIDE[4], *OUTSIDE[6])):
        if not group.host_network:
            yield group.key, address, group, place, None, None, address
            yield address, group.key, None, None, group, place, address


@MANY
@given(world=worlds(), default_deny=st.booleans())
def test_nothing_else_is_allowed(world: World, default_deny: bool) -> None:
    """A port, protocol or peer that was never observed is closed, where either end is closed at all."""
    advice = advise(observe(world.build), Settings(default_deny=default_deny))
    evaluator = evaluator_of(advice)
    known = set(world.open)
    for truth in world.truths:
        if truth.seen and truth.target_group is None and truth.source_group:
            known.add((truth.source_group.key, truth.address, truth.protocol, truth.port))
        if truth.seen and truth.source_group is None and truth.target_group:
            known.add((truth.address, truth.target_group.key, truth.protocol, truth.port))
    for start, stop, group, place, other_group, other, address in strangers(world):
        source, target = end(group, place, address, other), end(other_group, other, address, place)
        for protocol, port in product(PROTOCOLS, PORTS):
            verdict = evaluator.decide(source, target, protocol, port)
            if source.is_own_node or target.is_own_node or (start, stop, protocol, port) in known:
                continue
            isolated = verdict.egress.isolated or verdict.ingress.isolated
            assert verdict.allowed != isolated, f"{start} → {stop} {port}/{protocol}\n{render_yaml(advice)}"


@MANY
@given(world=worlds(), seed=st.integers(0, 1000), cut=st.booleans())
def test_same_bytes(world: World, seed: int, cut: bool) -> None:
    """The same flows give the same bytes, whatever their order, the node they came from first, or how they were cut up."""
    build, chance = world.build, random.Random(seed)
    once = render_yaml(advise(observe(build)), explain=True)
    flows: list[Flow] = []
    for flow in build.flows:
        if cut and flow.count > 1:
            failed = min(flow.failed, 1)
            flows.append(replace(flow, count=1, failed=failed, last=flow.first))
            flow = replace(flow, count=flow.count - 1, failed=flow.failed - failed)
        flows.append(flow)
    chance.shuffle(flows)
    chance.shuffle(build.context.objects)
    chance.shuffle(build.context.pods)
    assert render_yaml(advise(Observation(build.context, flows)), explain=True) == once
