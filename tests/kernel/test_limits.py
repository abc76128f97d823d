"""An agent stays within the memory and the file descriptors that it is given."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import grpc
import pytest

from agent.answering import MAX_CONNECTIONS, MAX_RUNS
from agent.limits import MIB, OWN_BYTES, RUN_BYTES
from agent.traceloop.recorder import SLOTS, TOTAL_BYTES
from agent.traceloop.rings import memory_bytes, ring_bytes
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from tests.conftest import Agent, wait_until
from tests.faults.production import Producer
from tests.pods import BareContainer

MANIFEST = Path(__file__).parents[2] / "manifests/agent.yaml"
LIMIT = 256 * MIB
RINGS = 12 * MIB  # of a run, both
FIT = (LIMIT - OWN_BYTES) // (RINGS + RUN_BYTES)


class Limited:
    """A cgroup with a memory limit, in version 1 or 2, whichever has the controller. A context manager."""

    def __init__(self, limit: int) -> None:
        """Make it."""
        one = Path("/sys/fs/cgroup/memory")
        self._is_one = one.is_dir()
        self._group = (one if self._is_one else Path("/sys/fs/cgroup")) / f"gadget-test-{os.getpid()}"
        self._group.mkdir()
        (self._group / ("memory.limit_in_bytes" if self._is_one else "memory.max")).write_text(str(limit))
        #: a command that runs others in it
        self.command = ["sh", "-c", f'echo $$ > {self._group}/cgroup.procs && exec "$@"', "sh"]

    def __enter__(self) -> Limited:
        return self

    def __exit__(self, *_: object) -> None:
        wait_until(lambda: not (self._group / "cgroup.procs").read_text(), "the end of the agent")
        self._group.rmdir()

    @property
    def most(self) -> int:
        """What was used at most, in bytes."""
        return int((self._group / ("memory.max_usage_in_bytes" if self._is_one else "memory.peak")).read_text())


@pytest.fixture
def limited() -> Iterator[Callable[[int], Limited]]:
    """Makes such cgroups, which are gone after the test, and its agents before."""
    with ExitStack() as stack:
        yield lambda limit: stack.enter_context(Limited(limit))


_asked = count()


def begin(stack: ExitStack, address: str, gadget: str = "execsnoop") -> threading.Event:
    """A run of its own, of which all is read, and which ends when the event is set."""
    selection = pb.Selection(containers=[f"!other-{next(_asked)}"])  # those who ask for the same share one
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = stack.enter_context(grpc.insecure_channel(address, options=options))
    end = threading.Event()

    def requests() -> Iterator[pb.RunRequest]:
        yield pb.RunRequest(start=pb.Start(gadget=gadget, selection=selection))
        end.wait()

    replies = rpc.AgentStub(channel).Run(requests())
    assert next(replies).HasField("started")
    reader = threading.Thread(target=deque, args=(replies, 0))
    reader.start()
    stack.callback(reader.join)
    stack.callback(end.set)  # this is done first
    return end


def fits(stack: ExitStack, address: str) -> bool:
    """Whether one more run has begun."""
    with suppress(grpc.RpcError):
        begin(stack, address)
        return True
    return False


def test_memory_of_runs(limited, start_agent) -> None:
    """Runs that do not fit into the agent's memory limit are refused in one line; the agent and its other runs go on."""
    agent: Agent = start_agent(under=limited(LIMIT).command)
    with ExitStack() as stack:
        first = begin(stack, agent.address)
        for _ in range(FIT - 1):
            begin(stack, agent.address)
        with pytest.raises(grpc.RpcError) as refused:
            begin(stack, agent.address)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        said = refused.value.details()
        assert f"MiB of memory for events are in use by {FIT} runs on node-a" in said
        assert "end one, or ask for less with --buffer" in said and "\n" not in said
        assert agent.process.poll() is None
        first.set()
        wait_until(lambda: fits(stack, agent.address), "the room of the first")


def manifest_limit() -> int:
    """The memory limit of the manifest's agents."""
    (text,) = re.findall(r"limits:\s*\{?.*?memory: *(\d+)Mi", MANIFEST.read_text(), re.DOTALL)
    return int(text) * MIB


def test_all_runs_fit(limited, start_agent, bpffs: Path, tmp_path: Path, workload) -> None:
    """As many runs as are allowed fit into the manifest's memory limit, under a flood of opens, beside both recorders, of
    which the flight recorder has as many recordings as it may have.
    """
    group = limited(manifest_limit())
    agent: Agent = start_agent("--bpffs", str(bpffs), "--state", str(tmp_path / "state"), under=group.command)
    with ExitStack() as stack:
        recorded = TOTAL_BYTES // memory_bytes(ring_bytes(SLOTS))
        for number in range(recorded):
            stack.callback(BareContainer("shop", f"cart-{number}").delete)
        wait_until(lambda: "no memory for" in describe(agent).traceloop, "the recordings")
        flood = stack.enter_context(Producer(workload("produce")))
        for _ in range(MAX_RUNS):
            begin(stack, agent.address, "opensnoop")
        for _ in range(10):
            flood.make(20_011)
        assert len(describe(agent).runs) == MAX_RUNS
        with pytest.raises(grpc.RpcError):
            begin(stack, agent.address)
        assert agent.process.poll() is None
    assert group.most < 0.95 * manifest_limit()


def describe(agent: Agent) -> pb.DescribeReply:
    with grpc.insecure_channel(agent.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return rpc.AgentStub(channel).Describe(pb.DescribeRequest(), timeout=1)


def test_idle_connections(start_agent) -> None:
    """Connections that say nothing do not keep others out for more than a few seconds, and take a bounded number of files."""
    agent: Agent = start_agent(under=["prlimit", "--nofile=1024:4096"])
    files = Path(f"/proc/{agent.process.pid}/fd")
    with ExitStack() as stack:
        for _ in range(2 * MAX_CONNECTIONS):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(agent.address.removeprefix("unix://"))
        assert len(list(files.iterdir())) < MAX_CONNECTIONS + 100

        def answers() -> bool:
            try:
                return bool(describe(agent).node)
            except grpc.RpcError:
                return False

        wait_until(answers, "an answer", 15)
