"""Very many addresses outside the cluster."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
    assert 1 < len(peers) <= MANY
    assert sum(peer.unnamed for peer in peers) == 5003
    for ours in ("5.9.9.9", "5.77.1.1", "5.77.1.200"):
        assert not [peer.cidr for peer in peers if ip_address(ours) in ip_network(peer.cidr)]
    (warning,) = advice.warnings
    assert warning.text.startswith("many addresses → shop/web:443/TCP: allowed as networks of a /18 and wider")
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


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("version", [4, 6])
def test_all_over_the_internet(direction: str, version: int) -> None:
    """Who is seen by clients all over the internet is open to all of it, but to no node, pod or private network; said."""
    build, web = server()
    build.pod("shop", "odd", "node-a", {"app": "odd"}, address="5.77.1.1" if version == 4 else "2a00:77::1")
    chance = random.Random(7)
    addresses = [chance.randrange(1 << 24, 224 << 24) for _ in range(20_000)]
    if version == 6:
        addresses = [(chance.randrange(0x2400, 0x2E00) << 112) | chance.getrandbits(112) for _ in range(20_000)]
    see = build.ingress if direction == "ingress" else build.egress
    for address in addresses:
        if ip_address(address).is_global:
            see(web, str(ip_address(address)), 443)
    advice = advise(Observation(build.context, build.flows))
    wide, *others = peers_of(advice)
    assert wide.cidr == ("0.0.0.0/0" if version == 4 else "::/0")
    excepted = [ip_network(each) for each in wide.excepted]
    strange = [
        "5.9.9.9",
        "5.77.1.1",
        "10.1.2.3",
        "192.168.9.9",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "127.0.0.1",
    ]
    if version == 6:
        strange = ["2a00:77::1", "fd00::1", "fe80::1", "::1", "ff02::1"]
    for each in strange:
        assert any(ip_address(each) in network for network in excepted), each
    assert not others
    ends = (
        "addresses all over the internet → shop/web:443/TCP",
        "shop/web → addresses all over the internet at 443/TCP",
    )
    what = f"{ends[direction == 'egress']}: allowed as {wide.cidr}, except own and private networks"
    assert what in [each.text for each in advice.warnings]
    assert denied(build, advice) == 0
    for dialect in ("kubernetes", "cilium"):
        shown = render_yaml(advice, dialect=dialect)
        assert shown.count("except:") == 1 and shown.count("\n") < 80
        build.flows += [replace(build.flows[0], peer="93.184.216.34" if version == 4 else "2606:2800::1")]
        assert render_yaml(advise(Observation(build.context, build.flows)), dialect=dialect) == shown


def test_side_by_side() -> None:
    """Addresses side by side are one network, those with a name of their own, or other ports, stay apart."""
    build, web = server()
    for last in range(8):
        build.egress(web, f"203.0.113.{last}", 443)
    for address in ("203.0.113.8", "203.0.113.9"):
        build.egress(web, address, 80)
    for address in ("203.0.113.9", "169.254.169.254", "169.254.169.253"):
        build.egress(web, address, 443)
    advice = advise(Observation(build.context, build.flows))
    assert sorted(peer.cidr for peer in peers_of(advice)) == [
        "169.254.169.253/32", "169.254.169.254/32", "203.0.113.0/29", "203.0.113.8/32", "203.0.113.9/32",
    ]  # fmt: skip
    assert denied(build, advice) == 0
    assert "# 203.0.113.0, 203.0.113.1, 203.0.113.2, 203.0.113.3 and 4 more" in render_yaml(advice)


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
    assert [each.text.split(": ")[0] for each in advice.warnings] == ["many addresses → shop/web:443/TCP"]
    assert denied(build, advice) == 0


@pytest.mark.parametrize(("group", "warned"), [(24, False), (32, True)])
def test_groups_that_are_asked_for(group: int, warned: bool) -> None:
    """--cidr-group 24 makes of a thousand addresses in four networks those four, without a word."""
    build, web = server()
    for at in range(1000):
        build.egress(web, f"6.1.{at % 4 * 2}.{at // 4}", 443)
    advice = advise(Observation(build.context, build.flows), Settings(cidr_group=group))
    if not warned:
        assert [peer.cidr for peer in peers_of(advice)] == [f"6.1.{at}.0/24" for at in (0, 2, 4, 6)]
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
