"""An HTTP server for strangers: their connections are bounded, and the newest connection is served first."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

#: A request's first line and its headers; http.client alone takes 100 lines of 64 KiB.
MOST_HEAD_BYTES = 64 << 10


@dataclass
class _Client:
    """A connection: its address, when it began, and whether it has proved that it may stay."""

    host: str
    since: float
    trusted: bool = False


class BoundedServer(ThreadingHTTPServer):
    """Serves a limited number of connections at once, in all and from one address. Each has a thread.

    A connection that is not trusted ends when a newer one needs its room, and when its time is over. So
    strangers who hold connections keep nobody out. Threads, which may wait for something else than their client, are at
    most twice as many.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], handler: type[BoundedHandler], *, most: int, most_of_one: int, seconds: float
    ) -> None:
        """Listen. seconds is how long a request may take to come until it is trusted. OSError if it cannot be."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._most, self._most_of_one, self._seconds = most, most_of_one, seconds
        self._clients: dict[Any, _Client] = {}  # the oldest first
        #: of those, and of connections that were ended: a thread may still wait for something else than its client
        self._threads_now = 0
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking a name server, as HTTPServer would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes away in the middle."""

    def connections(self, host: str) -> int:
        """How many connections an address has."""
        with self._lock:
            return sum(each.host == host for each in self._clients.values())

    def trust(self, request: Any) -> None:
        """Let a connection stay as long as it likes."""
        with self._lock:
            if client := self._clients.get(request):
                client.trusted = True

    def shutdown(self) -> None:
        """Take no more clients, at once: serve_forever would see that only when it looks next."""
        with suppress(OSError):  # not where a socket that listens cannot be shut
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        super().shutdown()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client, or turn it away."""
        host = client_address[0]
        with self._lock:
            if has_room := self._threads_now < 2 * self._most and self._make_room(host):
                self._clients[request] = _Client(host, time.monotonic())
                self._threads_now += 1
        if not has_room:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads may be made
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client; in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def service_actions(self) -> None:
        """End connections that nobody trusts and that take too long; serve_forever calls it twice a second."""
        with self._lock:
            old = time.monotonic() - self._seconds
            for request in [key for key, each in self._clients.items() if not each.trusted and each.since < old]:
                self._cut(request)

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
            self._threads_now -= 1

    def _make_room(self, host: str) -> bool:
        """Whether one more connection from an address may stay. If need be an older one is ended for it."""
        of_each = Counter(each.host for each in self._clients.values())
        if of_each[host] >= self._most_of_one:
            return self._cut_oldest({host})
        if len(self._clients) < self._most:
            return True
        strangers = Counter(each.host for each in self._clients.values() if not each.trusted)
        return self._cut_oldest({most for most, _ in strangers.most_common(1)})

    def _cut_oldest(self, hosts: set[str]) -> bool:
        for request, each in self._clients.items():
            if each.host in hosts and not each.trusted:
                self._cut(request)
                return True
        return False

    def _cut(self, request: Any) -> None:
        """End a connection: its thread, which waits for it, ends at once."""
        del self._clients[request]
        with suppress(OSError):  # it has gone already
            socket.socket.shutdown(request, socket.SHUT_RDWR)  # of TLS, too, without a word to the other end


class BoundedHandler(BaseHTTPRequestHandler):
    """Reads a request whose head is bounded, and logs nothing."""

    server: BoundedServer
    #: seconds for each piece of it, and for each piece of the answer
    timeout = 30.0

    def setup(self) -> None:
        """Read the head through a bound."""
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def trust(self) -> None:
        """Let this connection stay as long as it likes."""
        self.server.trust(self.request)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: whoever can reach the port could fill the log."""


class _Head:
    """A file that gives lines up to a bound in all; other reads are passed on."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MOST_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("header")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
