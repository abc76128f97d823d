"""How much goes through one port-forward to an agent; the API server is a process of its own on this machine."""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

from gadget.kube.api import ApiServer
from gadget.kube.portforward import Tunnel
from tests.bench import Plan, Result
from tests.tunnels import PORT, api_server

MEGABYTES = 256


def one_tunnel(plan: Plan) -> Result:
    """Through one port-forward, with TLS"""
    with api_server("flood") as api:
        return "MB/s", [_once(api) for _ in range(plan.rounds)]


def _once(api: ApiServer) -> float:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as client:
        path = Path(folder) / "tunnel"
        with Tunnel(api, "gadget", "gadget-x", PORT, path):
            client.connect(str(path))
            began, size = time.monotonic(), 0
            while size < MEGABYTES * 1_000_000:
                size += len(client.recv(1 << 20))
            return size / 1e6 / (time.monotonic() - began)
