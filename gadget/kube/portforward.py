"""A way to an agent: a port of a pod, through the API server, as a Unix socket of this machine.

Each connection is one WebSocket of the subprotocol v4.channel.k8s.io. Its messages begin with a byte that says
whether they are data or an error; the first of either kind carries the port's number.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gadget.errors import Unreachable
from gadget.kube.api import ApiServer

if TYPE_CHECKING:
    from gadget.kube.websocket import WebSocket

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
ANSWER_SECONDS = 10.0
CHUNK = 1 << 16


class Tunnel:
    """A Unix socket whose connections lead to a port of a pod. A context manager."""

    def __init__(self, api: ApiServer, namespace: str, pod: str, port: int, path: Path) -> None:
        """Open the way, and listen at path. GadgetError if the server refuses or nothing answers at the port."""
        self._api = api
        self._where = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}"
        self._open: set[WebSocket] = set()
        self._first: tuple[WebSocket, bytes] | None = self._connect()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.address = f"unix://{path}"
        self._thread = threading.Thread(target=self._accept, name=f"tunnel-{pod}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        for way in list(self._open):
            _cut(way)

    def _connect(self) -> tuple[WebSocket, bytes]:
        """A WebSocket on which the agent has spoken, and what it said: a gRPC server speaks first."""
        way = self._api.open_websocket(self._where, PROTOCOL)
        self._open.add(way)
        try:
            return way, _hear(way)
        except BaseException:
            self._end(way)
            raise

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            first, self._first = self._first, None
            threading.Thread(target=self._serve, args=(client, first), name="tunnel-connection", daemon=True).start()

    def _serve(self, client: socket.socket, opened: tuple[WebSocket, bytes] | None) -> None:
        with client, suppress(Exception):  # either side has gone: gRPC sees its connection closed, and tries again
            way, said = opened or self._connect()
            try:
                client.sendall(said)
                _carry(client, way)
            finally:
                self._end(way)

    def _end(self, way: WebSocket) -> None:
        self._open.discard(way)
        way.socket.close()


def _hear(way: WebSocket) -> bytes:
    """The first bytes from an agent. Unreachable if none come."""
    named = set()
    deadline = time.monotonic() + ANSWER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            messages = way.receive(left)
        except (EOFError, OSError):
            raise Unreachable("the connection was closed before the agent answered") from None
        said = b""
        for message in messages:
            channel, content = int.from_bytes(message[:1]), message[1:]
            if channel not in named:
                named.add(channel)
            elif channel == ERROR:
                raise Unreachable(content.decode(errors="replace").strip())
            else:
                said += content
        if said:
            return said
    raise Unreachable("nothing answers at the agent's port")


def _carry(client: socket.socket, way: WebSocket) -> None:
    """Carry what comes from either side to the other, until one ends."""
    poll = select.poll()
    poll.register(client, select.POLLIN)
    poll.register(way.socket, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == client.fileno():
                if not (data := client.recv(CHUNK)):
                    return
                way.send(bytes([DATA]) + data)
                continue
            for message in way.receive():
                if message[:1] == bytes([ERROR]):
                    return
                client.sendall(memoryview(message)[1:])


def _cut(way: WebSocket) -> None:
    """Close at once, from another thread. gRPC has told the agent already what it needs to know."""
    with suppress(OSError):
        socket.socket.shutdown(way.socket, socket.SHUT_RDWR)  # SSLSocket's own takes TLS away from who reads now
