"""What the recorder of flows, and the flow log, cost those whose traffic they see."""

from __future__ import annotations

import json
import subprocess
import tempfile
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from agent.domains import ADDRESSES, ALL_ADDRESSES, NAME_LETTERS, NAMES, Domains
from gadget.text import counted
from tests.bench import Figure, Plan
from tests.bench.agents import recording_agent, wait_until_idle
from tests.bench.kernel import statistics
from tests.bench.machine import cpu_seconds, enter, resident_mib
from tests.conftest import compile_workload
from tests.loaded import bpf_programs, maps_of
from tests.pods import BareContainer

#: An address that is not loopback's, which would not be recorded, in a network of its own.
ADDRESS = "10.77.0.1"
NETWORK = ("unshare", "--net", "sh", "-c", f'ip link set lo up; ip address add {ADDRESS}/32 dev lo; exec "$@"', "sh")
#: Of DNS, on a busy node; with its answer each is four messages where both ends are pods of the node.
QUESTIONS, MESSAGES = 1_000, 4
WORK = {"connects": "a TCP connection", "packets": "a TCP packet", "datagrams": "a UDP datagram"}
PROGRAMS_OF_NAMES = ("message_left", "message_came")
#: Each with the options of its agent.
SEERS = {"the recorder": (), "the flow log": ("--no-flows", "--observe")}


def _work(program: Path, kind: str, seconds: float, container: BareContainer, rate: int = 0) -> tuple[int, float]:
    """Do it, as fast as it can be done or at a rate. Gives how often it was done, and the CPU of each time in ns."""
    command = [*NETWORK, str(program), kind, str(rate), str(seconds), "1", ADDRESS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=enter(container)).stdout
    count, _, cpu, _ = said.split()
    return int(count), float(cpu) / int(count) * 1e9


def _in_programs(others: set[int], names: tuple[str, ...] = ()) -> int:
    """Nanoseconds that programs which are none of others have run: all of them, or those of these names."""
    shown = json.loads(subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout)
    ours = [item for item in shown if item["id"] not in others and (not names or item.get("name") in names)]
    return sum(item.get("run_time_ns", 0) for item in ours)


def compare(plan: Plan) -> Iterator[Figure]:
    """What work costs without the recorder, and what its programs and those of the flow log take of it."""
    without: dict[str, list[float]] = defaultdict(list)
    programs: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        program = compile_workload("paced", Path(name))
        container = BareContainer("shop", "cart-0")
        try:
            for _ in range(plan.rounds):
                for kind in WORK:
                    without[kind].append(_work(program, kind, plan.seconds, container)[1])
                for who, options in SEERS.items():
                    before = bpf_programs()
                    with recording_agent("--traceloop", "off", *options) as (agent, _), statistics():
                        wait_until_idle(agent.process.pid)
                        for kind in WORK:
                            began = _in_programs(before)
                            count, _ = _work(program, kind, plan.seconds, container)
                            programs[who, kind].append((_in_programs(before) - began) / count)
        finally:
            container.delete()
    for kind, work in WORK.items():
        yield Figure("the work itself, without the recorder", "ns", without[kind], work)
        for who in SEERS:
            yield Figure(f"of {who}'s programs", "ns", programs[who, kind], work)


def names(plan: Plan) -> Iterator[Figure]:
    """What an agent with `--flows-names` takes beside one without."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        program = compile_workload("paced", Path(name))
        container = BareContainer("shop", "cart-0")
        try:
            for _ in range(plan.rounds):
                without, used = (_answered(plan, program, container, *options) for options in ((), ("--flows-names",)))
                found["the kernel's programs, a message"].append(used["programs"])
                found["the kernel's programs, a packet that is none"].append(used["others"])
                found["the agent, a message"].append(used["agent"] - without["agent"])
                found["memory of the agent, with one name"].append(used["memory"] - without["memory"])
                found["maps in the kernel"].append(used["maps"] - without["maps"])
        finally:
            container.delete()
    for letters in (30, NAME_LETTERS):
        many = 1 if letters < NAME_LETTERS else NAMES
        row = f"memory of the agent, by {ALL_ADDRESSES:,} addresses of {counted(many, 'name')} of {letters} letters"
        found[row].append(_full(letters, many))
    units = {"programs": "ns", "the agent, a": "µs"}
    for row, values in found.items():
        yield Figure(row, next((unit for part, unit in units.items() if part in row), "MiB"), values)


def _answered(plan: Plan, program: Path, container: BareContainer, *options: str) -> dict[str, float]:
    """What an agent with options takes while a container's questions are answered, of CPU for each message."""
    before = bpf_programs()
    with recording_agent("--traceloop", "off", *options) as (agent, bpffs), statistics():
        wait_until_idle(agent.process.pid)
        cpu, began = cpu_seconds(agent.process.pid), _in_programs(before, PROGRAMS_OF_NAMES)
        count, _ = _work(program, "questions", 10 * plan.seconds, container, QUESTIONS)
        wait_until_idle(agent.process.pid)
        messages, so_far = count * MESSAGES, _in_programs(before, PROGRAMS_OF_NAMES)
        spent = cpu_seconds(agent.process.pid) - cpu
        packets, _ = _work(program, "packets", plan.seconds, container)
        return {
            "programs": (so_far - began) / messages,
            "others": (_in_programs(before, PROGRAMS_OF_NAMES) - so_far) / packets,
            "agent": spent / messages * 1e6,
            "memory": resident_mib(agent.process.pid),
            "maps": sum(each.get("bytes_memlock", 0) for each in maps_of(agent.process.pid, bpffs)) / (1 << 20),
        }


def _full(letters: int, many: int) -> float:
    """MiB of as many addresses as are kept, each with so many names of so many letters."""
    tracemalloc.start()
    try:
        domains, before = Domains(), tracemalloc.get_traced_memory()[0]
        for number in range(ALL_ADDRESSES):
            for other in range(many):
                name = f"{number}-{other}.example.com".rjust(letters, "x")
                domains.add(number // ADDRESSES, name, [(number.to_bytes(4, "big"), 60)])
        return (tracemalloc.get_traced_memory()[0] - before) / (1 << 20)
    finally:
        tracemalloc.stop()
