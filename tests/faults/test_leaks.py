"""What an agent holds after many runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from threading import Event
from typing import NamedTuple

import grpc
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, wait_until
from tests.faults.conftest import Figure
from tests.loaded import is_there, kernel_objects

RUNS = 500
#: Threads that gRPC starts and ends as it likes.
SPARE_THREADS = 8


class Holds(NamedTuple):
    """What a process holds: open files, threads, bytes of memory."""

    files: int
    threads: int
    memory: int


def holds(pid: int) -> Holds:
    process = Path(f"/proc/{pid}")
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())[0]) * 1024
    return Holds(len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), resident)


def own_memory(pid: int) -> int:
    """A process's memory without what it has mapped of its maps, which the kernel has once, however often that is."""
    total, mapped = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            mapped = line.endswith("anon_inode:bpf-map")
        elif line.startswith("Rss:") and not mapped:
            total += int(line.split()[1]) * 1024
    return total


def run(stub: AgentStub, gadget: str, how: str) -> Iterator[None]:
    """A run; yields while it runs."""
    parameters = {"pid": "nobody"} if how == "refused" else {}
    ending = Event()

    def requests() -> Iterator[pb.RunRequest]:
        yield pb.RunRequest(start=pb.Start(gadget=gadget, parameters=parameters, ring_bytes=4096))
        ending.wait(60)
        yield pb.RunRequest(stop=pb.Stop())

    call = stub.Run(requests())
    try:
        next(call)
        yield
        if how == "cancelled":
            call.cancel()
        ending.set()
        list(call)
    except grpc.RpcError:
        pass
    finally:
        ending.set()
    wanted = {"cancelled": grpc.StatusCode.CANCELLED, "refused": grpc.StatusCode.INVALID_ARGUMENT}
    assert call.code() == wanted.get(how, grpc.StatusCode.OK), call.details()


@pytest.mark.timeout(300)
def test_five_hundred_runs(agent: Agent, figure: Figure) -> None:
    """After 500 runs that ended in order, were cut off, or were refused, the agent holds no file, thread, program or map
    more than before, and hardly any memory.
    """
    pid, passed = agent.process.pid, set()
    kinds = list(
        islice(cycle((name, how) for how in ("stopped", "cancelled", "refused") for name in catalog.load()), RUNS)
    )
    before = kernel_objects(pid)
    with connect(agent.address) as channel:
        stub = AgentStub(channel)
        for number, (name, how) in enumerate(kinds):
            for _ in run(stub, name, how):
                if number % 10 == 0:
                    passed |= kernel_objects(pid) - before
            if number == 6 * len(catalog.load()):  # by now all that is made once has been: each ended twice in each way
                wait_until(lambda: kernel_objects(pid) == before, "the end of the runs")
                warm = holds(pid)
    wait_until(lambda: kernel_objects(pid) == before, "the end of the runs")
    wait_until(lambda: holds(pid).files < warm.files, "the end of the connection")
    wait_until(lambda: not any(is_there(*each) for each in passed), "the end of all programs and maps")
    after = holds(pid)
    grown = (after.memory - warm.memory) / 1e6
    figure(f"after {RUNS} runs, and before", f"{after.files} files, {warm.files} with a connection; {after.threads} threads, "
           f"{warm.threads}; {grown:+.1f} MB; {len(passed)} programs and maps looked up, all gone")  # fmt: skip
    assert len(passed) > 100
    assert after.threads <= warm.threads + SPARE_THREADS
    assert grown < 8
