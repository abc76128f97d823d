"""TCP over loopback that loses segments, for tests that watch it: python -m tests.losses FILE, then "done".

FILE gets a JSON object: by kind the segments that TCP says it has sent again, a list of each connection's.
  timeouts  3 connections whose data is not taken until a probe and 2 timeouts have gone by
  fast      5 of which one segment is not taken, and 10 behind it are
  syn       7 that nobody answers
  syn_ack   2 whose first ACK is not taken, of one retransmit each
"""

from __future__ import annotations

import ctypes
import errno
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

TIMEOUTS, FAST, SYN, SYN_ACK = 3, 5, 7, 2
LOST, TAKEN = 50, 11  # bytes of a segment that is lost, and of one that is not
HEADER = 32  # of TCP, with timestamps
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
UNACKED, TOTAL_RETRANS = 24, 100  # offsets in struct tcp_info, linux/tcp.h
WAIT_SECONDS = 30


def lose(end: socket.socket) -> None:
    """Have an end not take segments of LOST bytes of data: load the length, compare it, and take 0 or all bytes."""
    program = ((0x80, 0, 0, 0), (0x15, 0, 1, HEADER + LOST), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))


def told(end: socket.socket, offset: int) -> int:
    """A number of TCP_INFO."""
    (number,) = struct.unpack_from("I", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), offset)
    return int(number)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send_in_vain(count: int, lost: int, taken: int) -> list[int]:
    """Send one segment that is lost until it is sent again so often, and others behind it. Says how often each was."""
    pairs: list[tuple[socket.socket, socket.socket]] = []
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(server.getsockname()))
            other = stack.enter_context(server.accept()[0])
            for end in (client, other):  # no FIN, which may have to be sent again
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lose(other)
            pairs.append((client, other))
        for client, _ in pairs:
            client.send(bytes(LOST))
            for _ in range(taken):
                client.send(bytes(TAKEN))
        for client, other in pairs:
            wait(lambda client=client: told(client, TOTAL_RETRANS) >= lost)  # type: ignore[misc]
            other.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        for client, _ in pairs:
            wait(lambda client=client: told(client, UNACKED) == 0)  # type: ignore[misc]
        return [told(client, TOTAL_RETRANS) for client, _ in pairs]


def ask_in_vain(count: int) -> list[int]:
    """Connect to a socket that can take no more."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        stack.enter_context(socket.create_connection(server.getsockname()))
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
            assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
        for client in clients:
            assert select.select([], [client], [], WAIT_SECONDS)[1]
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
        return [told(client, TOTAL_RETRANS) for client in clients]


def wait_for_data(count: int) -> list[int]:
    """Connect to a socket that wants data first, for a second."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        clients = [stack.enter_context(socket.create_connection(server.getsockname())) for _ in range(count)]
        others = [stack.enter_context(server.accept()[0]) for _ in range(count)]
        for end in (*clients, *others):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return [1] * count


def run(told_to: Path) -> None:
    done = {
        "timeouts": send_in_vain(TIMEOUTS, 3, 0),
        "fast": send_in_vain(FAST, 1, 10),
        "syn": ask_in_vain(SYN),
        "syn_ack": wait_for_data(SYN_ACK),
    }
    told_to.write_text(json.dumps(done))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
    print("done", flush=True)
