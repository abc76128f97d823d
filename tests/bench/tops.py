"""What a gadget that counts costs its agent for each table, however much happens."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import Figure, Plan
from tests.bench.machine import cpu_seconds, enter
from tests.bench.streams import PROCESSES, REACHED, streaming
from tests.conftest import compile_workload
from tests.pods import BareContainer

GADGET = "syscalltop"
#: Opens in a second; 1 is next to nothing.
RATES = (1, 1_000, 10_000, 100_000)
INTERVAL_SECONDS = 0.5


def _once(rate: int, seconds: float, program: Path, container: BareContainer) -> tuple[float, float]:
    """The agent's milliseconds for each table, and how many opens were made in a second."""
    with streaming(GADGET, "--interval", f"{INTERVAL_SECONDS}s") as (agent, cli):
        before = cpu_seconds(agent.process.pid)
        made = subprocess.run(
            [str(program), "opens", str(rate), str(seconds), str(PROCESSES), str(program.parent / "file")],
            capture_output=True, text=True, check=True, preexec_fn=enter(container),
        ).stdout.split()  # fmt: skip
        spent = cpu_seconds(agent.process.pid) - before
        cli.send_signal(signal.SIGINT)
        said = cli.communicate(timeout=120)[1]
    assert "nothing lost" in said, said
    return spent / (float(made[1]) / INTERVAL_SECONDS) * 1e3, int(made[0]) / float(made[1])


def measure(plan: Plan) -> Iterator[Figure]:
    """At each rate."""
    with tempfile.TemporaryDirectory() as name:
        program = compile_workload("paced", Path(name))
        container = BareContainer("shop", "cart-0")
        try:
            for rate in RATES:
                found = [_once(rate, 10 * plan.seconds, program, container) for _ in range(plan.rounds)]
                really = sorted(each[1] for each in found)[len(found) // 2]
                made = really if really < REACHED * rate else 0.0
                spent = [each[0] for each in found]
                yield Figure(f"{GADGET}, {rate:,} opens/s", "ms", spent, "CPU of the agent per table", made=made)
        finally:
            container.delete()
