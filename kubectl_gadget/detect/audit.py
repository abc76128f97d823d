"""Where Kubernetes audit events come from: files, folders, standard input, or an API server's webhook."""

from __future__ import annotations

import gzip
import os
import queue
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from gadget.errors import UsageError
from gadget.rules import audit

#: A batch of the API server has at most 400 events (--audit-webhook-batch-max-size), an event 1.5 MiB (etcd's limit).
MOST_BYTES = 12 << 20
#: Bytes of payloads that wait to be judged; what comes when so many wait is refused, and counted.
WAITING_BYTES = 64 << 20
#: Clients that are served at once. An API server has one for each batch that it sends.
MOST_CLIENTS = 64
#: How often a file that is followed is looked at, and whether to end.
TICK_SECONDS = 0.2
_GZIP = b"\x1f\x8b"


class Counts:
    """How many events came, and what was not judged, by reason."""

    def __init__(self) -> None:
        self.events = 0
        self.lost: dict[str, int] = {}
        self._lock = threading.Lock()

    def lose(self, why: str) -> bool:
        """Count something that was not judged; gives whether it is the first of its kind."""
        with self._lock:
            self.lost[why] = self.lost.get(why, 0) + 1
            return self.lost[why] == 1


Payloads = Iterator[bytes]
Tell = Callable[[str], None]


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
            counts.lose("lines or requests were not JSON")
            continue
        if counts.events == before:
            counts.lose("lines or requests had no audit event")


def is_endless(places: Sequence[str], *, follow: bool) -> bool:
    """Whether places have no end of their own."""
    return follow or any(place.startswith(("http://", "https://")) for place in places)


def payloads(places: Sequence[str], counts: Counts, stop: threading.Event, *, follow: bool, tell: Tell) -> Payloads:
    """Payloads of places: files, folders, - or one http://ADDRESS:PORT/PATH. stop ends what has no end of its own.

    Raises:
        UsageError: One is none of them, or what has no end is not alone.

    """
    if is_endless(places, follow=follow) and len(places) > 1:
        raise UsageError("what has no end is the only --k8s-audit")
    for place in places:
        if place.startswith(("http://", "https://")):
            yield from _served(place, counts, stop, tell)
        elif place == "-":
            if sys.stdin.isatty():
                tell("reading audit events from the terminal; ends with Ctrl-D")
            yield from sys.stdin.buffer
        elif Path(place).is_dir():
            if follow:
                raise UsageError("a folder is read, and not followed: name the file that the API server writes to")
            yield from _of_folder(Path(place))
        else:
            yield from _followed(Path(place), counts, stop, tell) if follow else _lines(Path(place))


def _lines(path: Path) -> Payloads:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        try:
            yield from cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        except (EOFError, gzip.BadGzipFile) as error:
            raise UsageError(f"{path} is damaged: {error}") from None


def _of_folder(folder: Path) -> Payloads:
    for path in sorted((each for each in folder.iterdir() if each.is_file()), key=lambda each: each.stat().st_mtime_ns):
        yield from _lines(path)


def _followed(path: Path, counts: Counts, stop: threading.Event, tell: Tell) -> Payloads:
    """Lines of a file, and those that are written to it from now on; also once another is in its place."""
    file = path.open("rb")
    tell(f"judging audit events of {path}; ends with Ctrl-C")
    rest = b""
    while not stop.is_set():
        rest += file.read(MOST_BYTES)
        *whole, rest = rest.split(b"\n")
        yield from whole
        if len(rest) > MOST_BYTES:  # no event has such a line
            rest = b""
            counts.lose("lines were too long")
        if whole:
            continue
        stop.wait(TICK_SECONDS)
        with suppress(FileNotFoundError):  # between the old one and the next
            there, own = path.stat(), os.fstat(file.fileno())
            if there.st_ino != own.st_ino or there.st_dev != own.st_dev:
                if more := file.read(MOST_BYTES):
                    rest += more
                else:
                    yield rest  # the last line of the old one had no end
                    file.close()
                    file, rest = path.open("rb"), b""
            elif there.st_size < file.tell():
                file.seek(0)
                rest = b""


def _served(url: str, counts: Counts, stop: threading.Event, tell: Tell) -> Payloads:
    """What is posted to a URL. It is answered before it is judged: the API server does not wait for rules."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise UsageError("only http:// is served: let a proxy end TLS")
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from None
    if not port:
        raise UsageError(f"{url} has no port, as http://127.0.0.1:9765/k8s-audit")
    waiting = _Waiting()
    try:
        server = _Server((parts.hostname or "", port), _handler(parts.path or "/", waiting, counts, tell))
    except OSError as error:
        raise UsageError(f"{url} cannot be served: {error.strerror or error}") from None
    with server:
        threading.Thread(target=server.serve_forever, name="k8s-audit", daemon=True).start()
        tell(f"judging audit events that are sent to {url}; ends with Ctrl-C")
        while not stop.is_set():
            if (body := waiting.get(TICK_SECONDS)) is not None:
                yield body
        server.shutdown()
        while (body := waiting.get(0)) is not None:  # those were answered
            yield body


class _Waiting:
    """Payloads that wait to be judged, with a bound on their bytes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._bytes, self._lock = 0, threading.Lock()

    def put(self, body: bytes) -> bool:
        """Hand one in; gives whether there was room."""
        with self._lock:
            if self._bytes + len(body) > WAITING_BYTES:
                return False
            self._bytes += len(body) + 1024
        self._queue.put(body)
        return True

    def get(self, seconds: float) -> bytes | None:
        """The next one, if it comes in time."""
        try:
            body = self._queue.get(timeout=seconds) if seconds else self._queue.get_nowait()
        except queue.Empty:
            return None
        with self._lock:
            self._bytes -= len(body) + 1024
        return body


class _Server(ThreadingHTTPServer):
    """A server with so many threads at most."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client, or turn it away."""
        if threading.active_count() > MOST_CLIENTS:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)


def _handler(path: str, waiting: _Waiting, counts: Counts, tell: Tell) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # of one who sends slowly; each has a thread of its own

        def do_GET(self) -> None:
            self._answer(200, f"audit events are posted to {path}\n".encode())

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            asked = urlsplit(self.path).path  # the API server adds ?timeout=30s
            if asked.rstrip("/") != path.rstrip("/"):
                self._refuse(404, f"requests were for other paths than {path}", f"one for {asked}")
            elif "application/json" not in self.headers.get("Content-Type", ""):
                self._refuse(400, "requests were not of Content-Type application/json", self.headers["Content-Type"])
            elif not re.fullmatch("[0-9]{1,9}", length):
                self._refuse(411, "requests had no Content-Length", length[:20] or self.headers["Transfer-Encoding"])
            elif int(length) > MOST_BYTES:
                self._refuse(413, "requests were too long", f"Content-Length {length}")
            else:
                self._take(self.rfile.read(int(length)))

        def _refuse(self, status: int, why: str, what: str | None) -> None:
            self.close_connection = True
            if counts.lose(why):
                tell(f"warning: {why}: {what}")
            self._answer(status, f"{why}\n".encode())

        def _take(self, body: bytes) -> None:
            if waiting.put(body):
                self._answer(200, b"")
            else:
                self._refuse(503, "requests came too fast", f"{WAITING_BYTES >> 20} MiB wait")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
