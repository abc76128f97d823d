"""The flow recorder of an agent: who talked to whom, whatever happened to agents and pods."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, wait_until
from tests.kernel.flows import (
    TCP,
    UDP,
    Seen,
    ask,
    read,
    serve,
    talk,
)
from tests.loaded import bpf_programs, pinned_programs, programs_of


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents that record flows in a bpffs of their own."""
    return lambda *args: start_agent(
        "--traceloop", "off", "--bpffs", str(bpffs), "--state", str(tmp_path / "state"), *args
    )


def test_exact(record, pair) -> None:
    """Every connection and every talk over UDP is there, of both sides, with its direction and the server's port."""
    agent = record()
    cart, web = pair
    servers = [serve(web, "tcp", 8080), serve(web, "udp", 5353), serve(web, "udp", 514)]
    talk(cart, "ask", "tcp", "10.77.0.2", 8080, 7)
    talk(cart, "ask", "tcp", "fd77::2", 8080, 11)
    talk(cart, "ask", "tcp", "10.77.0.2", 8081, 3)
    talk(cart, "ask", "udp", "10.77.0.2", 5353, 5)
    talk(cart, "ask", "udp", "fd77::2", 5353, 13)
    talk(cart, "tell", "udp", "10.77.0.2", 514, 17)
    talk(web, "ask", "tcp", "127.0.0.1", 8080, 2)
    assert read(agent) == {
        Seen("cart-0", False, TCP, "10.77.0.2", 8080, 7, 0),
        Seen("cart-0", False, TCP, "fd77::2", 8080, 11, 0),
        Seen("cart-0", False, TCP, "10.77.0.2", 8081, 3, 3),
        Seen("cart-0", False, UDP, "10.77.0.2", 5353, 5, 0),
        Seen("cart-0", False, UDP, "fd77::2", 5353, 13, 0),
        Seen("cart-0", False, UDP, "10.77.0.2", 514, 17, 0),
        Seen("web-0", True, TCP, "10.77.0.1", 8080, 7, 0),
        Seen("web-0", True, TCP, "fd77::1", 8080, 11, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 5353, 5, 0),
        Seen("web-0", True, UDP, "fd77::1", 5353, 13, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 514, 17, 0),
    }
    for server in servers:
        server.kill()
        server.wait()


def test_agent_killed(record, pair, tmp_path: Path) -> None:
    """While the agent is dead recording goes on, and the next knows the flows, and the names of pods that are gone."""
    agent = record()
    cart, _ = pair
    talk(cart, "ask", "tcp", "10.77.0.2", 8080, 3)
    wait_until(lambda: len(ask(agent)[0].pods) >= 2, "the pods")
    began = ask(agent)[0].head.began_ns
    saved = tmp_path / "state" / "flows" / "pods.json"
    wait_until(lambda: saved.exists() and "cart-0" in saved.read_text(), "the saved names")
    for _ in range(3):
        agent.stop(signal.SIGKILL)
        talk(cart, "ask", "tcp", "10.77.0.2", 8080, 5)
        agent = record()
    cart.delete()
    agent.stop(signal.SIGKILL)
    agent = record()
    assert read(agent) == {Seen("cart-0", False, TCP, "10.77.0.2", 8080, 18, 18)}
    replies = ask(agent)
    assert replies[0].head.began_ns == began
    (pod,) = (pod for pod in replies[0].pods if pod.name == "cart-0")
    assert pod.last_ns > pod.first_ns > 0
    assert list(pod.addresses) == ["10.77.0.1", "fd77::1"]


def test_older_connections(record, pair) -> None:
    """Connections that there were before the agent are found, with their direction, and marked."""
    cart, web = pair
    server = serve(web, "tcp", 8080)
    command = ["runc", "exec", cart.id, "/bin/sh", "-c", "(echo ready >&2; sleep 60) | busybox nc 10.77.0.2 8080"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        try:
            assert client.stderr and client.stderr.readline() == b"ready\n"
            established = Path(f"/proc/{cart.pid}/net/tcp")
            wait_until(lambda: " 01 " in established.read_text(), "the connection")
            agent = record()
            assert read(agent) == {
                Seen("cart-0", False, TCP, "10.77.0.2", 8080, 1, 0),
                Seen("web-0", True, TCP, "10.77.0.1", 8080, 1, 0),
            }
            assert all(flow.older == 1 for reply in ask(agent) for flow in reply.flows if flow.port == 8080)
        finally:
            cart.delete()
            server.kill()
            server.wait()


def test_full_table(record, pair) -> None:
    """A table that is full loses nothing silently: what is in it and what is told as lost is all that happened."""
    agent = record("--flows-limit", "64")
    cart, _ = pair
    script = "p=9000; while [ $p -lt 9100 ]; do /talks tell tcp 10.77.0.2 $p 1; p=$((p+1)); done"
    cart.exec("/bin/sh", "-c", script)

    def told() -> int:
        replies = ask(agent)
        flows: list[Any] = [flow for reply in replies for flow in reply.flows if 9000 <= flow.port < 9100]
        others = sum(not 9000 <= flow.port < 9100 for reply in replies for flow in reply.flows)
        return len(flows) + sum(loss.count for loss in replies[0].head.losses) + others

    assert told() >= 100
    assert told() - 100 < 20  # neighbour discovery and the like of the machine's other pods


def test_removed(record, pair, bpffs, tmp_path: Path) -> None:
    """When agents are removed from a cluster nothing of the flow recorder stays: no program, no map, no file."""
    agent = record()
    programs = programs_of(agent.process.pid) | pinned_programs(bpffs)
    with connect(agent.address) as channel:
        AgentStub(channel).End(pb.EndRequest())
    assert not (tmp_path / "bpf/gadget").exists()
    agent.stop()
    assert not (tmp_path / "state/flows").exists()
    wait_until(lambda: not programs & bpf_programs(), "the end of the programs")


def test_off(record, start_agent, bpffs: Path) -> None:
    """After a restart with --no-flows nobody's connections are recorded any more, and nothing is pinned."""
    record().stop()
    recording = pinned_programs(bpffs)
    assert len(recording) == 3
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows").stop()
    assert not (bpffs / "gadget").exists()
    wait_until(lambda: not recording & bpf_programs(), "the end of the programs")
