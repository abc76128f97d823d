"""What the flight recorder costs, beside programs that tell of system calls too, and one that does nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from agent.bpf.bpf_object import BpfObject
from hatch_build import compile_object
from tests.bench import NO_TOOL, Figure, Goal, Plan
from tests.bench.agents import recording_agent
from tests.bench.peers import DoesNotWork
from tests.bench.ways import Way, before, bpftrace, cpu, nothing
from tests.conftest import compile_workload, wait_until
from tests.pods import BareContainer

#: So that a quiet moment is among them; a tracer that slow the program at each call has time for fewer.
CALLS, FEW_CALLS = "20000", "500"
REQUESTS, FEW_REQUESTS = 100_000, 8000
#: Of what is not slow: real work takes a little more or less each time.
ROUNDS = 7
TREE = Path("/usr/include")
COUNT = "tracepoint:raw_syscalls:sys_exit { @[comm] = count(); }"


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
def _recorder(inside: str, readers: int = 0) -> Iterator[Way]:
    """Record a namespace, and be in a container of another or the same; outside of all if it is empty."""
    with recording_agent("--no-flows", "--traceloop", "shop") as (agent, bpffs), ExitStack() as stack:
        containers = {namespace: BareContainer(namespace, "cart-0") for namespace in ("web", "shop")}
        for container in containers.values():
            stack.callback(container.delete)
        (ring,) = wait_until(lambda: list(bpffs.glob("gadget/traceloop/*/ring-*")), "the ring")
        for _ in range(readers):
            reader = subprocess.Popen([sys.executable, "-c", READER, agent.address, ring.name.removeprefix("ring-")])
            stack.callback(reader.wait)
            stack.callback(reader.kill)
        yield Way(inside=containers.get(inside))


@contextmanager
def _which_calls(inside: str) -> Iterator[Way]:
    """Record which calls containers make, and be in one, or outside of all."""
    with recording_agent("--syscalls", "--no-flows", "--traceloop", "off"), ExitStack() as stack:
        container = BareContainer("shop", "cart-0")
        stack.callback(container.delete)
        yield Way(inside=container if inside else None)


#: A client that reads a recording without a pause.
READER = """
import sys
from gadget._generated.gadget_pb2 import TraceloopReadRequest
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
with connect(sys.argv[1]) as channel:
    while True:
        list(AgentStub(channel).TraceloopRead(TraceloopReadRequest(cgroup_id=int(sys.argv[2]))))
"""
RECORDED = "traceloop, in a recorded container"
READ = "the same, while two clients read the recording"
NOT_RECORDED = "traceloop, in a container that is not recorded"
ELSEWHERE = "traceloop, elsewhere on the machine"
WHICH_CALLS = "which calls are made (advise seccomp-profile), in a container"
WHICH_CALLS_ELSEWHERE = "the same, elsewhere on the machine"
EMPTY = "a program that does nothing"
STRACE = "strace -f"
TOOLS: dict[str, Callable[[], AbstractContextManager[Way]]] = {
    NO_TOOL: nothing,
    RECORDED: lambda: _recorder("shop"),
    READ: lambda: _recorder("shop", readers=2),
    NOT_RECORDED: lambda: _recorder("web"),
    ELSEWHERE: lambda: _recorder(""),
    WHICH_CALLS: lambda: _which_calls("shop"),
    WHICH_CALLS_ELSEWHERE: lambda: _which_calls(""),
    EMPTY: _empty_program,
    "bpftrace, counting by comm": lambda: bpftrace("-e", COUNT),
    "perf trace": lambda: before("perf", "trace", "-o", "/dev/null", "--"),
    STRACE: lambda: before("strace", "-f", "-o", "/dev/null", slow=True),
}
HERE = "calling any program takes most of it on this machine, as the one that does nothing shows"
CALL, OWN = "a system call", "of these its own, without what any program takes"
GOALS = {(RECORDED, CALL): Goal(100, missed=HERE), (RECORDED, OWN): Goal(100), (READ, OWN): Goal(100)}
GOALS |= {(row, CALL): Goal(40, missed=HERE) for row in (NOT_RECORDED, ELSEWHERE, WHICH_CALLS, WHICH_CALLS_ELSEWHERE)}
GOALS |= {(row, OWN): Goal(40) for row in (NOT_RECORDED, ELSEWHERE, WHICH_CALLS, WHICH_CALLS_ELSEWHERE)}


def _system_call(way: Way, folder: Path) -> float:
    """Nanoseconds of the cheapest one."""
    return float(way.start(str(folder / "loop"), FEW_CALLS if way.slow else CALLS).communicate()[0])


def _tar(way: Way, folder: Path) -> float:
    """Seconds for a tree of headers."""
    return cpu(way.start("tar", "--create", "--file", "/dev/zero", str(TREE)))  # to /dev/null it would read nothing


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
        used = cpu(server)
    return used / count


WORK = {CALL: ("ns", _system_call), "tar": ("%", _tar), "redis": ("%", _redis)}


def compare(plan: Plan) -> Iterator[Figure]:
    """All tools, in turns; each beside the work without a tool in the same round."""
    taken: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    broken: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_workload("loop", folder)
        (folder / "redis-server").symlink_to("/usr/bin/redis-check-rdb")  # which is the server, if it is called so
        _tar(Way(), folder)  # what is read is in memory now
        for number in range(1 if plan.quick else ROUNDS):
            for tool, context in TOOLS.items():
                if tool in broken:
                    continue
                try:
                    with context() as way:
                        for work, (_, measure) in WORK.items():
                            if tool == READ and work != CALL:
                                continue  # readers would use the CPUs that are measured
                            most = (1 if work == "tar" else plan.rounds) if way.slow else ROUNDS  # tar takes a minute
                            if number < most:
                                taken[tool, work][number] = measure(way, folder)
                except DoesNotWork as error:
                    broken[tool] = str(error)
    for tool in TOOLS:
        for work, (unit, _) in WORK.items():
            if not (values := taken[tool, work]):
                continue
            base = taken[NO_TOOL, work]
            if tool == NO_TOOL and unit == "%":
                continue
            if tool != NO_TOOL:
                values = {
                    number: value - base[number] if unit == "ns" else 100 * (value / base[number] - 1)
                    for number, value in values.items()
                }
            yield Figure(tool, unit, list(values.values()), work, GOALS.get((tool, work)))
    empty = taken[EMPTY, CALL]
    for tool in (RECORDED, READ, NOT_RECORDED, ELSEWHERE, WHICH_CALLS, WHICH_CALLS_ELSEWHERE):
        own = [value - empty[number] for number, value in taken[tool, CALL].items()]
        yield Figure(tool, "ns", own, OWN, GOALS[tool, OWN])
    if traced := taken[STRACE, CALL]:
        without, ours = taken[NO_TOOL, CALL], taken[RECORDED, CALL]
        ratios = [(value - without[number]) / (ours[number] - without[number]) for number, value in traced.items()]
        yield Figure(RECORDED, "times as much", ratios, f"{STRACE} adds", Goal(50, at_least=True))
    for tool, why in broken.items():
        yield Figure(tool, "", [], why=why)
