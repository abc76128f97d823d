"""A container that makes odd cgroups inside its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gadget._generated import gadget_pb2 as pb
from tests.attacks.beside import CALM_SECONDS, beside, calls_of, is_well, pods_of, recordings
from tests.attacks.conftest import WAYS
from tests.conftest import Agent, events, wait_until
from tests.faults.production import Watched, lost_in
from tests.kernel.flows import ask, plain
from tests.pods import UNIFIED, BareContainer, link, remove_below, remove_cgroups

#: Levels and bytes of a name: longer than PATH_MAX, deeper than anybody nests, and both.
DEEP = ((18, 250), (500, 8), (300, 200))
OPENS = 7


def watch(folder: Path, agent: Agent, *args: str) -> Watched:
    """A stream of opens as JSON, once it has begun."""
    before = agent.log.read_text().count("opensnoop: started")
    cli = Watched(folder, "opensnoop", "-o", "json", "--prefix", "/attack/", "--agent", agent.address, *args)
    wait_until(lambda: agent.log.read_text().count("opensnoop: started") > before, "the stream's start")
    return cli


def recorded(agent: Agent, namespace: str) -> list[pb.TraceloopItem]:
    """The recordings of a namespace, once an agent that has just begun has found them."""
    return wait_until(lambda: recordings(agent, namespace), "the recordings", CALM_SECONDS)


@pytest.mark.parametrize("way", WAYS)
def test_deep_cgroups(way: str, record, attacker, tmp_path: Path) -> None:
    """Cgroups whose paths are too long for a system call, made while an agent runs, trouble neither it nor those that are
    started later; what runs in the innermost is shown as its container's, and recorded.
    """
    evil, agent = attacker(way), record()
    cli = watch(tmp_path, agent)
    once = [("evil-0", f"/attack/{at:09}") for at in range(OPENS)]
    for number, (levels, length) in enumerate(DEEP, 1):
        assert evil.attack("deep", levels, length, OPENS) == levels
        wait_until(lambda number=number: len(events(cli.out)) >= OPENS * number, "what it opened")
        assert [(row["pod"], row["path"]) for row in events(cli.out)] == once * number
    assert recorded(agent, "evil")
    calls = calls_of(agent, "evil")
    assert calls >= OPENS * len(DEEP)
    assert pods_of(agent, "evil") == ["evil-0"] and is_well(agent)
    assert "Traceback" not in agent.log.read_text()
    cli.finish()
    assert agent.stop() == 0
    agent = record()  # which finds them there
    assert [item.calls for item in recorded(agent, "evil")] == [calls]
    assert pods_of(agent, "evil") == ["evil-0"] and is_well(agent)
    evil.remove_cgroups()
    assert pods_of(agent, "evil") == ["evil-0"] and is_well(agent)
    assert "Traceback" not in agent.log.read_text()


def test_deep_cgroups_beside_others(record, attacker, workload, tmp_path: Path, figure) -> None:
    """While cgroups are made that are deeper than a path may be long, nobody else notices."""
    agent, evil = record(), attacker()
    with beside(agent, tmp_path, workload("produce")) as seen:
        for levels, length in DEEP:
            assert evil.attack("deep", levels, length, OPENS) == levels
            evil.remove_cgroups()
    figure("beside", seen)


def odd_names(victim: BareContainer, uid: str) -> list[bytes]:
    """Names and paths of cgroups that want to be taken for something else. The kernel refuses those with a newline."""
    other = victim.id.encode()
    pod = victim.pod_path.rpartition("/")[2].encode()
    return [
        b"tab\tand\rreturn",
        b"not\xff\xfeutf-8",
        b"\x1b[31mred",
        b"$(reboot)",
        b"..." + b"x" * 250,
        other,
        b"cri-containerd-" + other + b".scope",
        b"crio-" + other + b".scope",
        b"docker/" + other,
        b"libpod-" + other + b".scope/container",
        b"kubepods/" + pod + b"/" + other,
        b"kubepods/besteffort/" + pod + b"/" + other,
        b"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-"
        + pod.replace(b"-", b"_")
        + b".slice/cri-containerd-"
        + other
        + b".scope",
        b"kubelet/kubepods/burstable/" + pod + b"/" + other,
        b"kubepods/pod" + uid.encode() + b"/" + other,
        b"a/b/c/" + pod + b"/" + other + b"/" + other,
        b"conmon-" + other,
        b"pod-of-mine:" + b"kube-system:cri-containerd:" + other,
        pod + b":cri-containerd:" + other,
    ]


@pytest.mark.parametrize(("way", "when"), zip(WAYS, ("while an agent runs", "before it starts"), strict=True))
def test_posing(way: str, when: str, record, attacker, bare, make_pod, workload, tmp_path: Path) -> None:
    """Whatever a container names its cgroups, and be it as a runtime names those of another pod that runs, it is shown,
    recorded and counted as what it is.
    """
    evil, victim = attacker(way), bare("kube-system", "etcd-0")
    web = make_pod("web", "web-0").container("nginx", "/bin/sleep", "600")
    link(evil.container, web)
    names = odd_names(victim, evil.container.pod.uid)
    if when == "before it starts":
        assert evil.attack("in", 1, "", *names) == len(names)
    agent = record()
    cli, posed = watch(tmp_path, agent), watch(tmp_path, agent, "-n", "kube-system,web")
    mine = watch(tmp_path, agent, "-n", "evil")
    assert recorded(agent, "kube-system") and recorded(agent, "evil")
    victim_calls = calls_of(agent, "kube-system")
    assert evil.attack("in", 3, "10.77.0.2", *names) == len(names)
    wanted = [("evil", "evil-0", evil.container.id, f"/attack/{at:09}") for at in range(3 * len(names))]
    for stream in (cli, mine):
        rows = wait_until(
            lambda stream=stream: len(found := events(stream.out)) >= len(wanted) and found, "what it opened"
        )
        assert [(row["namespace"], row["pod"], row["containerId"], row["path"]) for row in rows] == wanted
        stream.finish()
        assert lost_in(stream.err) == 0
    posed.finish()
    assert posed.out == ""
    assert sorted(pods_of(agent, "evil") + pods_of(agent, "kube-system")) == ["etcd-0", "evil-0"]
    (own,) = recordings(agent, "evil")
    assert own.calls > len(wanted) and own.container.pod == "evil-0"
    assert calls_of(agent, "kube-system") == victim_calls
    head, *_ = replies = ask(agent)
    pods = {pod.uid: (pod.namespace, pod.name) for pod in head.pods}
    flows = [flow for reply in replies for flow in reply.flows if plain(flow.peer) == "10.77.0.2" and flow.port == 9000]
    assert {pods[flow.uid] for flow in flows} == {("evil", "evil-0")}
    assert sum(flow.count for flow in flows) == len(names)
    agent.stop()
    agent = record()  # and so do those that find them there
    assert sorted(pods_of(agent, "evil") + pods_of(agent, "kube-system")) == ["etcd-0", "evil-0"]
    assert len(recorded(agent, "evil")) == len(recorded(agent, "kube-system")) == 1


USER = 1000
#: Where any user may make cgroups: systemd delegates each user's own, also without a login (user@.service).
DELEGATED = UNIFIED / "user.slice/user-1000.slice/user@1000.service"


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A user's own part of the cgroup tree, which belongs to the user."""
    (DELEGATED / "app.slice").mkdir(parents=True, exist_ok=True)  # of a run that was killed
    for folder in (DELEGATED, DELEGATED / "app.slice"):
        os.chown(folder, USER, USER)
    yield DELEGATED / "app.slice"
    wait_until(lambda: "populated 0" in (DELEGATED / "cgroup.events").read_text(), "the end of its processes")
    remove_below(DELEGATED)
    remove_cgroups(str(DELEGATED.relative_to(UNIFIED)))


@pytest.mark.parametrize(
    "name",
    ["kubepods/besteffort/{pod}/{id}", "{id}", "cri-containerd-{id}.scope", "docker/{id}", "{pod}/{id}/init.scope"],
)
def test_user_poses(name: str, record, bare, delegated: Path, workload, tmp_path: Path) -> None:
    """A user of the machine who is nobody special names a cgroup like one of a pod that runs: what he does there is not
    shown, recorded or counted as that pod's.
    """
    victim = bare("kube-system", "etcd-0")
    agent = record()
    cli = watch(tmp_path, agent, "--host")
    assert recorded(agent, "kube-system")
    calls = calls_of(agent, "kube-system")
    cgroup = delegated / name.format(pod=victim.pod_path.rpartition("/")[2], id=victim.id)
    subprocess.run(["mkdir", "-p", cgroup], user=USER, group=USER, check=True)
    paths = [f"/attack/{number:09}" for number in range(OPENS)]
    with (cgroup / "cgroup.procs").open("w") as procs:
        enter = lambda: os.write(procs.fileno(), b"0")  # noqa: E731
        subprocess.run(["cat", *paths], preexec_fn=enter, capture_output=True, check=False)
    victim.run("/bin/true")
    wait_until(lambda: calls_of(agent, "kube-system") > calls, "the calls of the pod itself")
    cli.finish()
    assert [(row["pod"], row["path"]) for row in events(cli.out)] == [(None, path) for path in paths]
    assert pods_of(agent, "kube-system") == ["etcd-0"]
    assert [item.container.pod for item in recordings(agent, "kube-system")] == ["etcd-0"]
