"""Addresses that no one is known to have: a gone pod's, a gone Service's, or one outside."""

from __future__ import annotations

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.networks import Networks, parse
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.policy import Advice
from tests.unit.advise.build import Build, Place


def advice_of(build: Build) -> Advice:
    return advise(Observation(build.context, build.flows))


def blocks(advice: Advice) -> list[str]:
    """The networks that policies name."""
    return [
        peer.cidr
        for policy in advice.policies
        for rules in policy.rules.values()
        for rule in rules
        for peer in rule.peers
        if peer.cidr
    ]


def without_cidrs(*pods: str, nodes: tuple[str, str] = ("", "")) -> tuple[Build, Place]:
    """A cluster whose nodes do not say which networks their pods have; and the first of its pods."""
    build = Build()
    for name, address in zip(("node-a", "node-b"), nodes, strict=True):
        build.node(name, address=address)
    for item in build.context.objects:
        item["spec"] = {}
    web, *_ = [
        build.pod("shop", f"pod-{number}", "node-a", {"app": f"app-{number}"}, address=address)
        for number, address in enumerate(pods)
    ]
    build.service("default", "kubernetes", "10.96.0.1", [{"port": 443}], [], [6443], addresses=["192.168.0.1"])
    return build, web


def test_pod_network_that_nodes_do_not_tell() -> None:
    """Without podCIDRs, as with Cilium's cluster-pool, the address of a gone pod never becomes an ipBlock."""
    build, web = without_cidrs("10.42.7.5", "10.42.8.5")
    build.egress(web, "10.42.99.5", 9100)
    advice = advice_of(build)
    assert blocks(advice) == []
    assert [each.text for each in advice.warnings] == [
        "not covered: shop/pod-0 → 10.42.99.5:9100/TCP, a pod that is gone and was never known to an agent"
    ]
    networks = Networks([], ["10.128.0.2", "10.131.9.1"], ["172.30.0.1"], ["10.0.0.1"])
    assert networks.is_pod(parse("10.130.1.1"))  # OpenShift's 10.128.0.0/14, and no pod known of a part of it
    assert not networks.is_pod(parse("10.132.0.1"))


def test_node_that_is_gone() -> None:
    """The pods and the tunnel of a node that is gone are known as such, also if agents found tunnels on their nodes."""
    build = Build()
    build.node("node-a")
    build.node_addresses("node-a", "192.168.0.1", "10.244.1.0", "10.244.1.1")
    build.node_addresses("gone", "192.168.0.9", "10.244.9.0")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.service("shop", "web", "10.96.0.10", [{"port": 80, "nodePort": 30080}], [web], [8080])
    build.egress(web, "10.244.9.7", 9100)
    build.ingress(web, "10.244.9.0", 8080)
    assert blocks(advice_of(build)) == ["10.244.1.0/32", "10.244.9.0/32"]  # and no address by which no pod sees node-a


def test_pods_and_nodes_in_one_network() -> None:
    """Where pods have addresses of the nodes' network, as AWS gives them, a rule for one of these is doubted."""
    build, web = without_cidrs("10.0.1.105", nodes=("10.0.1.20", "10.0.1.21"))
    build.egress(web, "10.0.1.177", 9100)
    build.egress(web, "10.0.2.7", 5432)
    advice = advice_of(build)
    assert blocks(advice) == ["10.0.1.177/32", "10.0.2.7/32"]
    assert [each.text for each in advice.warnings] == [
        "shop/pod-0 → 10.0.1.177:9100/TCP: in a network that pods share with nodes: "
        "if a pod had it that is gone, its rule lets in whoever gets it next"
    ]


def test_gone_service_among_few() -> None:
    """The address of a gone Service is known as such where few Services are left, far from it in their network."""
    build, web = without_cidrs("10.42.7.5")
    build.service("shop", "cart", "10.96.0.10", [{"port": 80}], [], [8080], addresses=["203.0.113.7"])
    build.egress(web, "10.96.45.3", 80)
    build.egress(web, "10.97.45.3", 80)
    advice = advice_of(build)
    assert blocks(advice) == ["10.97.45.3/32"]
    assert [each.text for each in advice.warnings] == [
        "WILL BE DENIED: shop/pod-0 → 10.96.45.3:80/TCP, of a Service that is gone"
    ]


def test_services_that_i_may_not_list() -> None:
    """If I may not list Services, I am told of each private address that may be one's, where a rule does nothing."""
    build, web = without_cidrs("10.42.7.5")
    build.context.objects = [item for item in build.context.objects if item["kind"] != "Service"]
    build.egress(web, "10.96.0.10", 80)
    build.egress(web, "203.0.113.7", 443)
    advice = advice_of(build)
    assert [each.text for each in advice.warnings] == [
        "shop/pod-0 → 10.96.0.10:80/TCP: not all Services are known: if it is the address of one, its rule does nothing"
    ]
