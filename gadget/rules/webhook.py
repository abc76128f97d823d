"""The webhook to which an API server sends audit events, and those events. A batch is answered before it is judged."""

from __future__ import annotations

import hmac
import queue
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from gadget.bounded_server import BoundedHandler, BoundedServer
from gadget.rules import audit

#: A batch of the API server has at most 400 events (--audit-webhook-batch-max-size), an event 1.5 MiB (etcd's limit).
MOST_BYTES = 12 << 20
#: Bytes of payloads that come or wait to be judged; what comes beside so many is refused, and counted. One has more.
WAITING_BYTES, _OVERHEAD_BYTES = 64 << 20, 1024
#: Clients that are served at once, and those of one address. An API server has one for each batch that it sends.
MOST_CLIENTS, MOST_OF_ONE = 64, 16
#: How long a request may take that has shown no token, also byte by byte.
MOST_SECONDS = 30.0
#: Why strangers are refused, who take nothing from anybody.
NO_TOKEN = "requests had not the token"

Tell = Callable[[str], None]


class WebhookCounts:
    """Counts events, and what was not judged, by reason."""

    def __init__(self) -> None:
        self.events = 0
        self.lost: dict[str, int] = {}
        self._lock = threading.Lock()

    def lose(self, why: str) -> bool:
        """Count something that was not judged; gives whether it is the first of its kind."""
        with self._lock:
            self.lost[why] = self.lost.get(why, 0) + 1
            return self.lost[why] == 1


def events(payloads: Iterable[bytes], counts: WebhookCounts) -> Iterator[dict[str, Any]]:
    """The audit events of payloads."""
    for payload in payloads:
        if not payload.strip():
            continue
        before = counts.events
        try:
            for event in audit.events(payload):
                counts.events += 1
                yield event
        except ValueError:
            counts.lose("lines or requests were not JSON")
            continue
        if counts.events == before:
            counts.lose("lines or requests had no audit event")


class Webhook:
    """Takes what is posted to a path until it is closed. With a token it takes that of nobody else.

    get may be called all the time, also once it is closed: what was answered then is still there.
    """

    def __init__(
        self,
        address: tuple[str, int],
        path: str,
        counts: WebhookCounts,
        tell: Tell,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        most: int = MOST_CLIENTS,
        most_of_one: int = MOST_OF_ONE,
    ) -> None:
        """Begin to serve. OSError if the address cannot be had."""
        #: bytes of payloads that come or wait at most
        self.waiting_bytes = WAITING_BYTES
        self._queue: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
        self._bytes, self._lock = 0, threading.Lock()
        self._server = _Server(address, _handler(path, self, counts, tell, token), tls, most, most_of_one)
        self._thread = threading.Thread(target=self._server.serve_forever, name="k8s-audit", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it has."""
        return int(self._server.server_address[1])

    @property
    def is_alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def reserve(self, length: int) -> bool:
        """Whether there is room for a payload of that length, which is put then."""
        with self._lock:
            if self._bytes + length > self.waiting_bytes:
                return False
            self._bytes += length + _OVERHEAD_BYTES
        return True

    def put(self, body: bytes | None, length: int) -> None:
        """Queue a payload whose length was reserved; None if it did not arrive whole."""
        if body is None:
            self._free(length)
        else:
            self._queue.put((body, length))

    def get(self, seconds: float) -> bytes | None:
        """The next payload, if it comes in time."""
        try:
            body, length = self._queue.get(timeout=seconds) if seconds else self._queue.get_nowait()
        except queue.Empty:
            return None
        self._free(length)
        return body

    def _free(self, length: int) -> None:
        with self._lock:
            self._bytes -= length + _OVERHEAD_BYTES

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(BoundedServer):
    """Speaks TLS if it is to."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BoundedHandler],
        tls: ssl.SSLContext | None,
        most: int,
        most_of_one: int,
    ) -> None:
        self._tls = tls
        super().__init__(address, handler, most=most, most_of_one=most_of_one, seconds=MOST_SECONDS)

    def get_request(self) -> tuple[Any, Any]:
        """The next connection. Hands are shaken in its own thread: who does not holds up nobody else."""
        connection, address = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


def _handler(path: str, webhook: Webhook, counts: WebhookCounts, tell: Tell, token: str) -> type[BoundedHandler]:
    class Handler(BoundedHandler):
        def do_GET(self) -> None:
            self._answer(200, f"audit events are posted to {path}\n".encode())

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            asked = urlsplit(self.path).path  # the API server adds ?timeout=30s
            said = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if token and not hmac.compare_digest(said, f"Bearer {token}".encode()):
                self._refuse(401, NO_TOKEN, f"one from {self.client_address[0]}")
            elif asked.rstrip("/") != path.rstrip("/"):
                self._refuse(404, f"requests were for other paths than {path}", f"one for {asked}")
            elif "application/json" not in self.headers.get("Content-Type", ""):
                self._refuse(400, "requests were not of Content-Type application/json", self.headers["Content-Type"])
            elif not re.fullmatch("[0-9]{1,9}", length):
                self._refuse(411, "requests had no Content-Length", length[:20] or self.headers["Transfer-Encoding"])
            elif int(length) > MOST_BYTES:
                self._refuse(413, "requests were too long", f"Content-Length {length}")
            elif not webhook.reserve(int(length)):
                self._refuse(503, "requests came too fast", f"{WAITING_BYTES >> 20} MiB wait")
            else:
                if token:
                    self.trust()
                self._take(int(length))

        def _refuse(self, status: int, why: str, what: str | None) -> None:
            self.close_connection = True
            if counts.lose(why):
                tell(f"warning: {why}: {what}")
            self._answer(status, f"{why}\n".encode())

        def _take(self, length: int) -> None:
            body = None
            try:
                body = self.rfile.read(length)
            finally:
                webhook.put(body, length)
            self._answer(200, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(body)

    return Handler
