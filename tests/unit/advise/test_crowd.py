"""Very many addresses outside the cluster."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.blocks import fitting_bits
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.crowd import MANY
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.graph import make_graph
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.networks import Networks
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy import Advice, Peer
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import BEGAN, SECOND, Build, Place


def server() -> tuple[Build, Place]:
    build = Build()
    build.node("node-a", address="5.9.9.9")
    return build, build.pod("shop", "web", "node-a", {"app": "web"})


def spread(number: int, step: int = 97) -> list[str]:
    """So many addresses, all over 5.0.0.0/8."""
    return [str(ip_address((5 << 24) + at * step * 13)) for at in range(1, number + 1)]


def peers_of(advice: Advice) -> list[Peer]:
    return [
        peer for policy in advice.policies for rules in policy.rules.values() for rule in rules for peer in rule.peers
    ]


def denied(build: Build, advice: Advice) -> int:
    """How many connections the advice denies of those that were seen."""
    evaluator = Evaluator([policy.to_dict() for policy in advice.policies], {})
    result = check(evaluator, flows_of(Observation(build.context, build.flows, by_address=True), Settings()))
    assert result.allowed or result.denied_number
    return result.denied_number


def test_many_clients_become_networks() -> None:
    """Of more clients on the internet than a rule can name it names networks, says so, and lets in no node and no pod."""
    build, web = server()
    build.pod("shop", "odd", "node-a", {"app": "odd"}, address="5.77.1.1")
    for address in spread(5003):
        build.ingress(web, address, 443)
    advice = advise(Observation(build.context, build.flows))
    peers = peers_of(advice)
    assert 100 < len(peers) <= MANY
    assert sum(peer.unnamed for peer in peers) == 5003
    for ours in ("5.9.9.9", "5.77.1.1", "5.77.1.200"):
        assert not [peer.cidr for peer in peers if ip_address(ours) in ip_network(peer.cidr)]
    (warning,) = advice.warnings
    assert warning.text.startswith("5,003 addresses → shop/web:443/TCP: allowed as ")
    assert warning.text.endswith(", with all others in them: see --cidr-group")
    assert denied(build, advice) == 0
    assert " addresses: " in render_yaml(advice, explain=True)
    assert {arrow.count for arrow in make_graph(Observation(build.context, build.flows)).arrows} == {5003}
    assert ": 5,003 connections between 1 workload" in advice.summary


def test_as_many_as_can_be_named() -> None:
    """Up to the number that a rule can name each address has its own, also where pods saw them at different ports."""
    build, web = server()
    for address in spread(MANY):
        build.ingress(web, address, 443, count=3)
    advice = advise(Observation(build.context, build.flows))
    assert [peer.cidr for peer in peers_of(advice)] == [f"{address}/32" for address in spread(MANY)]
    assert not advice.warnings


def test_replicas_together_see_too_many() -> None:
    """The addresses of all replicas together become networks, where each of them saw few enough."""
    build = Build()
    build.node("node-a")
    owner = build.owner("StatefulSet", "shop", "web", {"matchLabels": {"app": "web"}})
    for replica in range(3):
        labels = {"app": "web", "apps.kubernetes.io/pod-index": str(replica)}
        pod = build.pod("shop", f"web-{replica}", "node-a", labels, owner)
        for address in spread(900)[replica::3]:
            build.ingress(pod, address, 443)
    advice = advise(Observation(build.context, build.flows))
    assert len(peers_of(advice)) <= MANY
    assert sum(peer.unnamed for peer in peers_of(advice)) == 900
    assert [each.text.split(": ")[0] for each in advice.warnings] == ["900 addresses → shop/web:443/TCP"]
    assert denied(build, advice) == 0


@pytest.mark.parametrize(("group", "warned"), [(24, False), (32, True)])
def test_groups_that_are_asked_for(group: int, warned: bool) -> None:
    """--cidr-group 24 makes of a thousand addresses in four networks those four, without a word."""
    build, web = server()
    for at in range(1000):
        build.egress(web, f"6.1.{at % 4}.{at // 4}", 443)
    advice = advise(Observation(build.context, build.flows), Settings(cidr_group=group))
    if not warned:
        assert [peer.cidr for peer in peers_of(advice)] == [f"6.1.{at}.0/24" for at in range(4)]
    assert bool(advice.warnings) == warned
    assert len(peers_of(advice)) <= MANY


def test_failed_and_old_ones_are_left_out() -> None:
    """Of very many addresses those that were only tried in vain, or not seen since then, open nothing."""
    build, web = server()
    old, failed, good = spread(1800)[:600], spread(1800)[600:1200], spread(1800)[1200:]
    for addresses, more in ((old, {}), (failed, {"failed": 1, "last": 3000}), (good, {"last": 3000})):
        for address in addresses:
            build.egress(web, address, 443, **more)
    advice = advise(Observation(build.context, build.flows), Settings(since=BEGAN + 2000 * SECOND))
    assert sum(peer.unnamed for peer in peers_of(advice)) == 600
    assert ": 600 connections between" in advice.summary
    with_failed = advise(Observation(build.context, build.flows), Settings(failed=True))
    assert sum(peer.unnamed for peer in peers_of(with_failed)) == 1800


def test_ipv6_crowd() -> None:
    """Very many IPv6 addresses become networks too."""
    build, web = server()
    for at in range(1300):
        build.ingress(web, f"2001:db8:{at:x}::1", 443)
    advice = advise(Observation(build.context, build.flows))
    assert len(peers_of(advice)) <= MANY
    assert denied(build, advice) == 0


@given(
    st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=60),
    st.integers(1, 20),
    st.integers(0, 32),
    st.lists(st.ip_addresses(v=4), max_size=4),
)
def test_networks_hold_all_and_none_of_ours(numbers: set[int], most: int, bits: int, ours: list[object]) -> None:
    """Whatever addresses there are, the networks hold each of them, and nothing of the cluster's own."""
    taken = {str(address) for address in ours}
    networks = Networks([], [], [], taken)
    outside = sorted(number for number in numbers if str(ip_address(number)) not in taken)
    if not outside:
        return
    cidr_of, chosen = networks.blocks(4, outside, bits, most)
    made = {number: ip_network(cidr_of(number)) for number in outside}
    assert all(ip_address(number) in network for number, network in made.items())
    assert not [each for each in taken for network in made.values() if ip_address(each) in network]
    plain = [number >> (32 - chosen) for number in outside]
    assert len(set(plain)) <= most or chosen == 0
    assert chosen == fitting_bits(outside, 32, bits, most)
    if chosen < bits:
        assert len({number >> (31 - chosen) for number in outside}) > most
