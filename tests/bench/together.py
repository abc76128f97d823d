"""What a `make` in a pod takes while all live gadgets watch it, beside tools that follow it; and the agent's memory."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.story.kinds import all_kinds
from tests.bench import NO_TOOL, Figure, Goal, Plan
from tests.bench.agents import recording_agent
from tests.bench.cli import ENVIRONMENT
from tests.bench.machine import cpu_seconds, peak_mib
from tests.bench.peers import SBIN, DoesNotWork
from tests.bench.ways import Way, before, bpftrace, cpu, nothing
from tests.conftest import CLI, wait_until
from tests.pods import BareContainer

#: A small C program: each file has headers, and so many functions that a compiler has something to do.
FILES, FUNCTIONS = 40, 30
HEADERS = ("stdio", "stdlib", "string", "unistd", "sys/socket", "netinet/in")
MAKEFILE = """
objects := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(objects)
\tcc -o $@ $^
%.o: %.c
\tcc -O1 -c -o $@ $<
"""
ALL = "all live gadgets (story --kinds all)"
USUAL = "story"
RECORDERS = "an agent that records"
FOLLOW = PERF, STRACE = "perf trace", "strace -f"
MANY = (
    "It was 23 % when each of 16 gadgets had a program of its own at the end of every system call; now these share two "
    "([049](decisions/049-who-wants-a-call-is-looked-up.md)). What remains was not taken apart: the agent and the command "
    "line take 9 and 12 % of a core of the same two processors."
)
GOALS = {(ALL, "time"): Goal(10, missed=MANY), (ALL, "memory of the agent"): Goal(150)}


@dataclass
class Beside:
    """How to run the work beside a tool; of ours, the agent and the command line."""

    way: Way
    agent: int = 0
    client: int = 0


@contextmanager
def _peer(context: AbstractContextManager[Way]) -> Iterator[Beside]:
    with context as way:
        yield Beside(way)


@contextmanager
def _scripts() -> Iterator[Beside]:
    with bpftrace(f"{SBIN}/opensnoop.bt"), bpftrace(f"{SBIN}/execsnoop.bt") as way:
        yield Beside(way)


@contextmanager
def _ours(*kinds: str, watched: bool = True) -> Iterator[Beside]:
    """An agent as it is deployed, and a story of a pod, if that is to be watched."""
    with recording_agent("--observe", "--syscalls") as (agent, _):
        container = BareContainer("shop", "cart-0")
        command = [CLI, "story", "-n", "shop", "-p", "cart-0", "-o", "json", *kinds, "--agent", agent.address]
        beside = Beside(Way(inside=container), agent.process.pid)
        try:
            if not watched:
                yield beside
                return
            client = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
            )
            try:
                names = [gadget.name for gadget, story in all_kinds().values() if kinds or not story.optional]
                begun = [f"{name}: started" for name in names]
                wait_until(lambda: all(word in agent.log.read_text() for word in begun), "all gadgets", 60)
                beside.client = client.pid
                yield beside
                client.send_signal(signal.SIGINT)
                said = client.communicate(timeout=60)[1]
                assert "nothing lost" in said, said
            finally:
                client.kill()
                client.wait()
        finally:
            container.delete()


TOOLS: dict[str, Callable[[], AbstractContextManager[Beside]]] = {
    NO_TOOL: lambda: _peer(nothing()),
    RECORDERS: lambda: _ours(watched=False),
    USUAL: _ours,
    ALL: lambda: _ours("--kinds", "all"),
    "opensnoop.bt and execsnoop.bt (bpftrace)": _scripts,
    PERF: lambda: _peer(before("perf", "trace", "-o", "/dev/null", "--")),
    STRACE: lambda: _peer(before("strace", "-f", "-o", "/dev/null")),
}


def _write_sources(folder: Path) -> None:
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    head = "".join(f"#include <{name}.h>\n" for name in HEADERS)
    for file in range(FILES):
        body = "".join(
            f"int f{file}_{number}(int most) {{ int sum = {number}; while (most--) sum += most ^ sum * {number}; "
            f'return printf("%d\\n", sum); }}\n'
            for number in range(FUNCTIONS)
        )
        (folder / f"part{file}.c").write_text(head + body)


def _make(beside: Beside, folder: Path) -> dict[str, float]:
    """Seconds that it took, and of CPU, its own and those of who watched."""
    for each in (*folder.glob("*.o"), *folder.glob("program")):
        each.unlink()
    watching = {name: pid for name, pid in (("agent", beside.agent), ("command line", beside.client)) if pid}
    used = {name: cpu_seconds(pid) for name, pid in watching.items()}
    began = time.monotonic()
    found = {"CPU of make": cpu(beside.way.start("make", "--silent", "--directory", str(folder)))}
    found["time"] = time.monotonic() - began
    for name, pid in watching.items():
        found[f"CPU of the {name}"] = 100 * (cpu_seconds(pid) - used[name]) / found["time"]
        found[f"memory of the {name}"] = peak_mib([pid])
    return found


UNITS = {
    "time": "%",
    "CPU of make": "%",
    "CPU of the agent": "% of a core",
    "CPU of the command line": "% of a core",
    "memory of the agent": "MiB",
    "memory of the command line": "MiB",
}


def compare(plan: Plan) -> Iterator[Figure]:
    """All tools, in turns; each beside the work without a tool in the same round."""
    taken: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    broken: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_sources(folder)
        _make(Beside(Way()), folder)  # what is read is in memory now
        for number in range(plan.rounds):
            for tool, context in TOOLS.items():
                if tool in broken:
                    continue
                try:
                    with context() as beside:
                        for what, value in _make(beside, folder).items():
                            taken[tool, what][number] = value
                except DoesNotWork as error:
                    broken[tool] = str(error)
    for what in ("time", "CPU of make"):
        yield Figure(NO_TOOL, "s", list(taken[NO_TOOL, what].values()), f"{what} alone")
    for tool in TOOLS:
        for what, unit in UNITS.items():
            if tool == NO_TOOL or not (values := taken[tool, what]):
                continue
            if what == "CPU of make" and tool in FOLLOW:  # it cannot be told from theirs
                continue
            if unit == "%":
                base = taken[NO_TOOL, what]
                values = {each: 100 * (value / base[each] - 1) for each, value in values.items()}
            yield Figure(tool, unit, list(values.values()), what, GOALS.get((tool, what)))
    for tool, why in broken.items():
        yield Figure(tool, "", [], why=why)
