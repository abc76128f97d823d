"""An agent stays within the memory and the file descriptors that it is given."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from agent.limits import MIB, OWN_BYTES, RUN_BYTES
from agent.server import MAX_CONNECTIONS
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from tests.conftest import Agent, wait_until

LIMIT = 256 * MIB
RINGS = 12 * MIB  # of a run, both
FIT = (LIMIT - OWN_BYTES) // (RINGS + RUN_BYTES)


@pytest.fixture
def limited() -> Iterator[list[str]]:
    """A command that runs others under a memory limit, in version 1 or 2 of cgroups, whichever has the controller."""
    one = Path("/sys/fs/cgroup/memory")
    root, name = (one, "memory.limit_in_bytes") if one.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = root / f"gadget-test-{os.getpid()}"
    group.mkdir()
    (group / name).write_text(str(LIMIT))
    yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the end of the agent")
    group.rmdir()


def begin(stack: ExitStack, address: str) -> threading.Event:
    """A run, which ends when the event is set."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = stack.enter_context(grpc.insecure_channel(address, options=options))
    end = threading.Event()

    def requests() -> Iterator[pb.RunRequest]:
        yield pb.RunRequest(start=pb.Start(gadget="execsnoop"))
        end.wait()

    replies = rpc.AgentStub(channel).Run(requests())
    assert next(replies).HasField("started")
    stack.callback(list, replies)
    stack.callback(end.set)  # this is done first
    return end


def test_memory_of_runs(limited, start_agent) -> None:
    """Runs that do not fit into the agent's memory limit are refused in one line; the agent and its other runs go on."""
    agent: Agent = start_agent(under=limited)
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
        wait_until(lambda: len(describe(agent).runs) < FIT, "the end of the first")
        begin(stack, agent.address)


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
