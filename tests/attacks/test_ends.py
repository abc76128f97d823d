"""How a container ended: of its own first process, whatever it begins inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.conftest import usual_root
from tests.conftest import Agent, events, wait_until
from tests.kernel.recordings import traceloop
from tests.pods import Container

#: Nobody else's containers are in it.
NAMESPACE = "ends"


def host_pids(config: dict[str, Any]) -> None:
    """As hostPID: true."""
    spaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [each for each in spaces if each["type"] != "pid"]


def shared_pids(pause: Container) -> Callable[[dict[str, Any]], None]:
    """As shareProcessNamespace: true, where the pause container is process 1."""

    def change(config: dict[str, Any]) -> None:
        host_pids(config)
        config["linux"]["namespaces"].append({"type": "pid", "path": f"/proc/{pause.pid}/ns/pid"})

    return change


def start(pod, workload, *words: str, change: Callable[[dict[str, Any]], None], name: str = "app") -> Container:
    """A container whose first process is told when to end; it has begun what words name."""
    args = ("/attack", "first", *words)
    made = pod.container(name, *args, files={"/attack": workload("attack")}, change=change)
    wait_until(lambda: "ready" in made.log.read_text(), "the container's program")
    return made


def go(container: Container) -> None:
    """Tell the first process to end, and wait until it has."""
    pid = container.pid
    (container.bundle / "rootfs/go").touch()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), "the end of the first process")


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def states(agent: Agent) -> dict[str, str]:
    """What `traceloop list` says of each container."""
    listed = events(traceloop(agent, "list", "-n", NAMESPACE, "-o", "json"))
    return {each["container"]: each["state"] for each in listed if each["container"] != "pause"}


def state_of(agent: Agent) -> str:
    """What it says of the only one."""
    (state,) = states(agent).values()
    return state


#: How a first process ends, and what is told of it.
TOLD = {"exit3": "exited 3", "segfault": "SIGSEGV (139)"}


@pytest.mark.parametrize("parent", ["pidns", "pidns-cgroup", "pidns-outside"])
def test_first_of_a_namespace_inside(parent: str, record, make_pod, workload) -> None:
    """A process that is 1 in a namespace made inside a container ends, whoever is its parent: the container runs on, and
    later its end is told as that of its own first process.
    """
    agent, pod = record("--no-flows"), make_pod(NAMESPACE, "cart-0")
    own = ("segfault",) if parent == "pidns-outside" else ("segfault", parent)
    app = start(pod, workload, *own, change=usual_root)
    if parent == "pidns-outside":
        app.exec("/attack", parent)
    else:
        assert "done 1" in app.log.read_text()
    assert state_of(agent) == "running"
    go(app)
    assert wait_until(lambda: (state := state_of(agent)) != "running" and state, "its end") == "SIGSEGV (139)"


def test_beside_a_helper(record, make_pod, workload) -> None:
    """The status of a container is that of its first process, also where a helper that it began lives on and is killed
    later, and whatever namespace of processes it is in.
    """
    agent, pod = record("--no-flows"), make_pod(NAMESPACE, "cart-0")
    pause = pod.container("pause", "/bin/sleep", "3600", kind="sandbox")
    changes = {"own": lambda config: None, "shared": shared_pids(pause), "host": host_pids}
    told, apps = {}, {}
    for layout, change in changes.items():
        for way, state in TOLD.items():
            name = f"{layout}-{way}"
            apps[name] = start(pod, workload, way, "helper", change=change, name=name)
            told[name] = state
    assert set(states(agent).values()) == {"running"}
    for app in apps.values():
        go(app)
        app.delete()  # as a runtime does then, which kills the helper
    assert wait_until(lambda: "running" not in (found := states(agent)).values() and found, "their ends") == told
    agent.stop()
    assert states(record("--no-flows")) == told


@pytest.mark.parametrize("layout", ["shareProcessNamespace", "hostPID"])
def test_exec_beside_the_first(layout: str, record, make_pod, workload) -> None:
    """What is executed in a container, as by a probe, does not end it, whatever namespace of processes it is in."""
    agent, pod = record("--no-flows"), make_pod(NAMESPACE, "cart-0")
    change = host_pids
    if layout == "shareProcessNamespace":
        change = shared_pids(pod.container("pause", "/bin/sleep", "3600", kind="sandbox"))
    app = start(pod, workload, "exit3", change=change)
    app.exec("/bin/true")
    assert state_of(agent) == "running"
    go(app)
    app.delete()
    assert wait_until(lambda: (state := state_of(agent)) != "running" and state, "its end") == "exited 3"
