"""Sends alerts to places: a file, a webhook, a program, syslog, Slack, an OTLP collector.

Each channel has a queue and a thread of its own, so that one that is stuck never delays another. What a full queue does
not take is lost, and counted.
"""

from __future__ import annotations

import http.client
import os
import queue
import re
import shlex
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from gadget import __version__
from gadget.errors import UsageError
from gadget.kube.api import ApiServer
from gadget.rules.alerts import Alert, dumps
from gadget.rules.events import KubernetesEvents, Refused
from gadget.rules.files import PRIORITIES
from gadget.text import escape

#: Severity numbers of OTLP's logs data model, from Emergency to Debug, as its appendix has those of syslog.
_SEVERITIES = (21, 19, 18, 17, 13, 10, 9, 5)
#: Letters of an alert in a chat, each up to five when escaped: Mattermost takes 16,383, and begins a second message,
#: outside of the block, with what is behind them.
_LONGEST_SAID = 3000
#: How much of a receiver's answer is read.
_READ = 1 << 16
_USER = 1  # syslog's facility LOG_USER, as Falco's
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class SendPatience:
    """How long channels wait, in seconds: for an answer, before the next attempt (doubled each time), at the end."""

    answer: float = 10.0
    first_pause: float = 0.25
    last_pause: float = 30.0
    drain: float = 5.0
    alerts: int = 10_000
    """How many may wait for a channel; each has about 1 KiB."""


@dataclass(frozen=True)
class SentCounts:
    """How many of a channel's alerts were sent and lost."""

    name: str
    sent: int
    lost: int
    why: str
    """Why the last one was lost, or had to be sent again."""


class Channel:
    """A queue of alerts, and the thread that gives them away one after the other."""

    def __init__(
        self,
        name: str,
        send: Callable[[Alert], None],
        patience: SendPatience,
        tell: Callable[[str], None],
        close: Callable[[], None],
    ) -> None:
        """Send gives an alert away: OSError if it has to be sent again, any other error if that makes no sense.

        tell is told in a line when the receiver begins to fail, and when it takes alerts again.
        """
        self.name, self._send, self._close, self._patience, self._tell = name, send, close, patience, tell
        self._queue: queue.Queue[Alert | None] = queue.Queue(patience.alerts)
        self._handed, self._sent, self._lost, self._why = 0, 0, 0, ""
        self._fails = self._is_over = False
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"channel-{name}"[:60], daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> None:
        """Queue an alert. It is lost if too many wait."""
        self._handed += 1
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self._lose("the receiver is too slow")

    def end(self, deadline: float) -> None:
        """Send what waits, until a time of time.monotonic()."""
        self._deadline = deadline
        self._ends.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)

    def join(self) -> SentCounts:
        """Wait for the thread's end. Alerts that are not sent by then are lost."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + 0.2)
        with self._lock:
            self._is_over = True  # what the thread does from now on is not counted
            if left := self._handed - self._sent - self._lost:
                self._lost += left
                self._why = self._why or "the receiver does not answer"
        return SentCounts(self.name, self._sent, self._lost, self._why)

    def _run(self) -> None:
        while not (self._ends.is_set() and self._queue.empty()):
            alert = self._queue.get()
            if alert is not None:
                self._give(alert)
        with suppress(OSError):
            self._close()

    def _give(self, alert: Alert) -> None:
        pause = self._patience.first_pause
        while True:
            try:
                self._send(alert)
            except OSError as error:
                self._why = error.strerror or str(error) or type(error).__name__
                self._note(fails=True)
            except Exception as error:  # of one alert, whatever it is: the next may be better
                self._lose(str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}")
                return
            else:
                with self._lock:
                    self._sent += not self._is_over
                self._note(fails=False)
                return
            if time.monotonic() + pause > self._deadline:
                self._lose(self._why)
                return
            if self._ends.is_set():
                time.sleep(pause)
            else:
                self._ends.wait(pause)  # at the end there is less time
            pause = min(2 * pause, self._patience.last_pause)

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost += not self._is_over
            self._why = why
        self._note(fails=True)

    def _note(self, *, fails: bool) -> None:
        """Tell where that changes, until the end, which tells all."""
        if fails != self._fails and not self._ends.is_set():
            self._tell(f"warning: {self.name} fails: {self._why}" if fails else f"{self.name} takes alerts again")
        self._fails = fails


class Channels:
    """All channels."""

    def __init__(self, channels: Iterable[Channel], drain: float) -> None:
        """drain: how many seconds they have at the end for what waits."""
        self._channels, self._drain = list(channels), drain

    def patience(self, *, endless: bool) -> float:
        """How long they can wait for what shows alerts beside them: of what has an end nothing is late."""
        return 0.0 if endless else self._drain if self._channels else float("inf")

    def put(self, alert: Alert) -> None:
        """Queue an alert in every channel."""
        for channel in self._channels:
            channel.put(alert)

    def end(self) -> list[SentCounts]:
        """Give away what waits, for a while at most; tells what became of all."""
        deadline = time.monotonic() + self._drain
        for channel in self._channels:
            channel.end(deadline)
        return [channel.join() for channel in self._channels]


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the authority that receivers are checked against, and our own certificate and key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For connections to receivers.

        Raises:
            UsageError: A file is no certificate or key.

        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"no TLS with {self.ca or self.certificate}: {error.strerror or error}") from None
        return context


#: The place that is an API server.
EVENTS = "events"
KINDS = "file:PATH, http(s)://HOST/PATH, slack:URL, otlp:URL, program:COMMAND, syslog or syslog:HOST:PORT, events"


def make(
    where: str,
    hostname: str,
    tls: Tls,
    patience: SendPatience,
    tell: Callable[[str], None],
    api: Callable[[], ApiServer] | None = None,
) -> Channel:
    """The channel of a place. tell is told where it fails; api gives the API server, where there may be one.

    Raises:
        UsageError: There is no such kind of place.

    """
    kind, _, rest = where.partition(":")
    if kind == "file" and rest:
        file = _File(Path(rest))
        return Channel(where, lambda alert: file.write(alert.json(hostname) + b"\n"), patience, tell, file.close)
    if kind == "program" and rest:
        program = _Program(rest, patience.answer)
        return Channel(where, lambda alert: program.write(alert.json(hostname) + b"\n"), patience, tell, program.close)
    if kind == "syslog":
        log = _Syslog(rest, patience.answer)
        return Channel(where, log.send, patience, tell, log.close)
    if where == EVENTS and api:
        return Channel(where, KubernetesEvents(api()).send, patience, tell, lambda: None)
    bodies: dict[str, Callable[[Alert], bytes]] = {
        "http": lambda alert: alert.json(hostname),
        "https": lambda alert: alert.json(hostname),
        "slack": _slack,
        "otlp": lambda alert: _otlp(alert, hostname),
    }
    url = where if kind in ("http", "https") else rest
    if kind in bodies and url.startswith(("http://", "https://")):
        body, hook = bodies[kind], _Webhook(url, tls, "/v1/logs" if kind == "otlp" else "/", patience.answer)
        return Channel(_without_secret(where), lambda alert: hook.post(body(alert)), patience, tell, hook.close)
    raise UsageError(f"{where!r} is no place for alerts; there are {KINDS}")


def _without_secret(where: str) -> str:
    """A place without its secrets, to be shown: paths and queries of webhooks are secret."""
    head, slashes, rest = where.partition("://")
    return f"{head}{slashes}{re.split('[/?#]', rest)[0].rpartition('@')[2]}"


#: Grows with each SIGUSR1: whoever rotates files sends that.
_rotations = 0


def _rotated(*_: Any) -> None:
    global _rotations
    _rotations += 1


class _File:
    """A file that is appended to, line by line, and opened anew on SIGUSR1."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, _rotations
        self._file = _appended(path)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, _rotated)

    def write(self, line: bytes) -> None:
        if self._seen != _rotations:
            seen, newer = _rotations, _appended(self._path)
            self._file.close()
            self._file, self._seen = newer, seen
        end = os.fstat(self._file.fileno()).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            if len(rest) < len(line):  # no half a line: the whole comes again
                with suppress(OSError):
                    self._file.truncate(end)
            raise

    def close(self) -> None:
        self._file.close()


def _appended(path: Path) -> FileIO:
    """A file to be appended to. A FIFO that nobody reads is an error, where opening it would wait for a reader."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    os.set_blocking(fd, True)
    return FileIO(fd, "ab")


class _Program:
    """A program that gets a line for each alert; one that has ended is started again."""

    def __init__(self, command: str, patience: float) -> None:
        self._patience = patience
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"program:{command}: {error}") from None
        if not self._command:
            raise UsageError("program: has no command")
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, line: bytes) -> None:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, bufsize=0)
        assert self._process.stdin
        rest = memoryview(line)
        while rest:  # a signal cuts a write short
            rest = rest[self._process.stdin.write(rest) :]

    def close(self) -> None:
        if self._process:
            assert self._process.stdin
            with suppress(OSError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._patience)


class _Syslog:
    """The log daemon of this machine, or of another: RFC 3164, a datagram for each alert."""

    def __init__(self, place: str, patience: float) -> None:
        self._patience = patience
        host, _, port = place.rpartition(":")
        if place and not (host and port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16):
            raise UsageError(f"syslog:{place} has no port, as syslog:logs.example.com:514")
        self._address: Any = (host.strip("[]"), int(port)) if place else "/dev/log"
        self._socket: socket.socket | None = None

    def send(self, alert: Alert) -> None:
        if self._socket is None:
            self._socket = socket.socket(_family(self._address), socket.SOCK_DGRAM)
            self._socket.settimeout(self._patience)
        code = _USER * 8 + PRIORITIES.index(alert.rule.priority)
        text = f"<{code}>kubectl-gadget[{os.getpid()}]: {escape(alert.line())}"
        whole = text.encode("utf-8", "replace")[:8192].decode("utf-8", "ignore").encode()
        try:
            self._socket.sendto(whole, self._address)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None


def _family(address: Any) -> int:
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


class _Webhook:
    """A URL that alerts are posted to, over one connection as long as that lasts."""

    def __init__(self, url: str, tls: Tls, default_path: str, patience: float) -> None:
        self._patience = patience
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
            self._host.encode("idna")
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from None
        if not self._host:
            raise UsageError(f"{url} has no host")
        path = (parts.path or default_path) + (f"?{parts.query}" if parts.query else "")
        self._path = quote(path, safe="/?:@!$&'()*+,;=%-._~[]")
        self._context = tls.context() if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> None:
        reused = self._connection is not None
        try:
            status, reason = self._posted(body)
        except OSError:
            if not reused:
                raise
            status, reason = self._posted(body)  # the receiver has closed what was open
        if status >= 500 or status in (408, 429):
            self.close()
            raise OSError(f"HTTP {status} {reason}")
        if status >= 300:
            raise Refused(f"HTTP {status} {reason}")

    def _posted(self, body: bytes) -> tuple[int, str]:
        if self._connection is None:
            self._connection = (
                http.client.HTTPSConnection(self._host, self._port, timeout=self._patience, context=self._context)
                if self._context
                else http.client.HTTPConnection(self._host, self._port, timeout=self._patience)
            )
        headers = {"Content-Type": "application/json", "User-Agent": f"kubectl-gadget/{__version__}"}
        try:
            self._connection.request("POST", self._path, body, headers)
            reply = self._connection.getresponse()
            if len(reply.read(_READ)) == _READ:  # there may be more, which the next request would meet
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise error if isinstance(error, OSError) else OSError(str(error) or type(error).__name__) from None
        return reply.status, reply.reason

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _slack(alert: Alert) -> bytes:
    """A message for a webhook of Slack and what is compatible: what processes say cannot be markup in it."""
    said = (escape(each)[:_LONGEST_SAID] for each in (alert.rule.name[:256], alert.text))
    name, text = (each.translate(_SLACK).replace("`", "'") for each in said)
    return dumps({"text": f"*{alert.rule.priority}* {name}\n```{text}```"})


def _otlp(alert: Alert, hostname: str) -> bytes:
    """A log record of OTLP/HTTP in JSON."""
    severity = PRIORITIES.index(alert.rule.priority)
    shown = {key: value for key, value in alert.fields.items() if value is not None}
    said = {"rule": alert.rule.name, "source": alert.rule.source, **shown}
    record = {
        "timeUnixNano": str(alert.time_ns),
        "severityNumber": _SEVERITIES[severity],
        "severityText": alert.rule.priority,
        "body": {"stringValue": alert.text},
        "attributes": [{"key": key, "value": _otlp_value(value)} for key, value in said.items()],
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "kubectl-gadget"}},
                               {"key": "host.name", "value": {"stringValue": alert.node or hostname}}]}  # fmt: skip
    scope = {"scope": {"name": "kubectl-gadget", "version": __version__}, "logRecords": [record]}
    return dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


def _otlp_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and abs(value) < 1 << 63:
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_otlp_value(each) for each in value if each is not None]}}
    return {"stringValue": str(value)}
