"""What the flight recorder costs, beside programs that tell of system calls too, and one that does nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.bpf_object import BpfObject
from hatch_build import compile_object
from tests.bench import NO_TOOL, Figure, Goal, Plan
from tests.bench.agents import recording_agent
from tests.bench.machine import enter
from tests.bench.peers import DoesNotWork, why_not
from tests.conftest import bpf_programs, compile_workload, wait_until
from tests.pods import BareContainer

#: So that a quiet moment is among them; a tracer that slow the program at each call has time for fewer.
CALLS, FEW_CALLS = "20000", "500"
REQUESTS, FEW_REQUESTS = 100_000, 8000
TREE = Path("/usr/include")
COUNT = "tracepoint:raw_syscalls:sys_exit { @[comm] = count(); }"


@dataclass(frozen=True)
class Way:
    """How to run a program beside a tool: words before its own, a container, whether all takes many times as long."""

    words: tuple[str, ...] = ()
    inside: BareContainer | None = None
    slow: bool = False

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Run it."""
        words = [*self.words, *command]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=enter(self.inside)
        )


@contextmanager
def _nothing() -> Iterator[Way]:
    yield Way()


@contextmanager
def _empty_program() -> Iterator[Way]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "empty.bpf.o"
        compile_object(Path(__file__).with_name("empty.bpf.c"), "x86_64", target)
        with BpfObject(target.read_bytes(), "empty") as program:
            program.load()
            program.attach()
            yield Way()


@contextmanager
def _recorder(*, recorded: bool, readers: int = 0) -> Iterator[Way]:
    with recording_agent("--no-flows") as (agent, bpffs), ExitStack() as stack:
        container = BareContainer("shop", "cart-0")
        stack.callback(container.delete)
        (ring,) = wait_until(lambda: list(bpffs.glob("gadget/traceloop/*/ring-*")), "the ring")
        for _ in range(readers):
            reader = subprocess.Popen([sys.executable, "-c", READER, agent.address, ring.name.removeprefix("ring-")])
            stack.callback(reader.wait)
            stack.callback(reader.kill)
        yield Way(inside=container if recorded else None)


@contextmanager
def _bpftrace() -> Iterator[Way]:
    before = bpf_programs()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("wb") as errors:
        try:
            counting = subprocess.Popen(["bpftrace", "-e", COUNT], stdout=subprocess.DEVNULL, stderr=errors)
        except FileNotFoundError:
            raise DoesNotWork("bpftrace is not installed") from None
        try:
            wait_until(lambda: counting.poll() is not None or bpf_programs() - before, "bpftrace")
            if counting.poll() is not None:
                raise DoesNotWork(why_not(Path(folder) / "errors"))
            time.sleep(0.5)  # loaded, it attaches
            yield Way()
        finally:
            counting.kill()  # when it is told to end as it begins, bpftrace 0.17 goes on for ever
            counting.wait()


@contextmanager
def _before(*words: str, slow: bool = False) -> Iterator[Way]:
    try:
        subprocess.run([*words, "true"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise DoesNotWork(f"{words[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise DoesNotWork(error.stderr.strip().splitlines()[0]) from None
    yield Way(words, slow=slow)


#: A client that reads a recording without a pause.
READER = """
import sys
from gadget._generated.gadget_pb2 import TraceloopReadRequest
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.streams import connect
with connect(sys.argv[1]) as channel:
    while True:
        list(AgentStub(channel).TraceloopRead(TraceloopReadRequest(cgroup_id=int(sys.argv[2]))))
"""
RECORDED = "traceloop, in a recorded container"
READ = "the same, while two clients read the recording"
ELSEWHERE = "traceloop, elsewhere on the machine"
EMPTY = "a program that does nothing"
STRACE = "strace -f"
TOOLS: dict[str, Callable[[], AbstractContextManager[Way]]] = {
    NO_TOOL: _nothing,
    RECORDED: lambda: _recorder(recorded=True),
    READ: lambda: _recorder(recorded=True, readers=2),
    ELSEWHERE: lambda: _recorder(recorded=False),
    EMPTY: _empty_program,
    "bpftrace, counting by comm": _bpftrace,
    "perf trace": lambda: _before("perf", "trace", "-o", "/dev/null", "--"),
    STRACE: lambda: _before("strace", "-f", "-o", "/dev/null", slow=True),
}
HERE = "calling any program takes most of it on this machine, as the one that does nothing shows"
CALL, OWN = "a system call", "of these its own, without what any program takes"
GOALS = {
    (RECORDED, CALL): Goal(100, missed=HERE),
    (ELSEWHERE, CALL): Goal(40, missed=HERE),
    (RECORDED, OWN): Goal(100),
    (READ, OWN): Goal(100),
    (ELSEWHERE, OWN): Goal(40),
}


def _system_call(way: Way, folder: Path) -> float:
    """Nanoseconds of the cheapest one."""
    return float(way.start(str(folder / "loop"), FEW_CALLS if way.slow else CALLS).communicate()[0])


def _cpu(process: subprocess.Popen[str]) -> float:
    """Seconds of CPU that a process used until it ended, with those it waited for. Unlike time, others do not add to it."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.args
    return used.ru_utime + used.ru_stime


def _tar(way: Way, folder: Path) -> float:
    """Seconds for a tree of headers."""
    return _cpu(way.start("tar", "--create", "--file", "/dev/zero", str(TREE)))  # to /dev/null it would read nothing


def _redis(way: Way, folder: Path) -> float:
    """Seconds of the server for each request of 20 clients."""
    socket = folder / "redis.sock"
    server = way.start(str(folder / "redis-server"), "--port", "0", "--unixsocket", str(socket), "--save", "")
    try:
        wait_until(socket.exists, "redis")
        count = FEW_REQUESTS if way.slow else REQUESTS
        benchmark = ["redis-benchmark", "-s", str(socket), "-t", "get", "-c", "20", "-n", str(count), "--csv"]
        subprocess.run(benchmark, capture_output=True, check=True)
    finally:
        subprocess.run(["redis-cli", "-s", str(socket), "shutdown", "nosave"], capture_output=True, check=False)
        used = _cpu(server)
    return used / count


WORK = {CALL: ("ns", _system_call), "tar": ("%", _tar), "redis": ("%", _redis)}


def compare(plan: Plan) -> Iterator[Figure]:
    """All tools, in turns."""
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    broken: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_workload("loop", folder)
        (folder / "redis-server").symlink_to("/usr/bin/redis-check-rdb")  # which is the server, if it is called so
        _tar(Way(), folder)  # what is read is in memory now
        for number in range(plan.rounds):
            for tool, context in TOOLS.items():
                if tool in broken:
                    continue
                try:
                    with context() as way:
                        for work, (_, measure) in WORK.items():
                            if tool == READ and work != CALL:
                                continue  # readers would use the CPUs that are measured
                            if not (way.slow and work == "tar" and number):  # which takes a minute
                                taken[tool, work].append(measure(way, folder))
                except DoesNotWork as error:
                    broken[tool] = str(error)
    for tool in TOOLS:
        for work, (unit, _) in WORK.items():
            if not (values := taken[tool, work]):
                continue
            base = statistics.median(taken[NO_TOOL, work])
            if tool == NO_TOOL and unit == "%":
                continue
            added = [value - base if unit == "ns" else 100 * (value / base - 1) for value in values]
            yield Figure(tool, unit, values if tool == NO_TOOL else added, work, GOALS.get((tool, work)))
    calls = {tool: statistics.median(values) for (tool, work), values in taken.items() if work == CALL}
    for tool in (RECORDED, READ, ELSEWHERE):
        yield Figure(tool, "ns", [value - calls[EMPTY] for value in taken[tool, CALL]], OWN, GOALS[tool, OWN])
    if STRACE in calls:
        ratio = (calls[STRACE] - calls[NO_TOOL]) / (calls[RECORDED] - calls[NO_TOOL])
        yield Figure(RECORDED, "times as much", [ratio], f"{STRACE} adds", Goal(50, at_least=True))
    for tool, why in broken.items():
        yield Figure(tool, "", [], why=why)
