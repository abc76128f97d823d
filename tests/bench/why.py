"""How soon it is told why containers ended: those of the corpus in tests/why, which one agent has recorded."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import Figure, Goal, Plan
from tests.conftest import CLI
from tests.why.case import Kind
from tests.why.cases import CASES
from tests.why.run import NAMESPACE, lab

#: Of so many ends at once 3 s are enough; of fewer, as much less.
MANY, MANY_SECONDS = 500, 3.0
QUICK = 20


def measure(plan: Plan) -> Iterator[Figure]:
    """Seconds from the command to its end."""
    cases = [case for case in CASES if case.exits is not None][: QUICK if plan.quick else None]
    bad = sum(case.kind is Kind.BAD for case in cases)
    goal = Goal(MANY_SECONDS * bad / MANY, missed="Half of it is the agent's, which has the same two cores.")
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder), cases) as where:
        where.run_all(cases)
        address = where.agent.address
        one = ("why", cases[0].name, "-n", NAMESPACE)
        yield Figure("why POD", "s", _times(plan, address, *one), goal=Goal(1))
        yield Figure(f"why -A, {bad} containers that failed", "s", _times(plan, address, "why", "-A"), goal=goal)
        yield Figure(
            f"traceloop list, {len(cases)} that ended", "s", _times(plan, address, "traceloop", "list", "-A"), goal=goal
        )


def _times(plan: Plan, address: str, *words: str) -> list[float]:
    found = []
    for _ in range(plan.rounds):
        began = time.monotonic()
        subprocess.run([CLI, *words, "--agent", address], env={**os.environ, "KUBECONFIG": "/dev/null"}, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        found.append(time.monotonic() - began)
    return found
