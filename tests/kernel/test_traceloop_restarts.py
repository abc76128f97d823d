"""traceloop when its agent ends, changes, or is told to record others: what was recorded stays, what should go goes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, events, wait_until
from tests.kernel.recordings import calls, ended, states, traceloop
from tests.loaded import bpf_programs, is_there, pinned_programs, programs_of, rings

ROOT = Path(__file__).parents[2]


def test_agent_killed(record, make_pod, workload, bpffs) -> None:
    """When the agent is killed 20 times, recording goes on, the next one adopts it, and no call is lost."""
    agent = record()
    names = make_pod("web", "web-0").container("gone", "/bin/true")
    ended(names)
    names.delete()
    container = make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    programs = programs_of(agent.process.pid) | pinned_programs(bpffs)
    ours = set(programs)
    for _ in range(20):
        agent.stop(signal.SIGKILL)
        agent = record()
        ours |= programs_of(agent.process.pid)
    wait_until(lambda: len(ours & bpf_programs()) == len(programs), "the end of the killed ones' programs")
    os.kill(container.pid, signal.SIGKILL)
    ended(container)
    rows = events(traceloop(agent, "show", "cart-0", "-o", "json"))
    numbers = [row["args_raw"][0] for row in rows if row.get("syscall") == "close" and row["args_raw"][0] >= 1_000_000]
    assert not [row for row in rows if row["event"] == "gap"]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) > 1000
    found = states(agent)
    assert (found["gone"]["pod"], found["gone"]["state"]) == ("web-0", "exited 0")
    assert found["app"]["state"] == "SIGKILL (137)"


def shown(agent: Agent, pod: str) -> list[dict[str, Any]]:
    return [row for row in events(traceloop(agent, "show", pod, "-o", "json")) if row["event"] != "head"]


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    """Those of the calls that tell theirs."""
    return [row["args_raw"][0] for row in rows if row.get("syscall") == "close" and row["args_raw"][0] >= 1_000_000]


def test_ended_meanwhile(record, make_pod, workload, bpffs) -> None:
    """A container that ends while no agent is there has its end recorded, and its memory is free when I delete it."""
    agent = record("--traceloop", "shop")
    before = rings(agent.process.pid, bpffs)
    container = make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    agent.stop(signal.SIGKILL)
    os.kill(container.pid, signal.SIGKILL)
    ended(container)
    container.delete()
    agent = record("--traceloop", "shop")
    assert states(agent)["app"]["state"] == "SIGKILL (137)"
    (ring,) = rings(agent.process.pid, bpffs) - before
    traceloop(agent, "delete", "cart-0")
    wait_until(lambda: not is_there("map", ring), "the end of the ring")


#: What is changed in the layout of another version, by file.
CHANGES = {
    "#define STATE_BYTES 128": "#define STATE_BYTES 256",
    "#define SLOT_BYTES  128": "#define SLOT_BYTES  192",
    "\t__u64 rest[10];": "\t__u64 rest[26];",
    "\t__u64 rest;\n": "\t__u64 rest[9];\n",
    "\tchar data[DATA_BYTES];": "\tchar data[DATA_BYTES];\n\tchar rest[64];",
    "\t__s64 result;\n": "",
    "\t__u64 time; /*": "\t__s64 result;\n\t__u64 time; /*",
}


@pytest.fixture(scope="session")
def another_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the project whose recorder has another layout, built."""
    tree = tmp_path_factory.mktemp("another")
    for name in ("agent", "bpf", "gadget", "kubectl_gadget", "manifests", "hatch_build.py", "build_syscalls.py",
                 "pyproject.toml", "README.md"):  # fmt: skip
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tree / name)
    header = tree / "bpf/traceloop/ring.h"
    text = header.read_text()
    for old, new in CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    header.write_text(text)
    subprocess.run([sys.executable, "hatch_build.py"], cwd=tree, check=True)
    return tree


def test_other_layout(record, make_pod, bpffs, tmp_path: Path, workload, another_version: Path) -> None:
    """An agent whose recordings look different saves the old ones to disk before it begins anew, and shows them; those
    of a container that runs go on in a recording of their own.
    """
    under = ("env", f"PYTHONPATH={another_version}")
    agent = record("--traceloop", "shop", under=under)
    gone = make_pod("shop", "gone-0").container("app", "/workload", "exit3", files={"/workload": workload("ends")})
    ended(gone)
    gone.delete()
    running = make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: numbers(shown(agent, "cart-0"))[100:], "some calls")
    before = traceloop(agent, "show", "gone-0")
    theirs_in_memory = rings(agent.process.pid, bpffs)
    agent.stop()
    (theirs,) = (bpffs / "gadget/traceloop").iterdir()
    agent = record("--traceloop", "shop")
    assert not theirs.exists()
    assert calls(traceloop(agent, "show", "gone-0")) == calls(before)
    assert "exited with 3" in before
    listed = events(traceloop(agent, "list", "-o", "json"))
    assert sorted((each["pod"], each["state"]) for each in listed) == [
        ("cart-0", "ended"), ("cart-0", "running"), ("gone-0", "exited 3"),
    ]  # fmt: skip
    wait_until(lambda: numbers(shown(agent, "cart-0")), "calls in the new one")
    old = numbers(events(traceloop(agent, "show", "cart-0", "--previous", "-o", "json")))
    assert old == list(range(old[0], old[-1] + 1)) and len(old) > 100
    assert old[-1] < numbers(events(traceloop(agent, "show", "cart-0", "--instance", "1", "-o", "json")))[0]
    assert not any(is_there("map", ring) for ring in theirs_in_memory)
    assert len(list((tmp_path / "state/traceloop").iterdir())) == 2
    traceloop(agent, "delete", "gone-0")
    assert len(list((tmp_path / "state/traceloop").iterdir())) == 1
    assert running.running


def test_off(record, make_pod, bpffs, tmp_path: Path, start_agent, workload) -> None:
    """After a restart with --traceloop off nothing is recorded and no memory is held; an agent that a command starts for
    itself leaves the recordings alone.
    """
    agent = record("--traceloop", "shop")
    make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    own, held = programs_of(agent.process.pid), rings(agent.process.pid, bpffs)
    agent.stop()
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows", "--end-with-stdin").stop()
    recording = pinned_programs(bpffs)
    assert len(recording) == 6
    assert held and all(is_there("map", ring) for ring in held)
    off = start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows")
    assert not (bpffs / "gadget").exists()
    wait_until(lambda: not recording & bpf_programs(), "the end of the programs")
    wait_until(lambda: not any(is_there("map", ring) for ring in held), "the end of the ring")
    own |= programs_of(off.process.pid)
    off.stop()
    wait_until(lambda: not own & bpf_programs(), "the end of the agents' own")


def test_off_beside_another(record, start_agent, bpffs, make_pod) -> None:
    """An agent with --traceloop off does not end what an agent that runs is recording."""
    agent = record("--traceloop", "shop")
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows")
    ended(make_pod().container("app", "/bin/true"))
    assert states(agent)["app"]["state"] == "exited 0"


def test_fewer_namespaces(record, make_pod, workload, bpffs) -> None:
    """After a restart with fewer namespaces the others' containers are recorded no more; what has ended stays."""
    agent = record("--traceloop", "shop,web")
    before = rings(agent.process.pid, bpffs)
    ended(make_pod("web", "web-0").container("gone", "/bin/true"))
    for namespace, name in (("shop", "app"), ("web", "site")):
        container = make_pod(namespace, f"{name}-0").container(
            name, "/workload", "steady", files={"/workload": workload("ends")}
        )
    wait_until(lambda: len(states(agent)) == 3, "the recordings")
    held = rings(agent.process.pid, bpffs) - before
    assert len(held) == 3
    agent.stop(signal.SIGKILL)
    agent = record("--traceloop", " shop ")
    found = states(agent)
    assert set(found) == {"app", "gone"}
    wait_until(lambda: states(agent)["app"]["calls"] > found["app"]["calls"], "more calls")
    wait_until(lambda: sum(is_there("map", ring) for ring in held) == 2, "the end of the third ring")
    agent.stop(signal.SIGKILL)
    agent = record("--traceloop", "shop,web")
    assert set(states(agent)) == {"app", "gone", "site"}
    assert container.running
