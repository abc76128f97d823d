from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.containers.identity import Container
from agent.containers.pods import PodInfo
from agent.flows.pods import MOST, NodePods
from agent.flows.sockets import Connection, connections_of, established_in
from agent.flows.table import oldest_of_the_greatest
from gadget import catalog

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def address(text: str) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + bytes(map(int, text.split(".")))


def test_connections_from_proc(tmp_path: Path) -> None:
    """Connections from before the recorder have the direction of who listens, and loopback is none of them."""
    net = tmp_path / "net"
    net.mkdir()
    lines = (
        "0: 00000000:1F90 00000000:0000 0A",  # listens on 8080
        "1: 0100F40A:1F90 0900F40A:D431 01",  # 10.244.0.1:8080, from 10.244.0.9
        "2: 0100F40A:C0DE 0700F40A:0050 01",  # to 10.244.0.7:80
        "3: 0100007F:C0DE 0100007F:0050 01",  # loopback
        "4: 0100F40A:C0DF 0800F40A:0050 06",  # over already
    )
    (net / "tcp").write_text(HEAD + "".join(f"   {line} 00000000:00000000\n" for line in lines))
    (net / "tcp6").write_text(
        HEAD
        + "   0: 000077FD000000000000000001000000:C001 000077FD000000000000000002000000:01BB 01 00000000:00000000\n"
        + "   1: 0000000000000000FFFF00000100F40A:1F90 0000000000000000FFFF00000A00F40A:D431 01 00000000:00000000\n"
    )
    six = [bytes.fromhex("fd770000" + "0" * 23 + str(last)) for last in (1, 2)]
    assert connections_of(tmp_path) == {
        Connection(address("10.244.0.1"), address("10.244.0.9"), 8080, True),
        Connection(address("10.244.0.1"), address("10.244.0.7"), 80, False),
        Connection(address("10.244.0.1"), address("10.244.0.10"), 8080, True),
        Connection(six[0], six[1], 443, False),
    }


def test_direction_of_older_connections(tmp_path: Path) -> None:
    """A server that listens no more is told by its client's port; where neither port tells, nothing is made up."""
    net = tmp_path / "net"
    net.mkdir()
    lines = (
        "0: 0100F40A:1388 0900F40A:D431 01",  # 5000, from a port of the kernel's choice
        "1: 0100F40A:D432 0900F40A:D433 01",  # both are
        "2: 0100F40A:02BC 0900F40A:0801 01",  # 700 and 2049: neither is
    )
    (net / "tcp").write_text(HEAD + "".join(f"   {line} 00000000:00000000\n" for line in lines))
    own, peer = address("10.244.0.1"), address("10.244.0.9")
    assert connections_of(tmp_path) == {
        Connection(own, peer, 5000, True),
        Connection(own, peer, 0xD433, False),
        Connection(own, peer, 0, None),
    }
    assert {(each.local_port, each.peer_port) for each in established_in(tmp_path)} == {
        (5000, 0xD431),
        (0xD432, 0xD433),
        (700, 2049),
    }


def test_fair_eviction() -> None:
    """When flows have to go, they are the oldest of the pod that has the most: a pod with few keeps all of them."""
    keys = np.zeros(110, catalog.record("flows", "flow_key"))
    flows = np.zeros(110, catalog.record("flows", "flow"))
    keys["cgroup_id"] = [1] * 100 + [2] * 10
    flows["last"] = np.arange(110)[::-1]  # the second's are the oldest of all
    gone = oldest_of_the_greatest(keys, flows, 60)
    assert len(gone) == 50
    assert set(keys["cgroup_id"][gone]) == {1}
    assert set(flows["last"][gone]) == set(range(10, 60))


def container(uid: str, id_: str = "a" * 64) -> Container:
    return Container(id=id_, runtime="containerd", pod_uid=uid, namespace="shop", pod="cart-0", name="app")


def test_pods_are_remembered(tmp_path: Path) -> None:
    """An agent that starts again knows pods that went before, with labels and addresses."""
    file = tmp_path / "state/pods.json"
    pods = NodePods(file)
    pods.came(7, container("u-1"))
    info = PodInfo(
        "u-1", {"app": "cart"}, "ReplicaSet/cart-6c9f", ("10.244.0.1",), {}, {}, ports=(("http", "TCP", 80),)
    )
    pods.learn(pods.pods["u-1"], info, ())
    pods.gone(7, still_there=False)
    pods.count_evicted(3)
    pods.save()
    again = NodePods(file)
    (pod,) = again.pods.values()
    assert (pod.labels, pod.owner, pod.addresses) == ({"app": "cart"}, "ReplicaSet/cart-6c9f", ["10.244.0.1"])
    assert [tuple(port) for port in pod.ports] == [("http", "TCP", 80)]
    assert pod.last >= pod.first > 0
    assert (again.owners, again.evicted, again.began) == ({7: "u-1"}, 3, pods.began)


def test_pods_are_bounded(tmp_path: Path) -> None:
    """However many pods come and go, only so many are remembered, and those that run are."""
    pods = NodePods(tmp_path / "pods.json")
    pods.came(1, container("lives"))
    for number in range(2, MOST + 100):
        pods.came(number, container(f"u-{number}"))
        pods.gone(number, still_there=False)
    assert len(pods.pods) <= MOST + 1
    assert "lives" in pods.pods and f"u-{MOST + 99}" in pods.pods


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"began":1,"evicted":0,"pods":[{"uid":1}]}'])
def test_broken_file(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A file of pods that cannot be read costs their names, not the agent."""
    file = tmp_path / "pods.json"
    file.write_bytes(content)
    assert NodePods(file).pods == {}
    assert "names of pods that are gone are lost" in caplog.text


def info(*ips: str, **more: str) -> PodInfo:
    return PodInfo("u-1", {"app": "cart"}, "ReplicaSet/cart-6c9f", ips, {}, {}, **more)


def test_address_changes(tmp_path: Path) -> None:
    """A pod that gets another address had the first one until then: what is known of the past stays true."""
    pods = NodePods(tmp_path / "pods.json")
    pod = pods.came(7, container("u-1"))
    pods.learn(pod, info("10.244.0.1", "fd77::1"), ())
    assert (pod.since, pod.former) == (pod.first, [])
    pods.learn(pod, info("10.244.0.2", "fd77::1"), ())
    assert pod.addresses == ["10.244.0.2", "fd77::1"]
    assert pod.former == [("10.244.0.1", pod.first, pod.since), ("fd77::1", pod.first, pod.since)]
    assert pod.since > pod.first
    pods.learn(pod, info(), ())
    assert pod.addresses == ["10.244.0.2", "fd77::1"]
    pods.save()
    (again,) = NodePods(tmp_path / "pods.json").pods.values()
    assert [tuple(item) for item in again.former] == pod.former


def test_guessed_addresses(tmp_path: Path) -> None:
    """Addresses that a pod's network has count until the API server tells which of them are the pod's."""
    pods = NodePods(tmp_path / "pods.json")
    pod = pods.came(7, container("u-1"))
    pods.learn(pod, info(), ("10.244.0.1", "172.17.0.1"))
    assert pod.addresses == ["10.244.0.1", "172.17.0.1"]
    pods.learn(pod, info("10.244.0.1"), ("10.244.0.1", "172.17.0.1"))
    pods.learn(pod, None, ("10.244.0.1", "172.17.0.1"))
    assert (pod.addresses, pod.former) == (["10.244.0.1"], [])


def test_reboot(tmp_path: Path) -> None:
    """After the machine's end its pods have ended, and who comes with a cgroup or an address of theirs is another."""
    file = tmp_path / "pods.json"
    pods = NodePods(file, boot="first")
    for cgroup, uid, ip in ((7, "u-1", "10.244.0.1"), (8, "u-2", "10.244.0.2")):
        pods.learn(pods.came(cgroup, container(uid)), info(ip), ())
    pods.save()
    assert all(not pod.last for pod in NodePods(file, boot="first").pods.values())
    again = NodePods(file, boot="second")
    assert again.owners == {}
    assert all(pod.last >= pod.first for pod in again.pods.values())
    pod = again.came(7, container("u-2"))
    again.learn(pod, info("10.244.0.1"), ())
    assert again.owners == {7: "u-2"}
    assert (pod.last, pod.addresses) == (0, ["10.244.0.1"])
    ((address, first, last),) = pod.former
    assert (address, first) == ("10.244.0.2", pod.first)
    assert first <= last <= pod.since


def test_cgroups_are_forgotten(tmp_path: Path) -> None:
    """A pod whose containers restart for years keeps no more of them than those that run or have flows."""
    pods = NodePods(tmp_path / "pods.json")
    for cgroup in range(1, 10_001):
        pods.came(cgroup, container("u-1"))
        pods.gone(cgroup, still_there=cgroup < 10_000)
    pods.came(10_001, container("u-1"))
    pods.forget_cgroups(lambda cgroup: cgroup in (10_001, 77))
    pods.save()
    (pod,) = NodePods(tmp_path / "pods.json").pods.values()
    assert pod.cgroups == [77, 10_001]
    assert pods.owners == {77: "u-1", 10_001: "u-1"}
    assert (tmp_path / "pods.json").stat().st_size < 1000
