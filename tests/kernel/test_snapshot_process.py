"""`snapshot process`, beside what /proc says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, events, run_cli
from tests.live import inside, known
from tests.pods import BareContainer

#: A zombie, a stopped child, one that sleeps in a pid namespace of its own, and three threads.
FAMILY = r"""
import ctypes, os, signal, threading, time
def child(work):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return pid
zombie = child(lambda: open("/proc/self/comm", "w").write("\x1b[2Jz"))
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
stopped = child(lambda: os.kill(os.getpid(), signal.SIGSTOP))
os.waitpid(stopped, os.WUNTRACED)
for _ in range(3):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
ctypes.CDLL(None).unshare(0x20000000)  # CLONE_NEWPID
inner = child(lambda: os.execv("/bin/sleep", ["sleep", "600"]))
print(zombie, stopped, inner, flush=True)
time.sleep(600)
"""
WORDS = {"S": "sleeping", "R": "running", "T": "stopped", "Z": "zombie", "D": "uninterruptible"}


def of_proc(pid: int, task: Path) -> dict[str, Any]:
    """What /proc says of a thread of a process."""
    status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
    try:
        exe = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        exe = ""
    return {
        "pid": pid,
        "tid": int(task.name),
        "ppid": int(status["PPid"]),
        "nspid": int(status["NSpid"].split()[-1]),
        "uid": int(status["Uid"].split()[0]),
        "gid": int(status["Gid"].split()[0]),
        "comm": (task / "comm").read_text().removesuffix("\n"),
        "state": WORDS[status["State"][0]],
        "threads": int(status["Threads"]),
        "exe": exe,
    }


@pytest.fixture
def family(bare: Callable[..., BareContainer]) -> Iterator[tuple[BareContainer, list[int]]]:
    """A container, and its processes; they are ended in the end."""
    cart = bare("shop", "cart-0")
    with inside(cart, sys.executable, "-c", FAMILY, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        children = list(map(int, parent.stdout.readline().split()))
        yield cart, [parent.pid, *children]
        for pid in children:
            os.kill(pid, 9)


def shown(agent: Agent, *args: str) -> list[dict[str, Any]]:
    done = run_cli("snapshot", "process", "-n", "shop", "-o", "json", "--agent", agent.address, *args)
    assert done.stderr.endswith("; nothing lost.\n"), done.stderr
    return events(done.stdout)


def test_processes_are_those_of_proc(agent, family, bare) -> None:
    """Each process of a container is there once, as /proc has it: zombies and stopped ones, in other pid namespaces."""
    cart, pids = family
    web = bare("web", "web-0")
    known(agent, cart, web)
    with inside(web, "/bin/sleep", "600"):
        rows = shown(agent)
    expected = [of_proc(pid, Path(f"/proc/{pid}/task/{pid}")) for pid in sorted(pids)]
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected
    assert {(row["namespace"], row["pod"], row["container"]) for row in rows} == {("shop", "cart-0", "app")}
    assert {row["state"] for row in rows} == {"sleeping", "zombie", "stopped"}
    assert [row["age"] for row in rows] == sorted((row["age"] for row in rows), reverse=True)


def test_threads(agent, family) -> None:
    """With --threads there is a row for each thread."""
    cart, pids = family
    known(agent, cart)
    tasks = {(pid, int(task)) for pid in pids for task in os.listdir(f"/proc/{pid}/task")}
    assert len(tasks) == 4 + 3
    assert {(row["pid"], row["tid"]) for row in shown(agent, "--threads")} == tasks


def test_a_tree(agent, family) -> None:
    """People see children indented below their parent, whose names cannot move the cursor; programs read their ids."""
    cart, (parent, *children) = family
    known(agent, cart)
    done = run_cli("snapshot", "process", "-n", "shop", "--fields", "pid,comm", "--agent", agent.address)
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()[1:]]
    assert [int(pid) for pid, _ in lines] == [parent, *sorted(children)]
    assert lines[0][1].startswith("python")
    widths = [line.index(comm.strip()) for line, (_, comm) in zip(done.stdout.splitlines()[1:], lines, strict=True)]
    assert widths == [widths[0], *[widths[0] + 2] * 3]
    assert lines[1][1].strip() == r"\x1b[2Jz"
    sorted_otherwise = run_cli(
        "snapshot", "process", "-n", "shop", "--fields", "comm", "--sort=-pid", "--agent", agent.address
    )
    assert not [line for line in sorted_otherwise.stdout.splitlines() if line.startswith(" ")]


def test_from_a_pod(start_agent, family) -> None:
    """An agent in a pod, whose pid and network namespaces are its own, sees as much: as deploy makes it by default."""
    cart, pids = family
    agent = start_agent(under=("unshare", "--pid", "--net", "--mount-proc", "--fork", "--kill-child"))
    known(agent, cart)
    assert [row["pid"] for row in shown(agent)] == sorted(pids)
