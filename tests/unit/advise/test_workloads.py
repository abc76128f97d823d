from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.flows import RememberedPod
from kubectl_gadget.advise.labels import common_selector, owner_selector, requirements
from kubectl_gadget.advise.networks import Networks, normalize, parse
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.talks import natural
from kubectl_gadget.advise.workloads import read_pod
from tests.unit.advise.build import BEGAN, SECOND, UNTIL, Build


def observe(build: Build) -> Observation:
    return Observation(build.context, build.flows)


@pytest.mark.parametrize(
    ("selector", "cleaned"),
    [
        (None, None),
        ({}, None),
        ({"matchLabels": {"b": "2", "a": "1"}}, {"matchLabels": {"a": "1", "b": "2"}}),
        ({"app": "rc"}, {"matchLabels": {"app": "rc"}}),
        ({"matchLabels": {"pod-template-hash": "x"}}, None),
        ({"matchLabels": {"app": "a", "topology.kubernetes.io/zone": "z"}}, {"matchLabels": {"app": "a"}}),
        ({"matchLabels": {"app": "a", "app.kubernetes.io/version": "1"}}, {"matchLabels": {"app": "a", "app.kubernetes.io/version": "1"}}),
        (
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "job-name", "operator": "Exists"}]},
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]},
        ),
    ],
)  # fmt: skip
def test_owner_selector(selector: dict[str, Any] | None, cleaned: dict[str, Any] | None) -> None:
    """A policy selects as the owner does, without labels that the next revision has not."""
    assert owner_selector(selector) == cleaned


def test_common_selector() -> None:
    """Pods without a selecting owner are found by the lasting labels that all of them have."""
    labels = [
        {"app": "a", "run": "1", "job-name": "x", "helm.sh/chart": "a-1"},
        {"app": "a", "run": "2", "job-name": "x"},
    ]
    assert common_selector(labels) == {"matchLabels": {"app": "a"}}
    assert common_selector([{"app": "a"}, {"app": "b"}]) is None
    assert common_selector([]) is None


def test_expressions_mean_what_they_mean_in_kubernetes() -> None:
    """NotIn holds for a pod without the label too, as in the API."""
    selector = {
        "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}, {"key": "b", "operator": "Exists"}]
    }
    assert all(each.matches({"b": "2"}) for each in requirements(selector))
    assert not all(each.matches({"a": "1", "b": "2"}) for each in requirements(selector))


@pytest.mark.parametrize(
    ("pod", "owner", "labels", "objects", "workload"),
    [
        ("web-5d5-abcde", "ReplicaSet/web-5d5", {"pod-template-hash": "5d5"}, [], "Deployment web"),
        ("web-5d5-abcde", "ReplicaSet/web-5d5", {}, [("Deployment", "web", "")], "Deployment web"),
        (
            "web-5d5-abcde",
            "ReplicaSet/web-5d5",
            {"rollouts-pod-template-hash": "5d5"},
            [("Deployment", "web", "")],
            "Rollout web",
        ),
        ("web-abcde", "ReplicaSet/web", {}, [], "ReplicaSet web"),
        ("web-5d5-abcde", "ReplicaSet/web-5d5", {}, [("ReplicaSet", "web-5d5", "Rollout/web")], "Rollout web"),
        ("db-0", "StatefulSet/db", {}, [], "StatefulSet db"),
        ("run-283-x", "Job/run-283", {}, [("CronJob", "run", "")], "CronJob run"),
        ("run-283-x", "Job/run-283", {}, [], "Job run-283"),
        ("run-283-x", "Job/run-283", {}, [("Job", "run-283", "CronJob/run")], "CronJob run"),
        ("proxy-node-a", "Node/node-a", {}, [], "Pod proxy"),
        ("alone", "", {}, [], "Pod alone"),
    ],
)
def test_owners(
    pod: str, owner: str, labels: dict[str, str], objects: list[tuple[str, str, str]], workload: str
) -> None:
    """A pod belongs to what is at the top of its owners, also when owners in between are gone."""
    build = Build()
    build.node("node-a")
    for kind, name, above in objects:
        build.owner(kind, "shop", name, {}, above)
    build.pod("shop", pod, "node-a", {"app": "x", **labels}, owner)
    (found,) = observe(build).cluster.workloads.all
    assert f"{found.kind} {found.name}" == workload


def test_deployment_of_other_pods() -> None:
    """A Deployment whose selector does not find a pod is not its owner, whatever the pod is called."""
    build = Build()
    build.node("node-a")
    build.owner("Deployment", "shop", "web", {"matchLabels": {"app": "old"}})
    build.pod("shop", "web-5d5-abcde", "node-a", {"app": "web", "pod-template-hash": "5d5"}, "ReplicaSet/web-5d5")
    (found,) = observe(build).cluster.workloads.all
    assert (found.kind, found.selector) == ("ReplicaSet", {"matchLabels": {"app": "web"}})


def test_names_of_policies() -> None:
    """Two workloads of one name have policies of different names, whichever comes first."""
    build = Build()
    build.node("node-a")
    one = build.pod("shop", "x-0", "node-a", {"app": "a"}, build.owner("StatefulSet", "shop", "cart", {}))
    two = build.pod("shop", "x-1", "node-a", {"app": "b"}, build.owner("DaemonSet", "shop", "cart", {}))
    build.talk(one, two, 80)
    assert [policy.name for policy in advise(observe(build)).policies] == ["cart-daemonset", "cart-statefulset"]


def test_finished_pods_hold_no_address() -> None:
    """A finished pod's address is not its own any more."""
    build = Build()
    build.node("node-a")
    build.pod("shop", "job", "node-a", {}, started="2023-11-14T22:00:00Z", ended="2023-11-14T22:10:00Z")
    assert read_pod(build.context.objects[-1], UNTIL).last == BEGAN - 200 * SECOND


def test_swapped_addresses() -> None:
    """After a reboot pods are the same and have each other's addresses: traffic before it is of who had them then."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    one, two = ("10.244.1.10", "10.244.1.11")
    for name, before, after in (("left", one, two), ("right", two, one)):
        place = build.pod("shop", name, "node-a", {"app": name}, address=after)
        for address, first, last in ((before, 0, 900), (after, 1000, 3600)):
            times = BEGAN + first * SECOND, BEGAN + last * SECOND
            labels = {"app": name}
            build.context.pods.append(
                RememberedPod("shop", name, place.uid, labels, "", (address,), *times, "node-a")
            )  # fmt: skip
    build.ingress(web, one, 80, first=60, last=120)
    build.ingress(web, one, 90, first=2000, last=2100)
    found = {(each.source_pod, each.port) for each in observe(build).connections()}
    assert found == {("left", 80), ("right", 90)}


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.244.1.7", "pod"),
        ("10.244.77.7", "pod"),  # of a node that is gone
        ("10.245.0.1", "outside"),
        ("10.96.0.77", "service"),
        ("192.168.0.9", "outside"),
        ("172.16.3.200", "pod"),  # near a pod that is in no node's podCIDRs
        ("172.16.4.1", "outside"),
        ("10.9.9.99", "outside"),  # near a pod, but nodes are there too
        ("fd00:10:244:99::1", "pod"),
        ("fd00:10:245::1", "outside"),
    ],
)
def test_networks(address: str, kind: str) -> None:
    """An address that may be a pod's or a Service's is never taken for one outside."""
    networks = Networks(
        ["10.244.1.0/24", "10.244.2.0/24", "fd00:10:244:1::/64"],
        ["10.244.1.2", "172.16.3.4", "10.9.9.4"],
        ["10.96.0.1", "10.96.0.200"],
        ["192.168.0.1", "10.9.9.1"],
    )
    parsed = parse(address)
    found = "pod" if networks.is_pod(parsed) else "service" if networks.is_service(parsed) else "outside"
    assert found == kind


def test_pod_network_beside_nodes() -> None:
    """The pod network is not taken for larger than up to where nodes are."""
    networks = Networks(["10.0.1.0/24"], [], [], ["10.0.200.5"])
    assert networks.is_pod(parse("10.0.2.1"))
    assert not networks.is_pod(parse("10.0.199.1"))


@given(st.ip_addresses(v=4), st.sampled_from([8, 16, 24, 28]))
def test_groups_hold_no_pods(address: Any, bits: int) -> None:
    """--cidr-group never lets in the pod network, nodes or Services."""
    networks = Networks(["10.244.1.0/24"], ["10.244.1.2"], ["10.96.0.1"], ["192.168.0.1"])
    group = networks.group(address, bits)
    if not group.endswith("/32"):
        import ipaddress

        assert not any(
            ipaddress.ip_network(group).overlaps(ipaddress.ip_network(other))
            for other in ("10.244.0.0/16", "10.96.0.1/32", "192.168.0.1/32")
        )


def test_spelling_of_addresses() -> None:
    """One address is one address, however it is spelt."""
    assert normalize("::ffff:10.0.0.1") == "10.0.0.1"
    assert normalize("FD00:0::1%eth0") == "fd00::1"
    with pytest.raises(ValueError, match="does not appear"):
        normalize("web")


def test_replicas_that_talk_are_two() -> None:
    """Check is told of two pods where replicas of one workload talk, as a pod may always reach itself."""
    build = Build()
    build.node("node-a")
    owner = build.owner("StatefulSet", "shop", "db", {"matchLabels": {"app": "db"}})
    one, two = (build.pod("shop", f"db-{number}", "node-a", {"app": "db"}, owner) for number in (0, 1))
    build.talk(one, two, 5432)
    (connection,) = observe(build).connections()
    assert (connection.source_pod, connection.target_pod) == ("db-0", "db-1")
    build.flows = [flow for flow in build.flows if flow.direction == "ingress"]
    (connection,) = observe(build).connections()
    assert connection.source_pod != connection.target_pod


def test_natural_order() -> None:
    """web-2 comes before web-10."""
    assert natural(["web-10", "web-2", "a"]) == ["a", "web-2", "web-10"]
