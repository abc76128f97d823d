"""Ranges in place of many ports."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.observation import Evidence, Observation
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Advice, Peer, Port
from kubectl_gadget.advise.ranges import MANY_PORTS, with_ranges
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build


def peer(*ports: int, cidr: str = "", protocol: str = "TCP") -> Peer:
    return Peer({"x"}, cidr=cidr, ports={Port(port, protocol): Evidence(sent=1) for port in ports})


def ranges(*peers: Peer) -> list[list[str]]:
    return [sorted(map(str, each.ports)) for each in with_ranges(peers)[0]]


def ftp(ports: Iterable[int], clients: int = 1) -> tuple[Build, Advice]:
    """Clients inside, and one outside, of a server of FTP."""
    build = Build()
    build.node("node-a")
    server = build.pod("shop", "ftp", "node-a", {"app": "ftp"})
    for number in range(clients):
        client = build.pod("shop", f"web-{number}", "node-a", {"app": f"web-{number}"})
        for port in (21, *ports):
            build.talk(client, server, port)
    for port in (21, *ports):
        build.ingress(server, "203.0.113.7", port)
    return build, advise(Observation(build.context, build.flows))


def test_passive_ftp() -> None:
    """Hundreds of ports of passive FTP are one range at both ends, told as such, of few lines, that denies nothing seen."""
    build, advice = ftp(range(30_001, 40_000, 25))
    shown = render_yaml(advice)
    assert shown.count("\n") < 60
    assert shown.count("    - port: 30001\n      endPort: 39976\n      protocol: TCP\n") == 2
    told = [each.text for each in advice.warnings]
    assert "ingress to shop/ftp: all of 30001-39976/TCP is allowed, of which many ports were seen" in told
    assert "egress of shop/web-0: all of 30001-39976/TCP is allowed, of which many ports were seen" in told
    evaluator = Evaluator([policy.to_dict() for policy in advice.policies], {})
    result = check(evaluator, flows_of(Observation(build.context, build.flows), Settings()))
    assert (result.denied, result.unused) == ([], [])
    cilium = render_yaml(advice, dialect="cilium")
    assert cilium.count('      - port: "30001"\n        endPort: 39976\n        protocol: TCP\n') == 3


def test_ports_of_the_servers_range() -> None:
    """Who asked a server of FTP for one transfer may use its whole range at both ends: the next one has another port. Who
    used one port of the range and nothing else keeps that.
    """
    build = Build()
    build.node("node-a")
    server, busy, once, scraper = (
        build.pod("shop", each, "node-a", {"app": each}) for each in ("ftp", "web", "once", "scraper")
    )
    used = {busy: (21, *range(30_001, 40_000, 25)), once: (21, 30_051), scraper: (30_101,)}
    for client, ports in used.items():
        for port in ports:
            build.talk(client, server, port)
    for port in used[once]:
        build.ingress(server, "203.0.113.9", port)
    build.ingress(server, "203.0.113.10", 30_101)
    advice = advise(Observation(build.context, build.flows))
    wide, narrow = {Port(21, "TCP"), Port(30_001, "TCP", 39_976)}, {Port(30_101, "TCP")}
    rules = {policy.name: policy.rules for policy in advice.policies}
    assert {name: {*rules[name][EGRESS][0].ports} for name in ("once", "scraper")} == {"once": wide, "scraper": narrow}
    admitted = {name: {*rule.ports} for rule in rules["ftp"][INGRESS] for peer in rule.peers for name in peer.names}
    assert admitted == {"web": wide, "once": wide, "scraper": narrow, "203.0.113.9": wide, "203.0.113.10": narrow}


def test_few_ports_stay_what_they_are() -> None:
    """Ports of which there are few, or that are far apart or the system's, open nothing else; side by side they are a range."""
    assert ranges(peer(8080, 8443, 9090)) == [["8080/TCP", "8443/TCP", "9090/TCP"]]
    assert ranges(peer(27017, 27018, 27019)) == [["27017-27019/TCP"]]
    assert ranges(peer(80, 81, 82)) == [["80/TCP", "81/TCP", "82/TCP"]]
    far = range(2000, 2000 + 1030 * MANY_PORTS * 2, 1030)
    assert ranges(peer(*far)) == [sorted(f"{port}/TCP" for port in far)]
    near = range(2000, 2000 + 1000 * (MANY_PORTS + 1), 1000)
    assert ranges(peer(*near)) == [["2000-22000/TCP"]]
    assert ranges(peer(*near, protocol="UDP"), peer(5000)) == [["2000-22000/UDP"], ["5000/TCP"]]


def test_clients_outside_count_together() -> None:
    """Of clients on the internet each has seen a few of the server's many ports: they share the range, and a rule."""
    clients = [peer(30_000 + 7 * number, cidr=f"203.0.113.{number}/32") for number in range(40)]
    assert ranges(*clients) == [["30000-30273/TCP"]] * 40


@given(st.sets(st.integers(1, 3000), max_size=60), st.sets(st.integers(1, 65535), max_size=60))
def test_ranges_hold_all(near: set[int], far: set[int]) -> None:
    """Whatever ports there are, each is in what is written, with what was seen of it, and what is more is told."""
    ports = near | far
    (made,), told = with_ranges([peer(*ports)])
    held = [(each.port, each.end or each.port) for each in made.ports]
    assert all(any(first <= port <= last for first, last in held) for port in ports)
    assert sum(each.sent for each in made.ports.values()) == len(ports)
    wider = {
        each
        for each in made.ports
        if each.end and each.end - each.port + 1 > sum(each.port <= port <= each.end for port in ports)
    }
    assert set(told) == wider


@pytest.mark.parametrize("clients", [1, 3])
def test_same_ports_again(clients: int) -> None:
    """The same ports in another order give the same policies."""
    ports = [*range(40_000, 41_000, 10)]
    assert render_yaml(ftp(ports, clients)[1]) == render_yaml(ftp(ports[::-1], clients)[1])
