"""Serves numbers to Prometheus: everybody on the pod network may ask, so clients get a few threads and seconds.

Numbers are added up once a second for all of them, in each of a few forms.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

PATH = "/metrics"
#: How old numbers may be that a client gets.
KNOWN_SECONDS = 1.0
#: Forms in which they are kept for so long; who wants another one gets plain text. A client can name any number.
MOST_FORMS = 4
#: How long a client waits for one of the few threads.
LOOK_SECONDS = 0.5


class PageServer(HTTPServer):
    """Gives each client a thread, while there are some left; others wait in the kernel's queue, or are sent away."""

    request_queue_size = 16

    def __init__(
        self, address: tuple[str, int], registry: CollectorRegistry, most_clients: int, seconds: float
    ) -> None:
        """Serve so many clients at once, each for so long. OSError if the address cannot be bound."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.registry, self._seconds = registry, seconds
        self._slots = threading.BoundedSemaphore(most_clients)
        self._lock = threading.Lock()
        self._pages: dict[str, bytes] = {}
        self._since = 0.0  # of the first of them

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own."""
        if not self._slots.acquire(timeout=LOOK_SECONDS):
            self.shutdown_request(request)
            return
        deadline = threading.Timer(self._seconds, _cut, (request,))
        deadline.daemon = True

        def serve() -> None:
            try:
                deadline.start()
                self.finish_request(request, client_address)
            except OSError:  # it went away, or took too long
                pass
            finally:
                deadline.cancel()
                self._slots.release()
                self.shutdown_request(request)

        try:
            threading.Thread(target=serve, name="metrics-client", daemon=True).start()
        except RuntimeError:  # no more threads may be made
            self._slots.release()
            self.shutdown_request(request)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The numbers as a client wishes them, and how that is called."""
        encode, kind = choose_encoder(accept)
        with self._lock:
            if time.monotonic() - self._since > KNOWN_SECONDS:
                self._pages = {}
            if kind not in self._pages and len(self._pages) >= MOST_FORMS:
                encode, kind = choose_encoder("")
            if kind not in self._pages:
                page = encode(self.registry)
                self._since = self._since if self._pages else time.monotonic()
                self._pages[kind] = page
            return self._pages[kind], kind


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes."""

    server: PageServer
    server_version, sys_version = "kubectl-gadget", ""

    def do_GET(self) -> None:
        """The numbers; nothing else is here."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        page, kind = self.server.page(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        """Say nothing: whoever can reach the port could fill the log."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
