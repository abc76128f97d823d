"""Gadgets at rates of a busy node: what is shown, what is counted as lost, and what the agent takes for it."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import Figure, Goal, Plan
from tests.bench.machine import cpu_seconds, enter
from tests.bench.streams import PROCESSES, REACHED, streaming
from tests.conftest import compile_workload
from tests.pods import BareContainer

#: A network of its own, where nobody else has the port.
NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
_LAST_LINE = re.compile(r"^(\d+) events? .*; (?:nothing|(\d+)) lost", re.MULTILINE)
TOLD = Goal(100, at_least=True)


@dataclass(frozen=True)
class Burst:
    """What is made, how many rows each is, and by which of its words the rows of others are left out."""

    gadget: str
    kind: str
    rows: int
    condition: str
    rates: tuple[int, ...]


BURSTS = (
    Burst("dnssnoop", "questions", 4, "server.port==53", (10_000, 50_000, 100_000)),
    Burst("sigsnoop", "signals", 1, "signal==SIGUSR1", (20_000, 100_000)),
)


def _once(burst: Burst, rate: int, seconds: float, program: Path, container: BareContainer) -> dict[str, float]:
    """Percents shown and told, the agent's µs for each row, and how many were made in a second."""
    with streaming(burst.gadget, "--filter", burst.condition) as (agent, cli):
        before = cpu_seconds(agent.process.pid)
        made = subprocess.run(
            [*NETWORK, str(program), burst.kind, str(rate), str(seconds), str(PROCESSES), "-"],
            capture_output=True, text=True, check=True, preexec_fn=enter(container),
        ).stdout.split()  # fmt: skip
        time.sleep(1)  # the last events are on their way
        cli.send_signal(signal.SIGINT)
        said = cli.communicate(timeout=120)[1]
        spent = cpu_seconds(agent.process.pid) - before
    found = _LAST_LINE.search(said)
    assert found, said
    rows = int(made[0]) * burst.rows
    shown, lost = int(found[1]), int(found[2] or 0)
    told = 100 * (shown + lost) / rows
    return {"shown": 100 * shown / rows, "told": told, "cpu": spent / rows * 1e6, "made": int(made[0]) / float(made[1])}


def measure(plan: Plan) -> Iterator[Figure]:
    """Each gadget at each of its rates."""
    with tempfile.TemporaryDirectory() as name:
        program = compile_workload("paced", Path(name))
        container = BareContainer("shop", "cart-0")
        try:
            for burst in BURSTS:
                for rate in burst.rates:
                    found: dict[str, list[float]] = defaultdict(list)
                    for _ in range(plan.rounds):
                        for what, value in _once(burst, rate, 3 * plan.seconds, program, container).items():
                            found[what].append(value)
                    row = f"{burst.gadget}, {rate // 1000}k {burst.kind}/s"
                    really = sorted(found["made"])[len(found["made"]) // 2]
                    made = really if really < REACHED * rate else 0.0
                    yield Figure(row, "%", found["shown"], "shown", made=made)
                    yield Figure(row, "%", found["told"], "told", TOLD, made=made)
                    yield Figure(row, "µs", found["cpu"], "CPU of the agent per row", made=made)
        finally:
            container.delete()
