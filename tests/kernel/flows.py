"""What tests of the flow recorder share: flows as they compare, and traffic between two containers."""

from __future__ import annotations

import ctypes
import errno
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

from agent.bpf.objects import read_object
from agent.flows.recorder import FlowRecorder
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, wait_until
from tests.pods import UNIFIED, Container

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
#: So that a talk is over after a silence that a test can wait for; the recorder writes once a second.
SILENCE = {"unanswered_ns": 10**9}
SILENT_SECONDS = 1.3
OBJECT = read_object("flows")


class Seen(NamedTuple):
    """A flow without its times."""

    pod: str
    ingress: bool
    protocol: int
    peer: str
    port: int
    count: int
    failed: int


def ask(agent: Agent) -> list[pb.FlowsReply]:
    with connect(agent.address) as channel:
        return list(AgentStub(channel).Flows(pb.FlowsRequest()))


def plain(address: bytes) -> str:
    parsed = IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def read(agent: Agent) -> set[Seen]:
    """Flows of the pods of this test."""
    replies = ask(agent)
    names = {pod.uid: pod.name for pod in replies[0].pods if pod.namespace in ("shop", "web")}
    return {
        Seen(names[flow.uid], flow.ingress, flow.protocol, plain(flow.peer), flow.port, flow.count, flow.failed)
        for reply in replies
        for flow in reply.flows
        if flow.uid in names and not plain(flow.peer).startswith(("fe80:", "ff02:"))
    }


def seen_by(recorder: FlowRecorder) -> set[Seen]:
    """As read, of a recorder in this process."""
    names = {pod.uid: pod.name for pod in recorder.pods() if pod.namespace in ("shop", "web")}
    ingress = catalog.constants("flows", "direction")["DIRECTION_INGRESS"]
    return {
        Seen(names[uid], direction == ingress, protocol, plain(peer.ljust(16, b"\0")), port, count, failed)
        for uid, direction, protocol, peer, port, count, failed in zip(*columns(recorder), strict=True)
        if uid in names and not plain(peer.ljust(16, b"\0")).startswith(("fe80:", "ff02:"))
    }


def columns(recorder: FlowRecorder) -> list[list[Any]]:
    keys, flows, uids = recorder.read()
    found = [keys[name].tolist() for name in ("direction", "protocol")]
    peers = keys["peer"].astype("S16").tolist()
    return [uids, *found, peers, *(each.tolist() for each in (keys["port"], flows["count"], flows["failed"]))]


@contextmanager
def inside(container: Container) -> Iterator[None]:
    """This process in a container's network and cgroup: sockets that it makes now are that container's."""
    libc = ctypes.CDLL(None, use_errno=True)
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    (group,) = (line.removeprefix("0::") for line in groups if line.startswith("0::"))
    with open("/proc/self/ns/net") as own, open(f"/proc/{container.pid}/ns/net") as network:
        (UNIFIED / container.cgroup.lstrip("/") / "cgroup.procs").write_text("0")
        try:
            assert libc.setns(network.fileno(), 0) == 0
            yield
        finally:
            libc.setns(own.fileno(), 0)
            (UNIFIED / group.lstrip("/") / "cgroup.procs").write_text("0")


def datagrams(container: Container, address: str, port: int = 0) -> socket.socket:
    """A UDP socket in a container."""
    with inside(container):
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(10)
    return made


def send(source: socket.socket, target: socket.socket) -> None:
    """One datagram, and its arrival."""
    source.sendto(b"text", target.getsockname())
    assert target.recvfrom(100)[1] == source.getsockname()


def be_silent(seconds: float = SILENT_SECONDS) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + seconds, "the end of a silence")


def serve(container: Container, protocol: str, port: int) -> subprocess.Popen[bytes]:
    command = ["runc", "exec", container.id, "/talks", "serve", protocol, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


def talk(container: Container, how: str, protocol: str, address: str, port: int, times: int) -> None:
    container.exec("/talks", how, protocol, address, str(port), str(times))


def attempt(container: Container, ports: range) -> None:
    """Connect to each port of the other, where nobody listens."""
    with inside(container):
        for port in ports:
            with socket.socket() as client:
                assert client.connect_ex(("10.77.0.2", port)) == errno.ECONNREFUSED


def without_ipv6(*containers: Container) -> None:
    """No neighbours and multicast groups: nothing is seen but what a test does."""
    for each in containers:
        network = ["nsenter", f"--net=/proc/{each.pid}/ns/net"]
        subprocess.run([*network, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"], check=True)


def connection(cart: Container, web: Container, port: int) -> tuple[socket.socket, socket.socket]:
    """Of a client and a server that has closed its listener."""
    with inside(web), socket.create_server(("10.77.0.2", port)) as listener:
        listener.settimeout(10)
        with inside(cart):
            client = socket.create_connection(("10.77.0.2", port), 10)
        return client, listener.accept()[0]
