"""traceloop when its agent ends, changes, or is told to record others: what was recorded stays, what should go goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.conftest import bpf_programs, events, pinned_programs, wait_until
from tests.kernel.recordings import calls, ended, maps, states, traceloop


def test_agent_killed(record, make_pod, workload, bpffs) -> None:
    """When the agent is killed 20 times, recording goes on, the next one adopts it, and no call is lost."""
    agent = record()
    names = make_pod("web", "web-0").container("gone", "/bin/true")
    ended(names)
    names.delete()
    container = make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    programs = bpf_programs()
    for _ in range(20):
        agent.stop(signal.SIGKILL)
        agent = record()
    assert len(bpf_programs()) == len(programs)
    os.kill(container.pid, signal.SIGKILL)
    ended(container)
    rows = events(traceloop(agent, "show", "cart-0", "-o", "json"))
    numbers = [row["args_raw"][0] for row in rows if row.get("syscall") == "close" and row["args_raw"][0] >= 1_000_000]
    assert not [row for row in rows if row["event"] == "gap"]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) > 1000
    found = states(agent)
    assert (found["gone"]["pod"], found["gone"]["state"]) == ("web-0", "exited 0")
    assert found["app"]["state"] == "SIGKILL (exit 137)"


def test_ended_meanwhile(record, make_pod, workload) -> None:
    """A container that ends while no agent is there has its end recorded, and its memory is free when I delete it."""
    before = maps()
    agent = record("--traceloop", "shop")
    container = make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    agent.stop(signal.SIGKILL)
    os.kill(container.pid, signal.SIGKILL)
    ended(container)
    container.delete()
    agent = record("--traceloop", "shop")
    assert states(agent)["app"]["state"] == "SIGKILL (exit 137)"
    assert maps() == before + 1
    traceloop(agent, "delete", "cart-0")
    wait_until(lambda: maps() == before, "the end of the ring")


def test_other_layout(record, make_pod, bpffs, tmp_path: Path, workload) -> None:
    """An agent whose recordings look different saves the old ones to disk before it begins anew, and shows them."""
    agent = record("--traceloop", "shop")
    container = make_pod().container("app", "/workload", "exit3", files={"/workload": workload("ends")})
    ended(container)
    before = traceloop(agent, "show", "cart-0")
    agent.stop()
    root = bpffs / "gadget/traceloop"
    (layout,) = root.iterdir()
    layout.rename(root / "another")
    agent = record("--traceloop", "shop")
    assert not (root / "another").exists()
    assert calls(traceloop(agent, "show", "cart-0")) == calls(before)
    assert len(list((tmp_path / "state/traceloop").iterdir())) == 1
    traceloop(agent, "delete", "cart-0")
    assert not list((tmp_path / "state/traceloop").iterdir())


def test_off(record, make_pod, bpffs, tmp_path: Path, start_agent, workload) -> None:
    """After a restart with --traceloop off nothing is recorded and no memory is held; an agent that a command starts for
    itself leaves the recordings alone.
    """
    before, rings = bpf_programs(), maps()
    agent = record("--traceloop", "shop")
    make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    agent.stop()
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows", "--end-with-stdin").stop()
    recording = pinned_programs(bpffs)
    assert len(recording) == 4
    assert maps() == rings + 1
    off = start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows")
    assert not list((bpffs / "gadget").iterdir())
    wait_until(lambda: not recording & bpf_programs(), "the end of the programs")
    wait_until(lambda: maps() == rings, "the end of the ring")
    off.stop()
    assert bpf_programs() <= before


def test_off_beside_another(record, start_agent, bpffs, make_pod) -> None:
    """An agent with --traceloop off does not end what an agent that runs is recording."""
    agent = record("--traceloop", "shop")
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows")
    ended(make_pod().container("app", "/bin/true"))
    assert states(agent)["app"]["state"] == "exited 0"


def test_fewer_namespaces(record, make_pod, workload) -> None:
    """After a restart with fewer namespaces the others' containers are recorded no more; what has ended stays."""
    agent, rings = record("--traceloop", "shop,web"), maps()
    ended(make_pod("web", "web-0").container("gone", "/bin/true"))
    for namespace, name in (("shop", "app"), ("web", "site")):
        container = make_pod(namespace, f"{name}-0").container(
            name, "/workload", "steady", files={"/workload": workload("ends")}
        )
    wait_until(lambda: len(states(agent)) == 3, "the recordings")
    agent.stop(signal.SIGKILL)
    agent = record("--traceloop", " shop ")
    found = states(agent)
    assert set(found) == {"app", "gone"}
    wait_until(lambda: states(agent)["app"]["calls"] > found["app"]["calls"], "more calls")
    wait_until(lambda: maps() == rings + 2, "the end of the third ring")
    agent.stop(signal.SIGKILL)
    agent = record("--traceloop", "shop,web")
    assert set(states(agent)) == {"app", "gone", "site"}
    assert container.running
