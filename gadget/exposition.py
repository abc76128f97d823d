"""Serves numbers to Prometheus: everybody on the pod network may ask, so clients get a few threads and seconds.

Numbers are added up once a second for all of them, in each of a few forms.
"""

from __future__ import annotations

import threading
import time

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gadget.bounded_server import BoundedHandler, BoundedServer

PATH = "/metrics"
#: How old numbers may be that a client gets.
KNOWN_SECONDS = 1.0
#: Forms in which they are kept for so long; who wants another one gets plain text. A client can name any number.
MOST_FORMS = 4


class PageServer(BoundedServer):
    """Serves the numbers of a registry."""

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        most_clients: int,
        seconds: float,
        known_seconds: float = KNOWN_SECONDS,
    ) -> None:
        """Serve so many clients at once, each for so long. OSError if the address cannot be bound."""
        self._known_seconds = known_seconds
        super().__init__(address, _Handler, most=most_clients, most_of_one=most_clients, seconds=seconds)
        self.registry = registry
        self._page_lock = threading.Lock()
        self._pages: dict[str, bytes] = {}
        self._since = 0.0  # of the first of them

    def page(self, accept: str) -> tuple[bytes, str]:
        """The numbers as a client wishes them, and how that is called."""
        encode, kind = choose_encoder(accept)
        with self._page_lock:
            if time.monotonic() - self._since > self._known_seconds:
                self._pages = {}
            if kind not in self._pages and len(self._pages) >= MOST_FORMS:
                encode, kind = choose_encoder("")
            if kind not in self._pages:
                page = encode(self.registry)
                self._since = self._since if self._pages else time.monotonic()
                self._pages[kind] = page
            return self._pages[kind], kind


class _Handler(BoundedHandler):
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
