"""How much goes through one port-forward to an agent; the API server is a process of its own on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from websockets.sync.server import ServerConnection, serve

from kubectl_gadget.cluster.api import ApiServer
from kubectl_gadget.cluster.kubeconfig import Flags, read_context
from kubectl_gadget.cluster.portforward import CHUNK, PROTOCOL, Tunnel
from tests.bench import Plan, Result

MEGABYTES = 256
PORT = 7070


def flood(way: ServerConnection) -> None:
    """An agent that speaks first, as gRPC does, and then sends as much as it can, in messages of the tunnel's size."""
    for channel in (b"\0", b"\1"):
        way.send(channel + PORT.to_bytes(2, "little"))
    message = b"\0" + bytes(CHUNK)
    for _ in range(MEGABYTES * 1_000_000 // CHUNK):
        way.send(message)


def run_server() -> None:
    """Serve on a port that is printed, until standard input ends."""
    with serve(flood, "127.0.0.1", 0, subprotocols=[PROTOCOL], compression=None) as server:  # type: ignore[list-item]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.socket.getsockname()[1], flush=True)
        sys.stdin.read()


def one_tunnel(plan: Plan) -> Result:
    """Through one port-forward"""
    command = [sys.executable, "-c", "from tests.bench.tunnel import run_server; run_server()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        api = ApiServer(read_context(Flags(server=f"http://127.0.0.1:{server.stdout.readline().strip()}")))
        values = [_once(api) for _ in range(plan.rounds)]
        server.communicate("")
    return "MB/s", values


def _once(api: ApiServer) -> float:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as client:
        path = Path(folder) / "tunnel"
        with Tunnel(api, "gadget", "gadget-x", PORT, path):
            client.connect(str(path))
            began, size = time.monotonic(), 0
            while size < (MEGABYTES - 1) * 1_000_000:
                size += len(client.recv(1 << 20))
            return size / 1e6 / (time.monotonic() - began)
