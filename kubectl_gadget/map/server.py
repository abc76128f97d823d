"""Serves the page of the map, to whoever knows its address with the token, on this machine alone."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from hmac import compare_digest
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gadget.bounded_server import BoundedHandler, BoundedServer
from gadget.errors import GadgetError, UsageError
from kubectl_gadget.map.edges import Edges
from kubectl_gadget.output.encode import encode

HERE = "127.0.0.1"
#: Connections at a time, of which each has a thread, and how many of them may be pages that are told of changes.
MOST_CONNECTIONS, MOST_PAGES = 32, 8
#: How often pages are told what has changed.
PUSH_SECONDS = 1.0
#: A client that does not send its request in this time, or does not take what it is sent, is given up.
PATIENCE_SECONDS = 10.0
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

#: What is told of policies, for the page's tab, also anew; GadgetError if nothing can be.
Policies = Callable[..., dict[str, Any]]


class MapServer(BoundedServer):
    """Serves until it is closed. A context manager."""

    def __init__(
        self, port: int, page: str, policies: Policies | None = None, push_seconds: float = PUSH_SECONDS
    ) -> None:
        """Listen at a port, 0 for any. page is the document. UsageError if the port is taken."""
        try:
            super().__init__(
                (HERE, port), _Handler, most=MOST_CONNECTIONS, most_of_one=MOST_CONNECTIONS, seconds=PATIENCE_SECONDS
            )
        except OSError as error:
            raise UsageError(f"--port {port}: {error.strerror}") from None
        self.token = secrets.token_urlsafe(24)
        self.page = page.encode()
        self.policies, self.push_seconds = policies, push_seconds
        self.edges: Edges | None = None  # until the first agent has answered
        self.closed = threading.Event()
        self.pages = threading.BoundedSemaphore(MOST_PAGES)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HERE}:{self.server_port}/{self.token}/"

    def __enter__(self) -> MapServer:
        threading.Thread(target=self.serve_forever, name="map", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()


class _Handler(BoundedHandler):
    server: MapServer
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        """Answer whoever has the token and means this host; nobody else learns that anything is here."""
        asked = urlsplit(self.path)
        _, token, name = (*asked.path.split("/", 2), "", "")[:3]
        if not self._is_here() or not compare_digest(token.encode(), self.server.token.encode()):
            self.close_connection = True
            return
        self.trust()
        answer = {
            "": self._page,
            "events": self._events,
            "flows": self._flows,
            "alerts": self._alerts,
            "policies": self._policies,
        }.get(name)
        if answer is None:
            self._send(404, b"", "text/plain")
        else:
            answer(parse_qs(asked.query))

    def _is_here(self) -> bool:
        """Whether a browser was told this address, and not a name that somebody let it lead here (DNS rebinding)."""
        port = self.server.server_port
        return self.headers.get_all("Host") in ([f"{HERE}:{port}"], [f"localhost:{port}"])

    def _page(self, query: dict[str, list[str]]) -> None:
        self._send(200, self.server.page, "text/html; charset=utf-8")

    def _flows(self, query: dict[str, list[str]]) -> None:
        edges, number = self.server.edges, _number(query, "edge")
        self._send(200, encode(edges.flows(number) if edges else []), "application/json")

    def _alerts(self, query: dict[str, list[str]]) -> None:
        edges, number = self.server.edges, _number(query, "spot")
        self._send(200, encode(edges.alerts(number) if edges else []), "application/json")

    def _policies(self, query: dict[str, list[str]]) -> None:
        if self.server.policies is None:
            self._send(404, b"", "text/plain")
            return
        try:
            found = self.server.policies(anew=bool(query.get("anew")))
        except GadgetError as error:
            found = {"error": str(error)}
        self._send(200, encode(found), "application/json")

    def _events(self, query: dict[str, list[str]]) -> None:
        """Send all edges, then changes. A slow page gets changes less often, and nothing waits for it."""
        if not self.server.pages.acquire(blocking=False):
            self._send(503, b"", "text/plain")
            return
        try:
            self._begin(200, "text/event-stream")
            self._push(b'{"reset":true}')
            version = 0
            while not self.server.closed.is_set():
                if self.server.edges:
                    version, messages = self.server.edges.changes(version)
                    for message in messages:
                        self._push(encode(message))
                self.wfile.write(b":\n\n")  # so that one that is gone is noticed
                self.server.closed.wait(self.server.push_seconds)
        finally:
            self.server.pages.release()

    def _push(self, data: bytes) -> None:
        self.wfile.write(b"data: " + data + b"\n\n")

    def _send(self, code: int, data: bytes, kind: str) -> None:
        self._begin(code, kind, len(data))
        self.wfile.write(data)

    def _begin(self, code: int, kind: str, length: int | None = None) -> None:
        self.send_response_only(code)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer nothing to a request that is malformed or not GET."""
        self.close_connection = True


def _number(query: dict[str, list[str]], name: str) -> int:
    """A number that a page asks for; -1 if that is none."""
    text = query.get(name, [""])[0]
    return int(text) if text.isdecimal() and len(text) < 9 else -1
