"""Pods of a real containerd, made through its CRI as a kubelet makes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from agent.containers.tracker import Tracker
from gadget.rules.containers import container_field
from tests.conftest import events, run_cli, wait_until
from tests.containerd import Containerd


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with Containerd(tmp_path_factory.mktemp("containerd")) as running:
        yield running


def test_pods_of_containerd(containerd: Containerd, agent, start_cli) -> None:
    """Of a pod with an init container, two containers and three restarts I see every first exec, and never the pause container."""
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "-n", "shop")
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream")
    pod, other = containerd.pod("shop", "cart-0"), containerd.pod("bank", "bank-0")
    ids = [pod.run("migrate", "/bin/true", "init")]
    ids += [pod.run("cart", "/bin/false", f"attempt-{attempt}", attempt=attempt) for attempt in range(4)]
    ids += [pod.run("proxy", "/bin/sh", "-c", "/bin/true first; exec /bin/sleep 60")]
    other.run("app", "/bin/true", "not mine")
    seen: list[dict] = []
    wait_until(
        lambda: seen.extend(events(cli.process.stdout.readline())) or seen[-1]["args"][0] == "/bin/sleep",
        "the last exec",
    )
    cli.finish()
    own = [event for event in seen if event["args"][0].startswith("/bin/")]
    assert Counter((event["container"], *event["args"][1:2]) for event in own) == Counter(
        {("migrate", "init"): 1, **{("cart", f"attempt-{n}"): 1 for n in range(4)},
         ("proxy", "-c"): 1, ("proxy", "first"): 1, ("proxy", "60"): 1}
    )  # fmt: skip
    assert {(event["namespace"], event["pod"]) for event in seen} == {("shop", "cart-0")}
    assert {event["containerId"] for event in own} == set(ids)


def test_containers_of_containerd(containerd: Containerd, agent) -> None:
    """`containers` lists what containerd runs, by the names of its CRI, without the pause containers."""
    pod = containerd.pod("shop", "web-0")
    running = pod.run("nginx", "/bin/sleep", "3600")
    rows = events(run_cli("containers", "--agent", agent.address, "-p", "web-0", "-o", "json").stdout)
    assert [(row["container"], row["containerId"], row["runtime"], row["state"]) for row in rows] == [
        ("nginx", running, "containerd", "running")
    ]


def test_facts_of_containerd(containerd: Containerd) -> None:
    """Rules know image, mounts and privileges of a pod's containers as its author asked for them, and since when they run."""
    pod = containerd.pod("shop", "rules-0")
    mounts = [
        {"host_path": "/etc", "container_path": "/host/etc", "readonly": True},
        {"host_path": "/proc", "container_path": "/host/proc"},
    ]
    ids = [
        pod.run("plain", "/bin/sleep", "3600", mounts=mounts),
        pod.run("open", "/bin/sleep", "3600", capabilities=["ALL"]),
        pod.run("privileged", "/bin/sleep", "3600", privileged=True),
    ]
    with closing(Tracker()) as tracker:
        cgroups = {each.container.id: each for each in tracker.containers() if each.container}
        found = [tracker.facts(cgroups[each]) for each in ids]
        assert [
            [container_field(each, f"container.{name}") for name in ("id", "name", "type", "privileged")]
            for each in found
        ] == [
            [ids[0][:12], "plain", "containerd", False],
            [ids[1][:12], "open", "containerd", False],
            [ids[2][:12], "privileged", "containerd", True],
        ]
        for each in found:
            assert container_field(each, "container.image.repository") == "localhost/busybox"
            assert container_field(each, "container.image.tag") == "test"
            assert container_field(each, "k8s.pod.name") == "rules-0"
            assert 0 < container_field(each, "container.duration", time_ns=time.time_ns()) < 60e9
        assert container_field(found[0], "container.mount[/etc]") == "/etc:/host/etc::false:private"
        assert container_field(found[0], "container.mount.dest[/proc*]") == "/host/proc"
        assert container_field(found[0], "container.mount.dest[/]") is None
        assert container_field(found[1], "container.mount.dest[/etc]") is None
