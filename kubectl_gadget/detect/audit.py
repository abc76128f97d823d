"""Where Kubernetes audit events come from: files, folders, standard input, or an API server's webhook."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gadget.errors import UsageError
from gadget.rules import audit

#: A batch of the API server has at most 400 events (--audit-webhook-batch-max-size), an event 1.5 MiB (etcd's limit).
MOST_BYTES = 12 << 20
#: Payloads that wait to be judged; what comes when so many wait is lost, and counted.
WAITING = 256
#: Clients that are served at once. An API server has one for each batch that it sends.
MOST_CLIENTS = 64
#: How often a file that is followed is looked at, and whether to end.
TICK_SECONDS = 0.2


class Counts:
    """How many events came, and what was not judged, by reason."""

    def __init__(self) -> None:
        self.events = 0
        self.lost: dict[str, int] = {}

    def lose(self, why: str) -> None:
        """Count something that was not judged."""
        self.lost[why] = self.lost.get(why, 0) + 1


Payloads = Iterator[bytes]


def events(payloads: Payloads, counts: Counts) -> Iterator[dict[str, Any]]:
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
            counts.lose("is no JSON")
            continue
        if counts.events == before:
            counts.lose("has no audit event")


def payloads(where: str, counts: Counts, *, follow: bool) -> Payloads:
    """Payloads of a place: a file, a folder, - or http://ADDRESS:PORT/PATH.

    Raises:
        UsageError: It is none of them.

    """
    if where == "-":
        return iter(sys.stdin.buffer)
    if where.startswith(("http://", "https://")):
        return _served(where, counts)
    path = Path(where)
    if path.is_dir():
        if follow:
            raise UsageError("a folder is read, and not followed: name the file that the API server writes to")
        return _of_folder(path)
    return _followed(path) if follow else _lines(path)


def _lines(path: Path) -> Payloads:
    with path.open("rb") as file:
        yield from file


def _of_folder(folder: Path) -> Payloads:
    for path in sorted((each for each in folder.iterdir() if each.is_file()), key=lambda each: each.stat().st_mtime_ns):
        yield from _lines(path)


def _followed(path: Path) -> Payloads:
    """Lines of a file, and those that are written to it from now on; also once another is in its place."""
    file = path.open("rb")
    rest = b""
    while True:
        rest += file.read(MOST_BYTES)
        *whole, rest = rest.split(b"\n")
        yield from whole
        if whole:
            continue
        time.sleep(TICK_SECONDS)
        with suppress(FileNotFoundError):  # between the old one and the next
            there, own = path.stat(), os.fstat(file.fileno())
            if there.st_ino != own.st_ino or there.st_dev != own.st_dev:
                if not (more := file.read(MOST_BYTES)):
                    file.close()
                    file = path.open("rb")
                rest += more
            elif there.st_size < file.tell():
                file.seek(0)
                rest = b""


def _served(url: str, counts: Counts) -> Payloads:
    """What is posted to a URL. It is answered before it is judged: the API server does not wait for rules."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise UsageError("only http:// is served: let a proxy end TLS")
    if not parts.port:
        raise UsageError(f"{url} has no port, as http://127.0.0.1:9765/k8s-audit")
    waiting: queue.Queue[bytes] = queue.Queue(WAITING)
    address = (parts.hostname or "", parts.port)
    with _Server(address, _handler(parts.path or "/", waiting, counts)) as server:
        threading.Thread(target=server.serve_forever, name="k8s-audit", daemon=True).start()
        try:
            while True:
                with suppress(queue.Empty):
                    yield waiting.get(timeout=TICK_SECONDS)
        finally:
            server.shutdown()


class _Server(ThreadingHTTPServer):
    """A server with so many threads at most."""

    daemon_threads = True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client, or turn it away."""
        if threading.active_count() > MOST_CLIENTS:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)


def _handler(path: str, waiting: queue.Queue[bytes], counts: Counts) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # of one who sends slowly; each has a thread of its own

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != path:
                self.send_error(404)
            elif "application/json" not in self.headers.get("Content-Type", ""):
                self.send_error(400, "wrong Content-Type")
            elif not length.isdecimal() or int(length) > MOST_BYTES:
                counts.lose("was too long")
                self.send_error(413)
            else:
                self._take(self.rfile.read(int(length)))

        def _take(self, body: bytes) -> None:
            try:
                waiting.put_nowait(body)
            except queue.Full:
                counts.lose("came too fast")
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
