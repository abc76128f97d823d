"""Tools that show events as they happen, at fixed rates, and of as many as can be made."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import NO_TOOL, Figure, Goal, Measurement, Plan
from tests.bench.cli import ENVIRONMENT
from tests.bench.ig import ig
from tests.bench.machine import cpu_seconds, enter, peak_mib
from tests.bench.peers import GADGETS, TOOLS, DoesNotWork, Tool, why_not
from tests.conftest import CLI, Agent, compile_workload, wait_until
from tests.pods import BareContainer

#: Memory, so that no disk is measured; hundreds of megabytes are written.
SHM = "/dev/shm"
RATES = {"opens": (1000, 16_000, 100_000, 400_000), "execs": (1000, 4000), "connects": (1000, 8000)}
#: At which CPU is compared.
CPU_RATES = {"opens": (16_000, 100_000), "execs": (1000, 4000), "connects": (1000, 8000)}
#: How many times as long the highest rates take: queues swallow a second or so of them. And the lowest, so that what a
#: tool takes when nothing happens is little beside it.
HIGH, LONG = 100_000, 3
LOW, SLOW = 10_000, 5
#: Less than this share of the rate that was asked for is another rate.
REACHED = 0.97
PROCESSES = 2
#: An output is complete when it has not grown for so long.
QUIET_SECONDS = 0.3
BISECTIONS = 3
START_SECONDS = 10
ALONE = f"{NO_TOOL}: the workload as fast as it can"


@contextmanager
def streaming(gadget: str, *options: str) -> Iterator[tuple[Agent, subprocess.Popen[str]]]:
    """An agent, and a command whose stream of the pod's rows has begun; it writes them to nowhere, and may be ended."""
    with tempfile.TemporaryDirectory() as name:
        agent = Agent(Path(name))
        try:
            command = [str(CLI), gadget, "-n", "shop", "-o", "json", *options, "--agent", agent.address]
            cli = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
            )
            wait_until(lambda: f"{gadget}: started" in agent.log.read_text(), "the stream's start")
            yield agent, cli
        finally:
            agent.stop()


@dataclass(frozen=True)
class Made:
    """Events that were made, by threads of this name, in how many seconds, of CPU too."""

    name: str
    count: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.count / self.seconds

    @property
    def cpu_us(self) -> float:
        """What an event costs the one that makes it, in µs."""
        return self.cpu / self.count * 1e6


class Workload:
    """Makes events of one kind in a container; each time under another name, by which their lines are told apart."""

    def __init__(self, kind: str, folder: Path, container: BareContainer) -> None:
        """Compile it into folder."""
        self.kind = kind
        self._folder = folder
        self.container = container
        self._program = compile_workload("paced", folder)
        self._number = 0

    def start(self, name: str, rate: float, seconds: float, processes: int = PROCESSES) -> subprocess.Popen[str]:
        """Begin, as a program of that name; rate 0 is as fast as it can."""
        program = self._folder / name
        if not program.exists():
            os.link(self._program, program)
        where = "127.0.0.1" if self.kind == "connects" else str(self._folder / "file")
        command = [str(program), self.kind, str(rate), str(seconds), str(processes), where]
        inside = enter(self.container)
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=inside, start_new_session=True)

    def make(self, rate: float, seconds: float, processes: int = PROCESSES) -> Made:
        """Make events."""
        self._number += 1
        name = f"made{self._number}x"
        count, took, cpu, done = self.start(name, rate, seconds, processes).communicate(timeout=120)[0].split()
        assert done == "done"
        # the workload is itself a program that was started
        return Made(name, int(count) + (self.kind == "execs"), float(took), float(cpu))


@contextmanager
def workload(kind: str) -> Iterator[Workload]:
    """A workload and its container."""
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        container = BareContainer("shop", "cart-0")
        try:
            yield Workload(kind, Path(folder), container)
        finally:
            container.delete()


class Session:
    """A tool that runs, beside a workload."""

    def __init__(self, tool: Tool, work: Workload, folder: Path, pids: dict[str, int]) -> None:
        """Wait until it shows events. DoesNotWork if it shows none."""
        self._tool, self._work, self._pids = tool, work, pids
        self._output = folder / "output"
        try:
            wait_until(self._shows, "its first event", START_SECONDS)
        except AssertionError:
            raise DoesNotWork(why_not(folder / "errors")) from None
        self._wait_until_quiet()

    def _shows(self) -> bool:
        """Whether it shows anything yet: many lines at once, as output may wait until it fills a buffer."""
        self._work.start("canary", 10_000, 0.02).communicate()
        return self.shown("canary") > 0

    def shown(self, name: str) -> int:
        """Events by threads of that name in its output so far."""
        return self._lines(self._tool.line.replace("NAME", name))

    def complete(self, events: Made) -> bool:
        """Whether it has shown them all, but for what its buffer may hold."""
        return self.shown(events.name) >= events.count - self._tool.unwritten

    def _led_to(self, name: str) -> int:
        """Lines that events by threads of that name led to."""
        return self._lines(self._tool.led_to.replace("NAME", name))

    def make(self, rate: float, seconds: float, processes: int = PROCESSES) -> tuple[Made, dict[str, float]]:
        """Events, and the CPU that each of its processes spent on them, in seconds.

        A peer shows what others do on the machine, too: what it spent is shared out by lines.
        """
        lines, earlier = self._lines(), self._led_to("no thread")
        before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        made = self._work.make(rate, seconds, processes)
        self._wait_until_quiet()
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in self._pids.items()}
        share = min(1.0, (self._led_to(made.name) - earlier) / max(1, self._lines() - lines))
        return made, {name: seconds * share for name, seconds in spent.items()}

    def _lines(self, pattern: str = "") -> int:
        # not as an argument, which those that show programs would show
        command = ["grep", "-c", "-f", "-", str(self._output)]
        return int(subprocess.run(command, input=f"{pattern}\n".encode(), capture_output=True, check=False).stdout)

    @property
    def mib(self) -> dict[str, float]:
        """The most memory that each of its processes has had."""
        return {name: peak_mib([pid]) for name, pid in self._pids.items()}

    def _wait_until_quiet(self) -> None:
        size, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            if self._output.stat().st_size != size:
                size, since = self._output.stat().st_size, time.monotonic()
            time.sleep(0.02)


class Cells:
    """The table while it grows: values by row and column, each column in its unit, as they come."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._units: dict[str, str] = {}
        self._made: dict[tuple[str, str], list[Made]] = defaultdict(list)
        self._asked: dict[str, float] = {}
        self.broken: dict[str, str] = {}
        self.missing: dict[tuple[str, str], str] = {}

    def add(self, row: str, column: str, unit: str, value: float) -> None:
        """One more run."""
        self._units[column] = unit
        self._values[row, column].append(value)

    def add_parts(self, row: str, column: str, unit: str, parts: Mapping[str, float]) -> list[str]:
        """One more run of a sum, and of its parts if it has some; gives their rows."""
        rows = {row: sum(parts.values())} | {f"{row}: {name}": value for name, value in parts.items() if len(parts) > 1}
        for name, value in rows.items():
            self.add(name, column, unit, value)
        return list(rows)

    def add_at(self, rate: float, events: Made, row: str, what: str, unit: str, parts: Mapping[str, float]) -> None:
        """The same at a rate that was asked for, and what was really made."""
        column = f"{what} at {rate / 1000:.0f}k/s"
        self._asked[column] = rate
        for name in self.add_parts(row, column, unit, parts):
            self._made[name, column].append(events)

    def _really(self, row: str, column: str) -> float:
        """The rate that was made, if it is not the one that was asked for."""
        rate = statistics.median(events.rate for events in self._made[row, column]) if column in self._asked else 0.0
        return rate if rate < REACHED * self._asked.get(column, 0) else 0.0

    def figures(self, goals: Mapping[tuple[str, str], Goal]) -> Iterator[Figure]:
        """All cells, column by column as they are known, and why rows are empty."""
        for (row, column), values in self._values.items():
            goal, made = goals.get((row, column)), self._really(row, column)
            yield Figure(row, self._units[column], values, column, goal, made=made)
        for (row, column), why in self.missing.items():
            yield Figure(row, "", [], column, why=why)
        for row, why in self.broken.items():
            yield Figure(row, "", [], why=why)


def _run(tool: Tool, work: Workload, plan: Plan, cells: Cells, alone: Made, *, search: bool) -> None:
    """All that one start of a tool tells. search: also for the rate at which it begins to lose."""
    made: dict[int, tuple[Made, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=SHM) as name:
        output = Path(name) / "output"
        output.touch()
        with tool.running(Path(name), output) as running:
            session = Session(tool, work, Path(name), running.pids)
            for rate in RATES[work.kind]:
                times = LONG if rate >= HIGH else SLOW if rate < LOW else 1
                made[rate] = session.make(rate, plan.seconds * times)
            flood, _ = session.make(0, plan.seconds, 1)
            cells.add_parts(tool.name, "memory", "MiB", session.mib)
            if search:
                cells.add(tool.name, "all shown up to", "/s", _most_without_loss(session, plan, made))
        for rate, (events, cpu) in made.items():
            shown = session.shown(events.name)
            cells.add_at(rate, events, tool.name, "shown", "%", {"": 100 * shown / events.count})
            if rate in CPU_RATES[work.kind] and shown:
                spent = {name: seconds / shown * 1e6 for name, seconds in cpu.items()}
                cells.add_at(rate, events, tool.name, "CPU per event", "µs", spent)
        cells.add(tool.name, "shown of a flood", "/s", session.shown(flood.name) / flood.seconds)
        cells.add(tool.name, "added to each event", "µs", flood.cpu_us - alone.cpu_us)


def _most_without_loss(session: Session, plan: Plan, made: Mapping[int, tuple[Made, object]]) -> float:
    """Events a second, by bisection between rates where all are shown and where not."""
    most, _ = session.make(0, plan.seconds * LONG)
    known = {events.rate: session.complete(events) for events in (most, *(events for events, _ in made.values()))}
    bad = min((rate for rate, all_shown in known.items() if not all_shown), default=float("inf"))
    good = max((rate for rate in known if rate < bad), default=100.0)
    if bad > most.rate:  # more cannot be made
        return good
    for _ in range(1 if plan.quick else BISECTIONS):
        events, _ = session.make((good * bad) ** 0.5, plan.seconds * LONG)
        if not session.complete(events):
            bad = events.rate
        elif events.rate < 0.9 * (good * bad) ** 0.5:
            return max(good, events.rate)  # more cannot be made
        else:
            good = events.rate
    return good


def _begins_with(output: Path, word: bytes) -> bool:
    """Whether the beginning of a file, which may be large, has a word."""
    with output.open("rb") as file:
        return word in file.read(200_000)


def _first_event(tool: Tool, work: Workload, cells: Cells) -> None:
    """From its start to the first event that it shows."""
    with tempfile.TemporaryDirectory(dir=SHM) as name:
        output = Path(name) / "output"
        output.touch()
        canary = work.start("canary", 500, 60)
        try:
            with tool.running(Path(name), output, at_once=True) as running:
                wait_until(lambda: _begins_with(output, b"canary"), "an event")
                cells.add(tool.name, "first event", "ms", (time.perf_counter() - running.began) * 1000)
        except AssertionError as error:
            cells.missing[tool.name, "first event"] = str(error)
        finally:
            os.killpg(canary.pid, signal.SIGKILL)
            canary.communicate()


def compare(kind: str, goals: Mapping[tuple[str, str], Goal]) -> Measurement:
    """The tools for one kind of event."""

    def measure(plan: Plan) -> Iterator[Figure]:
        cells = Cells()
        with workload(kind) as work:
            for number in range(plan.rounds):
                alone, both = work.make(0, plan.seconds, 1), work.make(0, plan.seconds)
                cells.add(ALONE, "added to each event", "µs", alone.cpu_us)
                cells.add(ALONE, "all shown up to", "/s", both.rate)
                for tool in (*TOOLS[kind], *([ig(kind)] if plan.ig else [])):
                    if tool.name in cells.broken:
                        continue
                    try:
                        _run(tool, work, plan, cells, alone, search=not number)
                        _first_event(tool, work, cells)
                    except DoesNotWork as error:
                        cells.broken[tool.name] = str(error)
        yield from cells.figures(goals)

    measure.__name__ = GADGETS[kind]
    return measure
