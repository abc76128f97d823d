"""A cluster's worth of agents at once: 200 fake ones in one process, each a stream, and one command line."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.bench import Plan, Result
from tests.conftest import CLI

AGENTS, BATCHES, EVENTS = 200, 20, 10
PAUSE_SECONDS = 0.25


def serve(folder: Path) -> None:
    """Be the agents: once all are asked for events, each sends its batches at its own time, then all end."""
    from tests.fakes import FakeAgent

    agents = [FakeAgent(folder, f"node-{number}") for number in range(AGENTS)]
    print(*(agent.address for agent in agents), flush=True)
    for agent in agents:
        agent.started.wait()
    for _ in range(BATCHES):
        time.sleep(PAUSE_SECONDS)
        for agent in agents:
            now = time.time_ns()
            agent.emit(*(now - 1_000_000 * (EVENTS - at) for at in range(EVENTS)))
    sys.stdin.read()


@cache
def figures() -> dict[str, float]:
    """What run gives, in a process of its own: the most memory of a child is never less than its parent had."""
    done = subprocess.run([sys.executable, "-m", "tests.bench.fanout"], capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run() -> dict[str, float]:
    """One command line on all of them: what it took, and how many events came out of order."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "import sys; from pathlib import Path; from tests.bench.fanout import serve; "
                   "serve(Path(sys.argv[1]))", folder]  # fmt: skip
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agents:
            assert agents.stdout
            addresses = [word for address in agents.stdout.readline().split() for word in ("--agent", address)]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            count = AGENTS * BATCHES * EVENTS
            cli = subprocess.Popen(
                [CLI, "execsnoop", "-o", "json", "--max-events", str(count), "--timeout", "60s", *addresses],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            out, err = cli.communicate()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            agents.communicate("")
    times = [json.loads(line)["timestamp"] for line in out.splitlines()]
    assert len(times) == count, err
    late = sum(now < before for before, now in itertools.pairwise(times))
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": spent / count * 1e6, "memory": after.ru_maxrss / 1024, "late": late / count * 1e6}


def cpu_of_200_agents(plan: Plan) -> Result:
    """CPU of the command line for each event of 200 agents, as JSON, start-up and connecting included."""
    return "µs/event", [figures()["cpu"]]


def memory_of_200_agents(plan: Plan) -> Result:
    """Most memory of the command line."""
    return "MiB", [figures()["memory"]]


def late_of_200_agents(plan: Plan) -> Result:
    """Events that were shown after a later one, of a million."""
    return "per 10^6", [figures()["late"]]


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    print(json.dumps(run()))
