"""UDP over loopback, for tests that watch it: python -m tests.datagrams [PEERS|closed], then "done".

  CLOSED  conversations of ASKED and TOLD, which the client closes, and then the server
  SILENT  conversations of one datagram, UNHEARD, which nobody answers: they are held for longer than SILENCE
PEERS is a number: one socket talks to so many, and is closed. closed: only the conversations that are.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from contextlib import ExitStack

CLOSED, SILENT = 5, 3
ASKED, TOLD, UNHEARD = (10, 10, 10), (7, 7), 11  # bytes of datagrams
SILENCE, PATIENCE = "2s", 5


def talk() -> None:
    with ExitStack() as stack:
        hears_nothing = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        hears_nothing.bind(("127.0.0.1", 0))
        for _ in range(SILENT):
            client = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            client.sendto(bytes(UNHEARD), hears_nothing.getsockname())
        converse()
        client = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        client.settimeout(PATIENCE)
        try:
            raise AssertionError(client.recv(100))
        except TimeoutError:
            pass


def converse() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        for _ in range(CLOSED):
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.connect(server.getsockname())
                for size in ASKED:
                    client.send(bytes(size))
                    peer = server.recvfrom(100)[1]
                for size in TOLD:
                    server.sendto(bytes(size), peer)
                    client.recv(100)


def talk_to(peers: int) -> None:
    with ExitStack() as stack, socket.socket(type=socket.SOCK_DGRAM) as client:
        for _ in range(peers):
            peer = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            peer.bind(("127.0.0.1", 0))
            client.sendto(bytes(UNHEARD), peer.getsockname())


def rows() -> Counter[tuple[object, ...]]:
    """What there is to see: operation, role, reason, bytes and datagrams sent and received."""
    first, asked, told = ASKED[0], sum(ASKED), sum(TOLD)
    return Counter(
        {
            ("begin", "client", "none", first, 0, 1, 0): CLOSED,
            ("begin", "server", "none", 0, first, 0, 1): CLOSED,
            ("end", "client", "closed", asked, told, len(ASKED), len(TOLD)): CLOSED,
            ("end", "server", "closed", told, asked, len(TOLD), len(ASKED)): CLOSED,
            ("begin", "client", "none", UNHEARD, 0, 1, 0): SILENT,
            ("begin", "server", "none", 0, UNHEARD, 0, 1): SILENT,
            ("end", "client", "silent", UNHEARD, 0, 1, 0): SILENT,
            ("end", "server", "silent", 0, UNHEARD, 0, 1): SILENT,
        }
    )


def seen(row: dict[str, object]) -> tuple[object, ...]:
    names = ("operation", "role", "reason", "sent", "received", "packets_sent", "packets_received")
    return tuple(row[name] for name in names)


if __name__ == "__main__":
    if sys.argv[1:] == ["closed"]:
        converse()
    else:
        talk_to(int(sys.argv[1])) if sys.argv[1:] else talk()
    print("done", flush=True)
