"""Where Kubernetes audit events come from: files, folders, standard input, or an API server's webhook."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from gadget.errors import UsageError
from gadget.rules.webhook import MOST_BYTES, Tell, Webhook, WebhookCounts

#: How often a file that is followed is looked at, and whether to end.
TICK_SECONDS = 0.2
_GZIP = b"\x1f\x8b"


Payloads = Iterator[bytes]


def is_endless(places: Sequence[str], *, follow: bool) -> bool:
    """Whether places have no end of their own."""
    return follow or any(place.startswith(("http://", "https://")) for place in places)


def payloads(
    places: Sequence[str], counts: WebhookCounts, stop: threading.Event, *, follow: bool, tell: Tell
) -> Payloads:
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


def _followed(path: Path, counts: WebhookCounts, stop: threading.Event, tell: Tell) -> Payloads:
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


def _served(url: str, counts: WebhookCounts, stop: threading.Event, tell: Tell) -> Payloads:
    """Payloads posted to a URL. Each is answered before it is judged, so the API server does not wait for rules."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise UsageError("only http:// is served: let a proxy end TLS")
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from None
    if not port:
        raise UsageError(f"{url} has no port, as http://127.0.0.1:9765/k8s-audit")
    try:
        webhook = Webhook((parts.hostname or "", port), parts.path or "/", counts, tell)
    except OSError as error:
        raise UsageError(f"{url} cannot be served: {error.strerror or error}") from None
    with closing(webhook):
        tell(f"judging audit events that are sent to {url}; ends with Ctrl-C")
        while not stop.is_set():
            if (body := webhook.get(TICK_SECONDS)) is not None:
                yield body
    while (body := webhook.get(0)) is not None:  # those were answered
        yield body
