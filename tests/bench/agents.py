"""What an agent that does nothing but record takes: memory and CPU, idle and with many containers."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import Figure, Goal, Plan
from tests.bench.machine import cpu_seconds, peak_mib, resident_mib
from tests.conftest import Agent, wait_until
from tests.pods import BareContainer

CONTAINERS = 250
RINGS = 240  # the default limit of traceloop has room for 248
IDLE_SECONDS = 5.0
MEMORY = Goal(80)


@contextmanager
def recording_agent(*arguments: str) -> Iterator[tuple[Agent, Path]]:
    """An agent with recorders, and the folder of its pins; all of it is gone in the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bpffs = folder / "bpf"
        bpffs.mkdir()
        agent = Agent(folder, "--bpffs", str(bpffs), "--state", str(folder / "state"), *arguments)
        try:
            yield agent, bpffs
        finally:
            agent.stop()
            subprocess.run(["umount", str(bpffs)], check=True)


def _maps() -> dict[int, int]:
    """The bytes of every map of the machine, by id."""
    shown = subprocess.run(["bpftool", "-j", "map"], capture_output=True, check=True).stdout
    return {item["id"]: item.get("bytes_memlock", 0) for item in json.loads(shown)}


def _mib_beside(before: dict[int, int]) -> float:
    return sum(size for number, size in _maps().items() if number not in before) / (1 << 20)


def wait_until_idle(pid: int) -> None:
    """Wait until a process does next to nothing."""

    def idle() -> bool:
        before = cpu_seconds(pid)
        time.sleep(2)
        return cpu_seconds(pid) - before < 0.02

    wait_until(idle, "idleness", 60)


def _idle(pid: int) -> float:
    wait_until_idle(pid)
    before = cpu_seconds(pid)
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(pid) - before) / IDLE_SECONDS


def _once(add: Callable[[str, str, float], None]) -> None:
    maps = _maps()
    with recording_agent() as (agent, bpffs):

        def look(when: str) -> None:
            add(f"CPU, {when}", "% of a core", _idle(agent.process.pid))
            add(f"memory, {when}", "MiB", resident_mib(agent.process.pid))
            add(f"memory at most, {when}", "MiB", peak_mib([agent.process.pid]))
            add(f"its maps in the kernel, {when}", "MiB", _mib_beside(maps))

        look("no containers")
        containers = [BareContainer("shop", f"cart-{number}") for number in range(CONTAINERS)]
        try:
            wait_until(lambda: len(list(bpffs.glob("gadget/traceloop/*/ring-*"))) >= RINGS, "rings", 60)
            look(f"{CONTAINERS} containers")
        finally:
            for container in containers:
                container.delete()


def measure(plan: Plan) -> Iterator[Figure]:
    """Memory and CPU."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(plan.rounds):
        _once(lambda row, unit, value: found[row, unit].append(value))
    for (row, unit), values in found.items():
        yield Figure(row, unit, values, goal=MEMORY if row.startswith("memory") else None)
