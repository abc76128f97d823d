"""What an agent takes to judge what happens: at 100,000 opens a second, and when next to nothing happens."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import Figure, Goal, Plan
from tests.bench.agents import wait_until_idle
from tests.bench.machine import cpu_seconds, peak_mib
from tests.bench.streams import workload
from tests.conftest import CLI, Agent
from tests.unit.rules.test_facts import DATA, STOCK

RATE, SECONDS, IDLE_SECONDS = 100_000, 10.0, 10.0
_NOT_THERE = "Falco's rule files are not there: GADGET_FALCO_DATA"
_LAST_LINE = re.compile(r" of ([\d,]+) events")
_LOST = re.compile(r"([\d,]+) events? (?:was|were)? ?lost|([\d,]+) lost")


def measure(plan: Plan) -> Iterator[Figure]:
    """CPU of the agent for an open that is made, in µs; what is judged and told, in percent; idle CPU and memory."""
    rows: dict[str, list[str]] = {"default rules": ["default"]}
    for row, names in (("stable rules", STOCK[:1]), ("all 93 rules", STOCK[:4])):
        rows[row] = [str(DATA / f"{name}.yaml") for name in names]
    for row, rules in rows.items():
        if row != "default rules" and not DATA.is_dir():
            yield Figure(row, "µs", [], why=_NOT_THERE)
            continue
        found = [_once(rules) for _ in range(plan.rounds)]
        units = {"CPU per open": "µs", "judged": "%", "judged or told": "%", "idle CPU": "% of a core", "memory": "MiB"}
        goals = {"judged or told": Goal(100, at_least=True), "idle CPU": Goal(1), "memory": Goal(120)}
        for at, (what, unit) in enumerate(units.items()):
            yield Figure(f"{row}, {what}", unit, [each[at] for each in found], goal=goals.get(what))


def _once(rules: Sequence[str]) -> tuple[float, ...]:
    with workload("opens") as work, _detecting(rules) as (agent, client):
        pid = agent.process.pid
        wait_until_idle(pid)
        before = cpu_seconds(pid)
        time.sleep(IDLE_SECONDS)
        idle = 100 * (cpu_seconds(pid) - before) / IDLE_SECONDS
        work.make(RATE, 1)
        before = cpu_seconds(pid)
        made = work.make(RATE, SECONDS)
        wait_until_idle(pid)
        took = cpu_seconds(pid) - before
        memory = peak_mib([pid])
        client.send_signal(signal.SIGINT)
        last = client.communicate(timeout=60)[1]
    said = _LAST_LINE.search(last)
    assert said, last
    lost = sum(int((a or b).replace(",", "")) for a, b in _LOST.findall(last))
    judged = 100 * int(said[1].replace(",", "")) / (made.count * (1 + 1 / SECONDS))
    told = judged + 100 * lost / (made.count * (1 + 1 / SECONDS))
    return took / made.count * 1e6, judged, told, idle, memory


@contextmanager
def _detecting(rules: Sequence[str]) -> Iterator[tuple[Agent, subprocess.Popen[str]]]:
    with tempfile.TemporaryDirectory() as folder:
        agent = Agent(Path(folder))
        given = [part for path in rules for part in ("--rules", path)]
        log = Path(folder) / "said"
        client = subprocess.Popen(
            [str(CLI), "detect", "--agent", agent.address, "-A", *given],
            stdout=log.open("w"), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            time.sleep(4)
            yield agent, client
        finally:
            client.kill()
            agent.stop()
