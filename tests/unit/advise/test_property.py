"""What the advice promises, judged by an evaluator that was written from the specification and knows nothing of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import product

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.evaluate import Evaluator, PolicyEnd
from kubectl_gadget.advise.flows import Flow
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.labels import Selector
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy import Advice
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build, Place
from tests.unit.advise.strategies import HALF, LEGACY, OUTSIDE, PORTS, PROTOCOLS, Group, Truth, Who, World, worlds

MANY = settings(
    deadline=None,
    max_examples=100,
    phases=[each for each in Phase if each is not Phase.explain],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
#: What --failed, --cidr-group, --since and --default-deny may be.
ASKED = st.builds(
    Settings,
    default_deny=st.booleans(),
    failed=st.booleans(),
    cidr_group=st.sampled_from([0, 24]),
    since=st.sampled_from([0, HALF]),
)


def observe(build: Build) -> Observation:
    return Observation(build.context, build.flows)


def evaluator_of(advice: Advice) -> Evaluator:
    return Evaluator([policy.to_dict() for policy in advice.policies], {})


def end(group: Group | None, place: Place | None, address: str, other: Place | None, node: str = "") -> PolicyEnd:
    """An end as the specification looks at it; of an address node is where it is."""
    node = place.node if place and place.host_network else node
    own_node = other is not None and node == other.node
    if group is None or place is None or group.host_network:
        return PolicyEnd(address=address, host_network=bool(place or node), is_own_node=own_node)
    return PolicyEnd(address=address, namespace=group.namespace, pod=place.name, labels=group.every[place.uid])


def ends(truth: Truth) -> tuple[PolicyEnd, PolicyEnd]:
    is_ipv6 = ":" in truth.address
    own = truth.source.address if truth.source else truth.address
    if truth.source and truth.source.host_network and (":" in own) != is_ipv6:
        own = f"fd00:1::{int(truth.source.node[-1]) + 1}"
    return (
        end(truth.source_group, truth.source, own if truth.source else truth.address, truth.target, truth.node),
        end(truth.target_group, truth.target, truth.address, truth.source),
    )


@MANY
@given(world=worlds(), asked=ASKED)
def test_observed_flows_are_allowed(world: World, asked: Settings) -> None:
    """Whatever an agent has seen goes on to work under the advised policies, also where other agents were missing."""
    advice = advise(observe(world.build), asked)
    evaluator = evaluator_of(advice)
    judged = 0
    for truth in world.truths:
        if truth.seen and truth.nameable and truth.last >= asked.since and (asked.failed or not truth.failed):
            verdict = evaluator.decide(*ends(truth), truth.protocol, truth.port)
            event(f"isolated: {verdict.egress.isolated}, {verdict.ingress.isolated}")
            judged += verdict.egress.isolated or verdict.ingress.isolated
            assert verdict.allowed, f"{truth}: {verdict.reason}\n{render_yaml(advice)}"
    event(f"policies: {min(len(advice.policies), 3)}, judged: {judged > 0}")


@MANY
@given(world=worlds())
def test_directions(world: World) -> None:
    """A policy closes a direction that its own pods were seen to use, or that another policy closes to them."""
    advice = advise(observe(world.build))
    shown = {(policy.namespace, words_of(policy.selector), each) for policy in advice.policies for each in policy.types}
    used: set[tuple[Group, str]] = set()
    perhaps: set[tuple[Group, str]] = set()
    for truth in world.truths:
        if truth.failed:
            continue
        # behind a Service there may be others than the target, whom a policy can be about
        found = used if truth.nameable else perhaps
        if truth.seen_by_source and truth.source_group and truth.source_group.named:
            found.add((truth.source_group, "Egress"))
        if truth.seen_by_target and truth.target_group and truth.target_group.named and not truth.is_from_own_node:
            found.add((truth.target_group, "Ingress"))
    missing = {(group.namespace, words(group), each) for group, each in used} - shown
    assert not missing, render_yaml(advice)
    grown = used | perhaps
    while (
        more := {(other, each) for group, each in grown for other in world.groups if other.named and group.finds(other)}
        - grown
    ):
        grown |= more
    superfluous = shown - {(group.namespace, words(group), each) for group, each in grown}
    assert not superfluous, render_yaml(advice)


def words(group: Group) -> str:
    """The labels that a workload's selector asks for, however it is written."""
    return " ".join(sorted(f"{key}={value}" for key, values in group.wants.items() for value in values))


def words_of(selector: Selector) -> str:
    found = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    for each in selector.get("matchExpressions", ()):
        found += [f"{each['key']}={value}" for value in each["values"]]
    return " ".join(sorted(found))


def strangers(world: World) -> Iterator[tuple[Who, Who, PolicyEnd, PolicyEnd]]:
    """All pairs of pods, and pods with addresses: whom policies tell apart, and the ends."""
    places = [(group, place) for group in world.groups for place in group.pods]
    for (group, place), (other_group, other) in product(places, places):
        if place.address != other.address and not (group.host_network and other_group.host_network):
            start, stop = (
                own.address if each.host_network else each for each, own in ((group, place), (other_group, other))
            )
            yield start, stop, end(group, place, place.address, other), end(other_group, other, other.address, place)
    nodes = {address: name for names in world.nodes.values() for name, address in names.items()} | world.api_servers
    for (group, place), address in product(places, (*OUTSIDE[4], *OUTSIDE[6], *LEGACY.values(), *nodes)):
        if not (group.host_network or nodes.get(address) == place.node):
            yield group, address, end(group, place, place.address, None), PolicyEnd(address)
            yield address, group, PolicyEnd(address), end(group, place, place.address, None)


def is_same(seen: Who, other: Who, group: int) -> bool:
    """Whether a rule for what was seen is about another one too."""
    if isinstance(seen, str) or isinstance(other, str):
        if not (isinstance(seen, str) and isinstance(other, str)):
            return False
        ours = seen.startswith(("192.168.", "10.244.", "fd00:1::", "fd00:10:"))
        bits = (64 if ":" in seen else group) if group and not ours else 128
        bits = min(bits, 128 if ":" in seen else 32)
        return (":" in seen) == (":" in other) and ip_address(other) in ip_network((seen, bits), strict=False)
    return seen.finds(other)


def following(group: Group | None, place: Place | None, address: str, others: tuple[str, ...] = ()) -> list[PolicyEnd]:
    """Who may be at an end the next time: after a failover, in the next run, on another node, by another API server."""
    if group is None or place is None or group.host_network:
        return [PolicyEnd(each, host_network=True) for each in others or (address,)]
    return [PolicyEnd("", group.namespace, "the-next-one", labels) for labels in group.later]


@MANY
@given(world=worlds())
def test_what_comes_next_is_allowed(world: World) -> None:
    """After a failover, in the next run and revision, through another node and by another API server all goes on."""
    advice = advise(observe(world.build))
    evaluator = evaluator_of(advice)
    for truth in world.truths:
        if not (truth.seen and truth.nameable) or truth.failed or truth.is_from_own_node:
            continue
        source, target = ends(truth)
        starts = following(truth.source_group, truth.source, source.address, truth.may_be)
        stops = following(truth.target_group, truth.target, target.address)
        for start, stop in product(starts, stops):
            verdict = evaluator.decide(start, stop, truth.protocol, truth.port)
            assert verdict.allowed, f"{truth}: {start} → {stop}: {verdict.reason}\n{render_yaml(advice)}"


@MANY
@given(world=worlds(), asked=ASKED)
def test_nothing_else_is_allowed(world: World, asked: Settings) -> None:
    """A port, protocol or peer that was never observed is closed, where either end is closed at all."""
    advice = advise(observe(world.build), asked)
    evaluator = evaluator_of(advice)
    seen = {each[:4] for each in world.open if asked.failed >= each[4]}
    starting: dict[Who, set[tuple[Who, Who, str, int]]] = {}
    stopping: dict[Who, set[tuple[Who, Who, str, int]]] = {}
    for start, stop, source, target in strangers(world):
        if source.is_own_node or target.is_own_node:
            continue
        if start not in starting:
            starting[start] = {each for each in seen if is_same(each[0], start, asked.cidr_group)}
        if stop not in stopping:
            stopping[stop] = {each for each in seen if is_same(each[1], stop, asked.cidr_group)}
        known = {each[2:] for each in starting[start] & stopping[stop]}
        for protocol, port in product(PROTOCOLS, PORTS):
            if (protocol, port) not in known:
                verdict = evaluator.decide(source, target, protocol, port)
                isolated = verdict.egress.isolated or verdict.ingress.isolated
                assert verdict.allowed != isolated, f"{start} → {stop} {port}/{protocol}\n{render_yaml(advice)}"


@MANY
@given(world=worlds(), by_address=st.booleans(), closed=st.sampled_from(["nothing", "advice", "all"]))
def test_each_connection_is_judged_once(world: World, by_address: bool, closed: str) -> None:
    """Allowed, denied and not judged are together the connections of the recording, each once, whatever the policies."""
    observation = Observation(world.build.context, world.build.flows, by_address=by_address)
    policies = [policy.to_dict() for policy in advise(observation).policies] if closed == "advice" else []
    if closed == "all":
        spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        policies = [{"metadata": {"namespace": each, "name": "x"}, "spec": spec} for each in ("shop", "web")]
    result = check(Evaluator(policies, {}), flows_of(observation, Settings()))
    seen = [truth for truth in world.truths if truth.seen and not truth.failed]
    most = sum(truth.count for truth in seen if truth.may_be_about_a_pod)
    # one to a Service, whose end nobody saw, may be the same as one that another pod of the Service saw of the same peer
    told = [truth for truth in seen if truth.seen_by_target or not truth.perhaps]
    least = sum(truth.count for truth in told if truth.is_about_a_pod)
    assert least <= result.allowed + result.denied_number + result.unjudged.total() <= most


@MANY
@given(world=worlds())
def test_nothing_is_denied_silently(world: World) -> None:
    """What the advice would deny of what was seen is told with it, and what is told is so."""
    advice = advise(observe(world.build))
    observation = Observation(world.build.context, world.build.flows, by_address=True)
    denied = check(evaluator_of(advice), flows_of(observation, Settings())).denied
    told = [each.text for each in advice.warnings if each.text.startswith("WILL BE DENIED")]
    event(f"denied: {bool(denied)}")
    assert bool(denied) == bool(told)
    assert all(any(each.target in text or each.source in text for text in told) for each in denied)


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
