"""A WebSocket for one thread, which waits for both sides itself.

websockets' own client of threads reads in one and writes in another. OpenSSL's connections are not for two threads at
once (openssl-threads(7)), and Python gives them no lock before 3.13.4 (gh-134698): one WebSocket in 200 broke while it
was opened, when the server's session tickets came together with the first request.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterable

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Event
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

#: What is read at once: at least a TLS record (16 KiB), or the rest of one would wait where poll(2) does not see it.
CHUNK = 1 << 16
#: How long the other side may take to take what is sent.
SEND_SECONDS = 10.0


class WebSocket:
    """An open WebSocket."""

    def __init__(
        self, connected: socket.socket, uri: str, subprotocol: str, headers: Iterable[tuple[str, str]]
    ) -> None:
        """Open one on a socket that is connected, and has a timeout.

        websockets' InvalidHandshake if the other side refuses or hangs up, OSError if the connection breaks.
        """
        self.socket = connected
        self._protocol = ClientProtocol(parse_uri(uri), subprotocols=[Subprotocol(subprotocol)], max_size=None)
        request = self._protocol.connect()
        for name, value in headers:
            request.headers[name] = value  # adds: a name may come more than once
        self._protocol.send_request(request)
        self._flush()
        self._parts: list[bytes | bytearray | memoryview] = []
        self._events: list[Event] = []
        while not self._events and not self._protocol.handshake_exc:
            self._read()
            self._events = self._protocol.events_received()  # the answer, and perhaps messages
        if self._protocol.handshake_exc:
            raise self._protocol.handshake_exc
        self.socket.setblocking(False)

    def send(self, message: bytes) -> None:
        """Send a message. OSError if the connection breaks."""
        self._protocol.send_binary(message)
        self._flush()

    def receive(self, seconds: float = 0.0) -> list[bytes]:
        """The messages that have come, perhaps none; waits for bytes at most so long.

        EOFError after the last, OSError if the connection breaks.
        """
        events, self._events = self._events, []
        if not events and self._wait(seconds):
            self._read()
            events = self._protocol.events_received()
        messages = []
        for event in events:
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self._parts.append(event.data)
                if event.fin:
                    messages.append(b"".join(self._parts))
                    self._parts = []
        if not messages and self._protocol.state is not OPEN:
            raise EOFError("the other side ended the connection")
        return messages

    def _wait(self, seconds: float) -> bool:
        if not seconds:
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _read(self) -> None:
        try:
            data = self.socket.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return  # what came was part of a record, or TLS's own
        except ConnectionError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._flush()

    def _flush(self) -> None:
        if data := b"".join(self._protocol.data_to_send()):
            before = self.socket.gettimeout()
            self.socket.settimeout(SEND_SECONDS)
            self.socket.sendall(data)
            self.socket.settimeout(before)
