"""Traffic that is not just TCP between two pods."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.cilium import to_cilium
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy import Advice
from kubectl_gadget.advise.render import render_yaml, write_policies
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build, Place


def web() -> tuple[Build, Place]:
    build = Build()
    build.node("node-a")
    return build, build.pod("shop", "web", "node-a", {"app": "web"})


def advice_of(build: Build, **settings: Any) -> Advice:
    return advise(Observation(build.context, build.flows), Settings(**settings))


def rules(advice: Advice) -> list[tuple[list[str], list[str]]]:
    """Networks or names, and ports, of all rules."""
    return [
        ([peer.cidr or min(peer.names) for peer in rule.peers], [str(port) for port in rule.ports])
        for policy in advice.policies
        for each in policy.rules.values()
        for rule in each
    ]


@pytest.mark.parametrize(("ip_version", "address"), [(4, "203.0.113.9/32"), (6, "2001:db8::9/128")])
def test_dual_stack_service_without_selector(ip_version: int, address: str) -> None:
    """Of a Service's addresses outside, those of the IP version that was used are allowed, and not the others."""
    build, pod = web()
    build.service("shop", "old", "10.96.0.10", [{"port": 443}], [], [6443], addresses=["203.0.113.9", "2001:db8::9"])
    build.context.objects[-2]["spec"]["clusterIPs"].append("fd00:96::a")
    build.egress(pod, "10.96.0.10" if ip_version == 4 else "fd00:96::a", 443)
    assert rules(advice_of(build)) == [([address], ["6443/TCP"])]


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("address", ["169.254.20.10", "169.254.25.10"])
def test_dns_cache_at_any_link_local_address(address: str, told: bool) -> None:
    """The node's DNS cache is known at kubespray's address too, by UDP and TCP, whether the agent tells it or not."""
    build, pod = web()
    if told:
        build.node_addresses("node-a", "192.168.0.1", address)
    build.egress(pod, address, 53, "UDP")
    advice = advice_of(build)
    assert rules(advice) == [([f"{address}/32"], ["53/TCP", "53/UDP"])]
    assert "# node-local DNS\n" in render_yaml(advice)
    assert to_cilium(advice.policies[0])["spec"]["egress"][0]["toEntities"] == ["host", "remote-node"]


def test_cloud_resolver() -> None:
    """A cloud's own resolver is outside, and allowed by UDP and TCP; its metadata server is no DNS."""
    build, pod = web()
    build.egress(pod, "169.254.169.253", 53, "UDP")
    build.egress(pod, "169.254.169.254", 80)
    advice = advice_of(build)
    assert rules(advice) == [
        (["169.254.169.253/32"], ["53/TCP", "53/UDP"]),
        (["169.254.169.254/32"], ["80/TCP"]),
    ]
    assert "toCIDR" in to_cilium(advice.policies[0])["spec"]["egress"][0]


@pytest.mark.parametrize("told", [True, False])
def test_link_local_addresses_are_what_they_are(told: bool) -> None:
    """A link-local address is DNS only if DNS went there; Pod Identity is on each node, whether its agent tells or not."""
    build, pod = web()
    if told:
        build.node_addresses("node-a", "192.168.0.1", "169.254.170.23", "fd00:ec2::23")
    build.egress(pod, "169.254.170.23", 80)
    build.egress(pod, "fd00:ec2::23", 80)
    build.egress(pod, "169.254.20.10", 9253)
    build.ingress(pod, "169.254.7.127", 8080)
    for _ in range(2):
        shown = render_yaml(advice_of(build, cidr_group=24))
        assert shown.count("# EKS Pod Identity\n") == 2
        assert "169.254.20.10/32" in shown and "# Istio probes\n" in shown and "DNS" not in shown
        spec = to_cilium(advice_of(build).policies[0])["spec"]
        assert spec["ingress"][0]["fromCIDR"] == ["169.254.7.127/32"]
        assert {key for rule in spec["egress"] for key in rule} == {"toEntities", "toCIDR", "toPorts"}
        build.flows.reverse()


def test_any_api_server_may_be_next() -> None:
    """What was let in from one of the API servers outside the cluster is let in from all, and they are named."""
    build, pod = web()
    build.service(
        "default", "kubernetes", "10.96.0.1", [{"port": 443}], [], [443], addresses=["203.0.113.4", "203.0.113.5"]
    )
    build.ingress(pod, "203.0.113.5", 9443, count=7)
    shown = render_yaml(advice_of(build))
    assert "# API server 203.0.113.4\n" in shown
    assert "# API server 203.0.113.5\n" in shown
    assert [policy.types for policy in advice_of(build).policies] == [("Ingress",)]


def test_some_of_the_nodes() -> None:
    """Where the rules name some of the nodes alone I am told of how many, as the next pod of a host network is elsewhere."""
    build, pod = web()
    build.node("node-b")
    build.ingress(pod, "192.168.0.2", 9100)
    told = "the policy of shop/web names 1 of 2 nodes: from node-b at 9100/TCP"
    assert told in [each.text for each in advice_of(build).warnings]
    build.egress(pod, "192.168.0.1", 10250)
    build.egress(pod, "192.168.0.2", 10250)
    assert [each.text for each in advice_of(build).warnings] == [told]


def test_port_zero() -> None:
    """A flow to port 0 becomes no rule, as the API server refuses port 0, but a warning."""
    build, pod = web()
    build.egress(pod, "203.0.113.7", 0, "UDP")
    advice = advice_of(build)
    assert not advice.policies
    assert [each.text for each in advice.warnings] == [
        "not covered: shop/web → 203.0.113.7:0/UDP, a port that no policy can name"
    ]


def test_other_protocols_are_not_called_icmp() -> None:
    """GRE and the like are told of, and not as ICMP."""
    build, pod = web()
    build.egress(pod, "203.0.113.7", 0, "OTHER")
    assert [each.text for each in advice_of(build).warnings] == [
        "another protocol than TCP, UDP, SCTP and ICMP: shop/web → 203.0.113.7: "
        "NetworkPolicy cannot allow it, and plugins may drop it"
    ]


def test_cilium_takes_forty_ports() -> None:
    """A rule of more ports than Cilium takes in one entry has several, with all ports."""
    build, pod = web()
    cart = build.pod("shop", "cart", "node-a", {"app": "cart"})
    ports = range(1, 97 * 7, 7)
    for port in ports:
        build.talk(pod, cart, port)
    for policy in advice_of(build).policies:
        ((rule,),) = (value for key, value in to_cilium(policy)["spec"].items() if key in ("ingress", "egress"))
        assert [len(each["ports"]) for each in rule["toPorts"]] == [40, 40, 17]
        numbers = [port["port"] for each in rule["toPorts"] for port in each["ports"]]
        assert numbers == [str(port) for port in ports]


def test_bridge_of_many_nodes_in_any_order() -> None:
    """What host-network pods of two nodes do from the address of a bridge gives the same bytes in any order."""
    texts = set()
    for seed in range(7):
        build = Build()
        nodes = [build.node(f"node-{letter}") for letter in "abc"]
        monitors = [build.pod("infra", f"mon-{node}", node, {"app": "mon"}, host_network=True) for node in nodes[:2]]
        pods = [
            build.pod("shop", name, node, {"app": name})
            for name, node in zip(("c", "d", "e"), reversed(nodes), strict=True)
        ]
        for pod in pods:
            build.ingress(pod, "172.17.0.1", 9100)
            for monitor in monitors:
                build.egress(monitor, pod.address, 9100, local="172.17.0.1")
        random.Random(seed).shuffle(build.flows)
        advice = advice_of(build)
        texts.add(render_yaml(advice, explain=True) + str(advice.notes))
    assert len(texts) == 1
    assert "each of 2 nodes" in texts.pop()


def test_files_of_long_names(tmp_path: Path) -> None:
    """Policies whose long names begin alike are in a file each."""
    build, _ = web()
    for end in ("one", "two"):
        owner = build.owner("Deployment", "shop", "a" * 99 + f"-{end}", {"matchLabels": {"app": end}})
        build.egress(build.pod("shop", f"pod-{end}", "node-a", {"app": end}, owner), "203.0.113.7", 443)
    *paths, _ = write_policies(advice_of(build), tmp_path)
    assert len({path.read_text() for path in paths}) == len(set(paths)) == 2


def test_files_as_json(tmp_path: Path) -> None:
    """With -o json the files of --output-dir are JSON."""
    build, pod = web()
    build.egress(pod, "203.0.113.7", 443)
    path, _ = write_policies(advice_of(build), tmp_path, form="json")
    assert path.name == "shop.web.json"
    assert orjson.loads(path.read_text()) == advice_of(build).policies[0].to_dict()


def test_name_of_a_policy_is_the_same_whoever_asks() -> None:
    """A policy's name does not depend on -l: applied twice it is one policy."""
    build, _ = web()
    for name, kind in (("a", "StatefulSet"), ("b", "DaemonSet")):
        pod = build.pod("shop", f"x-{name}", "node-a", {"app": name}, build.owner(kind, "shop", "cart", {}))
        build.egress(pod, "203.0.113.7", 443)
    names = [policy.name for policy in advice_of(build).policies]
    assert names == ["cart-daemonset", "cart-statefulset"]
    assert [policy.name for policy in advice_of(build, selector="app=a").policies] == ["cart-statefulset"]


def test_sctp_at_port_53_is_no_dns() -> None:
    """SCTP to port 53 of a node is allowed as what it is."""
    build, pod = web()
    build.egress(pod, "192.168.0.1", 53, "SCTP")
    assert rules(advice_of(build)) == [(["192.168.0.1/32"], ["53/SCTP"])]


def test_who_answered_is_known() -> None:
    """A pod without labels behind a Service is told as denied only if one of the connections may have been its own."""
    build, pod = web()
    cart = build.pod("shop", "cart", "node-a", {"app": "cart"})
    bare = build.pod("shop", "bare", "node-a", {})
    address = build.service("shop", "both", "10.96.0.10", [{"port": 80}], [cart, bare], [8080])
    build.egress(pod, address, 80)
    told = [each.text.partition(",")[0] for each in advice_of(build).warnings if "bare" in each.text]
    assert "WILL BE DENIED: shop/web → shop/bare:8080/TCP" in told
    build.ingress(cart, pod.address, 8080)
    told = [each.text.partition(",")[0] for each in advice_of(build).warnings if "bare" in each.text]
    assert "not covered: shop/web → shop/bare:8080/TCP" in told and not [each for each in told if "DENIED" in each]


def test_host_port() -> None:
    """Who connects to a port of a node that leads to a pod there (hostPort) is allowed to reach the pod at its own port,
    which is what policies look at; another node's port of that number, and other ports, are the nodes'.
    """
    build, pod = web()
    build.node("node-b")
    ports = [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}]
    proxy = build.pod("shop", "proxy", "node-b", {"app": "proxy"}, ports=ports)
    build.egress(pod, "192.168.0.2", 8080)
    build.ingress(proxy, pod.address, 80)
    assert rules(advice_of(build)) == [(["web"], ["80/TCP"]), (["proxy"], ["80/TCP"])]
    build.egress(pod, "192.168.0.1", 8080)
    build.egress(pod, "192.168.0.2", 9100)
    assert rules(advice_of(build))[2:] == [(["192.168.0.1/32"], ["8080/TCP"]), (["192.168.0.2/32"], ["9100/TCP"])]
