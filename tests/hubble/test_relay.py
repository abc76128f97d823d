"""Hubble's own relay in front of `hubble serve`, of one and of two."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gadget._generated import observer_pb2, observer_pb2_grpc, peer_pb2, peer_pb2_grpc
from kubectl_gadget.hubble.server import HEALTH
from tests.conftest import Cli, wait_until
from tests.hubble.conftest import Hubble, rows
from tests.unit.hubble.served import Served, serving
from tests.unit.observe.flows import FLOWS


def _free() -> str:
    with closing(create_server(("127.0.0.1", 0))) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def relaying(binaries: Path, peers: str, count: int, log: Path, *tls: str) -> Iterator[str]:
    """A relay that has found so many nodes; gives its address."""
    address = _free()
    command = [str(binaries / "hubble-relay"), "serve", "--peer-service", peers, *(tls or ["--disable-client-tls"]),
               "--disable-server-tls", "--listen-address", address, "--health-listen-address", _free(),
               "--gops=false"]  # fmt: skip
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as relay:
        try:
            wait_until(lambda: _nodes(address) == (count, 0), "the relay and its nodes")
            yield address
        finally:
            relay.send_signal(signal.SIGINT)
            relay.wait(20)


def _nodes(address: str) -> tuple[int, int]:
    """How many nodes a relay has that are there, and that are not."""
    with grpc.insecure_channel(address) as channel:
        try:
            status = observer_pb2_grpc.ObserverStub(channel).ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5)
        except grpc.RpcError:
            return 0, 0
    return status.num_connected_nodes.value, status.num_unavailable_nodes.value


def _is_healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=HEALTH))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Peers(peer_pb2_grpc.PeerServicer):
    """Tells of nodes by their addresses."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self._nodes = nodes

    def Notify(self, request: Any, context: grpc.ServicerContext) -> Iterator[peer_pb2.ChangeNotification]:
        """Each, and then nothing until the client is gone."""
        for name, address in self._nodes.items():
            yield peer_pb2.ChangeNotification(name=name, address=address, type=peer_pb2.PEER_ADDED)
        over = threading.Event()
        context.add_callback(over.set)
        over.wait()


@contextmanager
def telling(nodes: dict[str, str]) -> Iterator[str]:
    """A server that tells of nodes; gives its address."""
    server = grpc.server(ThreadPoolExecutor(4))
    peer_pb2_grpc.add_PeerServicer_to_server(Peers(nodes), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_one(served: Served, hubble: Hubble, binaries: Path, tmp_path: Path) -> None:
    """hubble-relay finds us by our own Peer service, and answers as we do: flows, filters, status, nodes, namespaces."""
    with relaying(binaries, served.address, 1, tmp_path / "log") as address:
        for options in ("--last 99", "--first 3", "--last 2 --verdict ERROR", "--since 1h --namespace front"):
            asked = ("observe", "-o", "jsonpb", *options.split())
            found = [row for row in rows(hubble(*asked, "--server", address)) if "flow" in row]
            assert found == rows(hubble(*asked, "--server", served.address))
            assert found
        wait_until(lambda: _is_healthy(address), "its health")  # it looks every few seconds
        status = hubble("status", "--server", address)
        assert re.search(rf"Current/Max Flows: {2 * len(FLOWS)}/", status) and "Connected Nodes: 1/1" in status
        assert hubble("list", "namespaces", "--server", address).split()[1:] == ["data", "front", "shop"]
        assert len(json.loads(hubble("list", "nodes", "-o", "json", "--server", address))) == 1


def test_two(served: Served, hubble: Hubble, binaries: Path, tmp_path: Path, start_cli: Callable[..., Cli]) -> None:
    """hubble-relay in front of two of us merges the flows of both by time; the end of one leaves the other's."""
    with (
        serving(tmp_path, start_cli, ("node-c",)) as other,
        telling({"first": served.address, "second": other.address}) as peers,
        relaying(binaries, peers, 2, tmp_path / "log") as address,
    ):
        both = hubble("observe", "-o", "jsonpb", "--all", "--server", address)
        merged = [row for row in rows(both) if "flow" in row]
        assert len(merged) == 3 * len(FLOWS)
        assert {row["node_name"] for row in merged} == {"node-a", "node-b", "node-c"}
        assert [row["time"] for row in merged] == sorted(row["time"] for row in merged)
        other.cli.finish()
        wait_until(lambda: _nodes(address) == (1, 1), "the end of one")
        left = [row for row in rows(hubble("observe", "-o", "jsonpb", "--all", "--server", address)) if "flow" in row]
        assert len(left) == 2 * len(FLOWS)


def test_follow(served: Served, binaries: Path, tmp_path: Path) -> None:
    """Flows come through hubble-relay as they come."""
    told = tmp_path / "told"
    with relaying(binaries, served.address, 1, tmp_path / "log") as address:
        command = [str(binaries / "hubble"), "observe", "-f", "--last", "1", "-o", "jsonpb", "--server", address]
        with told.open("w") as out, subprocess.Popen(command, stdout=out) as client:
            wait_until(lambda: told.read_text().count('"flow"') == 1, "the last one")
            served.agent.more()
            wait_until(lambda: told.read_text().count('"flow"') == 1 + len(FLOWS), "those that come")
            client.send_signal(signal.SIGINT)
            client.wait(20)
