"""What the recorder of flows costs those whose traffic it sees."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.bench import Figure, Plan
from tests.bench.agents import recording_agent, wait_until_idle
from tests.bench.kernel import statistics
from tests.bench.machine import enter
from tests.conftest import compile_workload
from tests.loaded import bpf_programs
from tests.pods import BareContainer

#: An address that is not loopback's, which would not be recorded, in a network of its own.
ADDRESS = "10.77.0.1"
NETWORK = ("unshare", "--net", "sh", "-c", f'ip link set lo up; ip address add {ADDRESS}/32 dev lo; exec "$@"', "sh")
WORK = {"connects": "a TCP connection", "packets": "a TCP packet", "datagrams": "a UDP datagram"}
PROGRAMS = ("tcp_changed", "packet_left", "packet_came")


def _work(program: Path, kind: str, seconds: float, container: BareContainer) -> tuple[int, float]:
    """Do it. Gives how often it was done, and the CPU of each time in nanoseconds."""
    command = [*NETWORK, str(program), kind, "0", str(seconds), "1", ADDRESS]
    said = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=enter(container)).stdout
    count, _, cpu, _ = said.split()
    return int(count), float(cpu) / int(count) * 1e9


def _in_programs(others: set[int]) -> int:
    """Nanoseconds that the recorder's programs have run."""
    shown = json.loads(subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout)
    ours = [item for item in shown if item["id"] not in others and item.get("name") in PROGRAMS]
    return sum(item.get("run_time_ns", 0) for item in ours)


def compare(plan: Plan) -> Iterator[Figure]:
    """What work costs without the recorder, and what its programs take of it."""
    without: dict[str, list[float]] = defaultdict(list)
    programs: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        program = compile_workload("paced", Path(name))
        container = BareContainer("shop", "cart-0")
        try:
            for _ in range(plan.rounds):
                for kind in WORK:
                    without[kind].append(_work(program, kind, plan.seconds, container)[1])
                before = bpf_programs()
                with recording_agent("--traceloop", "off") as (agent, _), statistics():
                    wait_until_idle(agent.process.pid)
                    for kind in WORK:
                        began = _in_programs(before)
                        count, _ = _work(program, kind, plan.seconds, container)
                        programs[kind].append((_in_programs(before) - began) / count)
        finally:
            container.delete()
    for kind, work in WORK.items():
        yield Figure("the work itself, without the recorder", "ns", without[kind], work)
        yield Figure("of the recorder's programs", "ns", programs[kind], work)
