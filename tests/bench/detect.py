"""What an agent takes to judge what happens: at 100,000 opens a second, and when next to nothing happens."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import Figure, Goal, Plan
from tests.bench.agents import wait_until_idle
from tests.bench.machine import cpu_seconds, enter, peak_mib, thread_seconds
from tests.bench.streams import workload
from tests.conftest import CLI, Agent, events, wait_until
from tests.unit.rules.test_facts import DATA, STOCK

RATE, SECONDS, IDLE_SECONDS = 100_000, 10.0, 10.0
#: Reads of a file that a rule of each row is about, in the midst of the opens, and these rules.
READS, READ_SECONDS = 101, 0.05
READ = f"i=0; while [ $i -lt {READS} ]; do cat /etc/shadow >/dev/null; sleep {READ_SECONDS}; i=$((i+1)); done"
ABOUT = ("Password hashes are read", "Read sensitive file untrusted")
_MISSED = "Of it rules alone are what the section before has; the rest is to know process and file."
_NOT_THERE = "Falco's rule files are not there: GADGET_FALCO_DATA"
_LAST_LINE = re.compile(r" of ([\d,]+) events")
_LOST = re.compile(r"([\d,]+) events? (?:was|were)? ?lost|([\d,]+) lost")


@dataclass(frozen=True)
class _Found:
    """Of one run."""

    cpu_us: float
    rules_us: float
    judged: float
    told: float
    alerts: float
    idle: float
    memory: float


def measure(plan: Plan) -> Iterator[Figure]:
    """CPU of the agent for an open that is made, in µs; what is judged and told, in percent; idle CPU and memory."""
    rows: dict[str, list[str]] = {"default rules": ["default"]}
    for row, names in (("stable rules", STOCK[:1]), ("all 93 rules", STOCK[:4])):
        rows[row] = [str(DATA / f"{name}.yaml") for name in names]
    most = {"stable rules": Goal(0.6, missed=_MISSED), "all 93 rules": Goal(1.5)}
    for row, rules in rows.items():
        if row != "default rules" and not DATA.is_dir():
            yield Figure(row, "µs", [], why=_NOT_THERE)
            continue
        found = [_once(rules) for _ in range(plan.rounds)]
        shown = (
            ("CPU per open", "µs", "cpu_us", None),
            ("of that for rules", "µs", "rules_us", most.get(row)),
            ("judged", "%", "judged", None),
            ("judged or told", "%", "told", Goal(100, at_least=True)),
            (f"of {READS} alerts", "%", "alerts", Goal(100, at_least=True)),
            ("idle CPU", "% of a core", "idle", Goal(1) if row == "stable rules" else None),
            ("memory", "MiB", "memory", Goal(120)),
        )
        for what, unit, name, goal in shown:
            yield Figure(f"{row}, {what}", unit, [getattr(each, name) for each in found], goal=goal)


def _once(rules: Sequence[str]) -> _Found:
    with workload("opens") as work, _detecting(rules) as (agent, client, out):
        pid = agent.process.pid
        wait_until_idle(pid)
        before = cpu_seconds(pid)
        time.sleep(IDLE_SECONDS)
        idle = 100 * (cpu_seconds(pid) - before) / IDLE_SECONDS
        first = work.make(RATE, 1)
        before, of_threads = cpu_seconds(pid), thread_seconds(pid)
        with subprocess.Popen(["sh", "-c", READ], preexec_fn=enter(work.container)) as reads:
            made = work.make(RATE, SECONDS)
            assert reads.wait(60) == 0
        wait_until_idle(pid)
        took = cpu_seconds(pid) - before
        # the thread that judges takes more than any other
        judging = max(now - of_threads.get(thread, 0.0) for thread, now in thread_seconds(pid).items())
        memory = peak_mib([pid])
        client.send_signal(signal.SIGINT)
        last = client.communicate(timeout=60)[1]
        alerts = [each for each in events(out.read_text()) if each["rule"] in ABOUT]
    said = _LAST_LINE.search(last)
    assert said, last
    lost = sum(int((a or b).replace(",", "")) for a, b in _LOST.findall(last))
    whole = first.count + made.count
    judged = int(said[1].replace(",", ""))
    fired = sum(each["output_fields"].get("evt.count", 1) for each in alerts if "shadow" in each["output"])
    return _Found(
        cpu_us=took / made.count * 1e6,
        rules_us=judging / made.count * 1e6,
        judged=100 * judged / whole,
        told=100 * (judged + lost) / whole,
        alerts=100 * fired / READS,
        idle=idle,
        memory=memory,
    )


@contextmanager
def _detecting(rules: Sequence[str]) -> Iterator[tuple[Agent, subprocess.Popen[str], Path]]:
    """An agent that asks a client's rules; the client writes its alerts to a file."""
    with tempfile.TemporaryDirectory() as folder:
        agent, out = Agent(Path(folder)), Path(folder) / "said"
        given = [part for path in rules for part in ("--rules", path)]
        client = subprocess.Popen(
            [str(CLI), "detect", "--agent", agent.address, "-A", "-o", "json", *given],
            stdout=out.open("w"), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            wait_until(lambda: "rules of a client began" in agent.log.read_text(), "the client's rules", 60)
            yield agent, client, out
        finally:
            client.kill()
            agent.stop()
