"""A way between two programs that can be cut as a network is."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable


class Cut(threading.Thread):
    """Passes on what comes until it is cut: then nothing passes, and neither side is told. A context manager."""

    def __init__(self, near: socket.socket, far: Callable[[], socket.socket], address: str) -> None:
        """Lead from the bound socket near, which clients know as address, to where far connects."""
        super().__init__(name="cut", daemon=True)
        self.address = address
        self.cut = threading.Event()
        self._listener = near
        self._far = far
        self._sockets: dict[socket.socket, socket.socket] = {}

    def __enter__(self) -> Cut:
        self._listener.listen()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut.set()
        self.join()
        for each in (*self._sockets, self._listener):
            each.close()

    def run(self) -> None:
        """Pass on what comes until it is cut."""
        while not self.cut.is_set():
            ready, _, _ = select.select([self._listener, *self._sockets], [], [], 0.02)
            for source in ready:
                if source is self._listener:
                    near, far = source.accept()[0], self._far()
                    self._sockets |= {near: far, far: near}
                elif source in self._sockets:  # else its other end has just hung up
                    self._pass(source)

    def _pass(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if data:
            self._sockets[source].sendall(data)
            return
        other = self._sockets.pop(source)
        del self._sockets[other]
        source.close()
        other.close()
