"""What an agent that does nothing but record takes: memory and CPU, idle and with many containers."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.apiserver import ApiServer, api_server, full_pod, write_kubeconfig
from tests.bench import Figure, Goal, Plan
from tests.bench.machine import cpu_seconds, peak_mib, resident_mib
from tests.conftest import Agent, wait_until
from tests.pods import BareContainer

CONTAINERS = 250
RINGS = 232  # the default limit of traceloop has room for 248, of which 16 stand ready for the next
IDLE_SECONDS = 5.0
MEMORY, IDLE_MEMORY = Goal(80), Goal(60)


@contextmanager
def recording_agent(*arguments: str, under: Sequence[str] = ()) -> Iterator[tuple[Agent, Path]]:
    """An agent with recorders, and the folder of its pins; all of it is gone in the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bpffs = folder / "bpf"
        bpffs.mkdir()
        agent = Agent(folder, "--bpffs", str(bpffs), "--state", str(folder / "state"), *arguments, under=under)
        try:
            yield agent, bpffs
        finally:
            agent.stop()
            if bpffs.is_mount():  # one that pins nothing makes none
                subprocess.run(["umount", str(bpffs)], check=True)


def _maps() -> dict[int, int]:
    """The bytes of every map of the machine, by id."""
    shown = subprocess.run(["bpftool", "-j", "map"], capture_output=True, check=True).stdout
    return {item["id"]: item.get("bytes_memlock", 0) for item in json.loads(shown)}


def _mib_beside(before: dict[int, int]) -> float:
    return sum(size for number, size in _maps().items() if number not in before) / (1 << 20)


def wait_until_idle(pid: int) -> None:
    """Wait until a process does next to nothing: an agent with rules takes 1.3 % of a slow processor."""

    def idle() -> bool:
        before = cpu_seconds(pid)
        time.sleep(2)
        return cpu_seconds(pid) - before < 0.06

    wait_until(idle, "idleness", 60)


def _idle(pid: int) -> float:
    wait_until_idle(pid)
    before = cpu_seconds(pid)
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(pid) - before) / IDLE_SECONDS


@contextmanager
def _cluster() -> Iterator[tuple[ApiServer, Path]]:
    """An API server that has no pods yet, by TLS and with a token, whose watches last; and a kubeconfig for it."""
    with tempfile.TemporaryDirectory() as name, api_server(tls=Path(name)) as server:
        server.pods, server.tokens, server.watch_seconds = [], {"t" * 900}, 600.0
        yield server, write_kubeconfig(server, Path(name))


def _once(add: Callable[[str, str, float], None]) -> None:
    maps = _maps()
    with (
        _cluster() as (server, kubeconfig),
        recording_agent("--kubernetes", under=("env", f"KUBECONFIG={kubeconfig}")) as (agent, bpffs),
    ):

        def look(when: str) -> None:
            add(f"CPU, {when}", "% of a core", _idle(agent.process.pid))
            add(f"memory, {when}", "MiB", resident_mib(agent.process.pid))
            add(f"memory at most, {when}", "MiB", peak_mib([agent.process.pid]))
            add(f"its maps in the kernel, {when}", "MiB", _mib_beside(maps))

        look("no containers")
        containers = [BareContainer("shop", f"cart-{number}") for number in range(CONTAINERS)]
        try:
            pods = [full_pod(f"cart-{at}", each.pod_uid) for at, each in enumerate(containers)]
            server.events["100"] = [{"type": "ADDED", "object": item} for item in pods]
            server.finish.set()
            wait_until(lambda: "100" not in server.events, "the agent's next watch")
            server.finish.clear()
            wait_until(lambda: len(list(bpffs.glob("gadget/traceloop/*/ring-*"))) >= RINGS, "rings", 60)
            look(f"{CONTAINERS} containers")
        finally:
            for container in containers:
                container.delete()


def _goal(row: str) -> Goal | None:
    if not row.startswith("memory"):
        return None
    return IDLE_MEMORY if row == "memory, no containers" else MEMORY


def measure(plan: Plan) -> Iterator[Figure]:
    """Memory and CPU."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(plan.rounds):
        _once(lambda row, unit, value: found[row, unit].append(value))
    for (row, unit), values in found.items():
        yield Figure(row, unit, values, goal=_goal(row))
