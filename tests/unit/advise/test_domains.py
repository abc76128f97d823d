"""Names of addresses outside, as DNS told them to the pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.commands import DIALECTS as CHOICES
from kubectl_gadget.advise.domains import is_domain
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.flows import write_flows
from kubectl_gadget.advise.judge import flows_of
from kubectl_gadget.advise.observation import Observation, read_flows
from kubectl_gadget.advise.policy import Advice
from kubectl_gadget.advise.render import DIALECTS, render_yaml
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build

STRIPE, BOTH = ("api.stripe.com",), ("a.cdn.example", "b.cdn.example")
NAMES = ["a.cdn.example", "api.stripe.com", "b.cdn.example"]


def shop(*, dns: bool = True) -> Build:
    """Web asks for names, and connects to addresses of several, of one, and of none."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.talk(build.pod("shop", "probe", "node-a", {"app": "probe"}), web, 8080)
    if dns:
        names = build.pod("kube-system", "coredns", "node-a", {"k8s-app": "kube-dns"})
        ports = [{"name": each.lower(), "port": 53, "protocol": each} for each in ("UDP", "TCP")]
        ports.append({"name": "metrics", "port": 9153})
        build.service("kube-system", "kube-dns", "10.96.0.10", ports, [names], [5353, 5353, 9153])
        build.egress(web, "10.96.0.10", 53, "UDP", count=9)
        build.egress(web, "10.96.0.10", 9153)
    for address in ("203.0.113.4", "203.0.113.5"):
        build.egress(web, address, 443, names=STRIPE, count=3)
    build.egress(web, "198.51.100.1", 443, names=BOTH)
    build.egress(web, "192.0.2.9", 443)
    build.ingress(web, "192.0.2.10", 443, names=STRIPE)
    return build


def advised(build: Build, dialect: str = "kubernetes") -> Advice:
    return advise(Observation(build.context, build.flows), Settings(selector="app=web", dialect=dialect))


def spec(build: Build, dialect: str) -> dict[str, Any]:
    text = render_yaml(advised(build, dialect), dialect=dialect)
    assert yaml.safe_load(text) == yaml.safe_load(render_yaml(advised(build, dialect), dialect=dialect, explain=True))
    found: dict[str, Any] = yaml.safe_load(text)["spec"]
    return found


@pytest.mark.parametrize("dialect", ["kubernetes", "calico"])
def test_names_stand_beside_addresses(dialect: str) -> None:
    """A rule for an address tells the name that pods asked for; that a name has several addresses is warned about."""
    advice = advised(shop(), dialect)
    shown = render_yaml(advice, dialect=dialect)
    assert shown.count("# api.stripe.com\n") == 2 and shown.count("# a.cdn.example, b.cdn.example\n") == 1
    (warning,) = [each for each in advice.warnings if "stripe" in each.text]
    assert warning.key == ("shop", "web") and warning.text == (
        "shop/web → api.stripe.com: of several addresses, and the next may be another one: "
        "rules name addresses, but for --format cilium"
    )
    assert "# api.stripe.com: 3 connections, first" in render_yaml(advice, dialect=dialect, explain=True)
    flows = flows_of(Observation(shop().context, shop().flows), Settings(selector="app=web"))
    assert check(Evaluator([each.to_dict() for each in advice.policies], {}), flows).denied == []


def test_names_for_cilium() -> None:
    """Cilium's rules are about names, for which it sees the answers; addresses without a name stay addresses."""
    egress = spec(shop(), "cilium")["egress"]
    (named,) = [each for each in egress if "toFQDNs" in each]
    names = [{"matchName": each} for each in NAMES]
    assert named == {"toFQDNs": names, "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]}
    ports = [each["toPorts"] for each in egress if "toEndpoints" in each]
    both = [{"port": "5353", "protocol": protocol} for protocol in ("TCP", "UDP")]
    seen = {"ports": both, "rules": {"dns": [{"matchPattern": "*"}]}}
    assert ports == [[seen, {"ports": [{"port": "9153", "protocol": "TCP"}]}]]
    assert [each["toCIDR"] for each in egress if "toCIDR" in each] == [["192.0.2.9/32"]]
    assert not [each for each in advised(shop(), "cilium").warnings if "stripe" in each.text]


def test_names_that_cilium_cannot_see() -> None:
    """Where no question of DNS was seen Cilium would learn no name: its rules are about addresses, with the warning."""
    egress = spec(shop(dns=False), "cilium")["egress"]
    cidrs = sorted(cidr for each in egress for cidr in each["toCIDR"])
    assert cidrs == ["192.0.2.9/32", "198.51.100.1/32", "203.0.113.4/32", "203.0.113.5/32"]
    assert [each for each in advised(shop(dns=False), "cilium").warnings if "stripe" in each.text]


def test_names_for_calico() -> None:
    """Calico Enterprise's rules are about names, those of open-source Calico, which has no word for names, never."""
    rules = spec(shop(), "calico-enterprise")["egress"]
    (named,) = [each["destination"] for each in rules if "domains" in each["destination"]]
    assert named == {"domains": NAMES, "ports": [443]}
    rest = [each["destination"] for each in rules if "nets" in each["destination"]]
    assert rest == [{"nets": ["192.0.2.9/32"], "ports": [443]}]
    assert "domains" not in str(spec(shop(), "calico"))


def test_calico() -> None:
    """--format calico: a rule for each peer and protocol, other namespaces and labels in Calico's language, ranges."""
    build = shop()
    expressions = [
        {"key": "tier", "operator": "In", "values": ["edge", "rim"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "app", "operator": "Exists"},
        {"key": "zone", "operator": "NotIn", "values": ["x"]},
    ]
    owner = build.owner("Deployment", "shop", "edge", {"matchExpressions": expressions})
    edge = build.pod("shop", "edge", "node-a", {"tier": "edge", "app": "e"}, owner)
    for port in range(30_000, 30_010):
        build.egress(edge, "203.0.113.7", port)
    body = spec(build, "calico")
    assert (body["selector"], body["types"]) == ("app == 'web'", ["Ingress", "Egress"])
    probe = {"source": {"selector": "app == 'probe'"}, "destination": {"ports": [8080]}}
    assert body["ingress"][0] == {"action": "Allow", "protocol": "TCP", **probe}
    dns = {"namespaceSelector": "projectcalico.org/name == 'kube-system'", "selector": "k8s-app == 'kube-dns'"}
    assert body["egress"][:2] == [
        {"action": "Allow", "protocol": "TCP", "destination": {**dns, "ports": [5353, 9153]}},
        {"action": "Allow", "protocol": "UDP", "destination": {**dns, "ports": [5353]}},
    ]
    advice = advise(Observation(build.context, build.flows), Settings(dialect="calico"))
    edges = next(each for each in yaml.safe_load_all(render_yaml(advice, dialect="calico")) if "tier" in str(each))
    assert edges["spec"]["selector"] == "has(app) && !has(old) && tier in {'edge', 'rim'} && zone not in {'x'}"
    assert edges["spec"]["egress"][0]["destination"] == {"nets": ["203.0.113.7/32"], "ports": ["30000:30009"]}


def test_choices() -> None:
    """Every dialect that --format offers is one, and no other."""
    assert tuple(DIALECTS) == CHOICES


ODD = ["db", "", "a b.example", "x.example\n- evil: true", "-.example", "é.example", "1.2.3.4", f"{'a' * 64}.example"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_left_out(name: str) -> None:
    """What a container asked for and is no name of a server stands in no policy."""
    assert not is_domain(name)
    build = shop()
    build.flows = [replace(each, names=(name,)) if each.names else each for each in build.flows]
    for dialect in DIALECTS:
        shown = render_yaml(advised(build, dialect), dialect=dialect, explain=True)
        assert "evil" not in shown and "FQDN" not in shown and "domains" not in shown


def test_names_in_a_recording(tmp_path: Path) -> None:
    """A recording keeps the names, and a flow without any is written as before there were names."""
    build, file = shop(), tmp_path / "flows.jsonl"
    write_flows(file, build.context, build.flows)
    assert file.read_text().count('"names"') == 4
    again = advise(read_flows(file), Settings(selector="app=web"))
    assert render_yaml(again) == render_yaml(advised(build))
