"""A way to an agent: a port of a pod, through the API server, as a Unix socket of this machine.

Each connection is one WebSocket of the subprotocol v4.channel.k8s.io. Its messages begin with a byte that says
whether they are data or an error; the first of either kind carries the port's number.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gadget.errors import Unreachable
from kubectl_gadget.cluster.api import ApiServer

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

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
        self._open: list[ClientConnection] = []
        self._first: tuple[ClientConnection, bytes] | None = self._connect()
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
        for way in [*self._open]:
            _cut(way)

    def _connect(self) -> tuple[ClientConnection, bytes]:
        """A WebSocket on which the agent has spoken, and what it said: a gRPC server speaks first."""
        from websockets.exceptions import ConnectionClosed

        way = self._api.open_websocket(self._where, PROTOCOL)
        self._open.append(way)
        named = set()
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            while True:
                message = _bytes(way.recv(max(0, deadline - time.monotonic())))
                channel, content = message[0], message[1:]
                if channel not in named:
                    named.add(channel)
                elif channel == ERROR:
                    raise Unreachable(content.decode(errors="replace").strip())
                else:
                    return way, content
        except TimeoutError:
            _cut(way)
            raise Unreachable("nothing answers at the agent's port") from None
        except (ConnectionClosed, OSError):
            raise Unreachable("the connection was closed before the agent answered") from None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), name="tunnel-connection", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                way, said = self._first or self._connect()
            except Exception:  # gRPC sees its connection closed, and tries again
                return
            self._first = None
            upwards = threading.Thread(target=_send, args=(client, way), name="tunnel-send", daemon=True)
            upwards.start()
            with suppress(Exception):  # either side has gone: so does the other
                client.sendall(said)
                for message in way:
                    if message[0] == ERROR:
                        break
                    client.sendall(memoryview(_bytes(message))[1:])
            _cut(way)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            upwards.join()


def _send(client: socket.socket, way: ClientConnection) -> None:
    with suppress(Exception):
        while data := client.recv(CHUNK):
            way.send(bytes([DATA]) + data)
    _cut(way)


def _bytes(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()


def _cut(way: ClientConnection) -> None:
    """Close without a word: what the agent should know it has been told by gRPC."""
    with suppress(OSError):
        way.socket.shutdown(socket.SHUT_RDWR)
