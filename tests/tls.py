"""Hellos of TLS over loopback for tests that watch them: python -m tests.tls run|pieces|flood FILE, then "done".

run     each of WAYS, so often, in a connection of its own
pieces  PIECES hellos in two pieces
flood   begins FLOOD hellos at once, then PIECES in two pieces; says "full", and waits until FILE is there; ends all of
        them, and sends PIECES in two pieces once more
"""

from __future__ import annotations

import ctypes
import resource
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.losses import SO_ATTACH_FILTER, SO_DETACH_FILTER, TOTAL_RETRANS, told, wait

NAME, GREASE = "api.example.com", 0x2A2A
SERVER_NAME, GROUPS, ALPN, VERSIONS, KEYS, ECH = 0, 10, 16, 43, 51, 0xFE0D
TLS10, TLS12, TLS13 = 0x0301, 0x0303, 0x0304
#: Bytes of a hello that a gadget keeps, and records.
KEPT, RECORDS = 3584, 16
#: Hellos of a container that may be in the midst of being sent, and more than that.
SHARE = 1024
FLOOD = SHARE + 7
PIECES = 7


def vector(size: int, data: bytes) -> bytes:
    """Data behind its length, of so many bytes."""
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, data)


def server_name(name: bytes) -> bytes:
    return extension(SERVER_NAME, vector(2, b"\0" + vector(2, name)))


def alpn(*names: bytes) -> bytes:
    return extension(ALPN, vector(2, b"".join(vector(1, name) for name in names)))


def versions(*numbers: int) -> bytes:
    return extension(VERSIONS, vector(1, b"".join(struct.pack("!H", number) for number in numbers)))


def message(*extensions: bytes, version: int = TLS12) -> bytes:
    """A ClientHello, without extensions at all if there are none."""
    body = struct.pack("!H", version) + bytes(32) + vector(1, bytes(32)) + vector(2, b"\x13\x01") + b"\1\0"
    if extensions:
        body += vector(2, b"".join(extensions))
    return b"\1" + vector(3, body)


def records(data: bytes, *sizes: int) -> bytes:
    """Records of so many bytes, and one with the rest."""
    found = b""
    for size in sizes:
        found += b"\x16\3\1" + vector(2, data[:size])
        data = data[size:]
    return found + b"\x16\3\1" + vector(2, data) if data else found


def hello(*extensions: bytes, version: int = TLS12) -> bytes:
    """In one record."""
    return records(message(*extensions, version=version))


USUAL = (server_name(NAME.encode()), alpn(b"\x2a\x2a", b"h2"), versions(GREASE, TLS12, TLS13))
#: 1,184 bytes of a key against quantum computers, and 32 of another: what browsers send.
LARGE = hello(*USUAL, extension(KEYS, vector(2, b"\x11\xec" + vector(2, bytes(1216)) + bytes(500))))
TOO_LONG = hello(*USUAL, extension(KEYS, bytes(KEPT)))
#: The second extension says that it has more than there is.
MALFORMED = hello(server_name(NAME.encode()), struct.pack("!HH", ALPN, 9000) + b"\0\3\2h2")
OTHERS = (b"GET / HTTP/1.1\r\n\r\n", b"\x15\3\1\0\2\2\x28", b"\x16\3\1\0\5\2", b"\x16", b"\x16\4\1\0\5\1")


def pieces(data: bytes, *sizes: int) -> list[bytes]:
    """Data in parts of so many bytes, and the rest."""
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [*found, data] if data else found


def connect(host: str) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection, that which connected first."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        other = server.accept()[0]
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, other


def pass_on(end: socket.socket, other: socket.socket, parts: Iterable[bytes]) -> None:
    """Each part is a segment, as it is read before the next one is sent."""
    for part in parts:
        end.sendall(part)
        left = len(part)
        while left:
            left -= len(other.recv(left))


def send(parts: Sequence[bytes], host: str = "127.0.0.1") -> None:
    client, other = connect(host)
    with client, other:
        pass_on(client, other, parts)


def accept_and_send() -> None:
    """The end that accepts is the client of TLS."""
    client, other = connect("127.0.0.1")
    with client, other:
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pass_on(other, client, pieces(hello(*USUAL), 50))


def reset_midway() -> None:
    """The other end has enough of it."""
    client, other = connect("127.0.0.1")
    with client:
        pass_on(client, other, [hello(*USUAL)[:90]])
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        wait(lambda: bool(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))


def send_again() -> None:
    """Nothing is taken until it was sent again."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    client, other = connect("127.0.0.1")
    with client, other:
        other.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
        data = hello(*USUAL)
        for part in pieces(data, 3, 60):
            client.sendall(part)
        wait(lambda: told(client, TOTAL_RETRANS) >= 2)
        other.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        left = len(data)
        while left:
            left -= len(other.recv(left))


def handshake(name: str | None) -> None:
    """What Python itself sends; the other end answers nothing of use."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    client, other = connect("127.0.0.1")
    with client, other:
        end = context.wrap_socket(client, server_hostname=name, do_handshake_on_connect=False)
        with end:
            end.settimeout(0)
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                assert other.recv(1 << 14)
            other.sendall(b"\x15\3\3\0\2\2\x28")
            end.settimeout(30)
            try:
                end.do_handshake()
            except ssl.SSLError:
                return
    raise AssertionError


Row = tuple[str, str, str, str, str, str]
WHOLE: Row = ("127.0.0.1", NAME, "h2", "TLS1.3", "no", "whole")
ECH_TOO = (*USUAL, extension(ECH, bytes(200)))
#: So often, what is done, and the row that tells of it.
WAYS: tuple[tuple[int, Callable[[], None], Row | None], ...] = (
    (7, lambda: handshake(NAME), ("127.0.0.1", NAME, "h2, http/1.1", "TLS1.3", "no", "whole")),
    (11, lambda: handshake(None), ("127.0.0.1", "", "h2, http/1.1", "TLS1.3", "no", "whole")),
    (5, lambda: send(pieces(hello(*USUAL), 3, 70)), WHOLE),
    (1, lambda: send(pieces(hello(*USUAL), *[1] * 500)), WHOLE),
    (3, lambda: send(pieces(LARGE, 1448)), WHOLE),
    (2, lambda: send([LARGE + b"\x17\3\3\0\1\0"]), WHOLE),
    (13, lambda: send([hello(*USUAL)], "::1"), ("::1", *WHOLE[1:])),
    (17, lambda: send([hello(*ECH_TOO)]), (*WHOLE[:4], "yes", "whole")),
    (19, lambda: send([hello(version=TLS10)]), ("127.0.0.1", "", "", "TLS1.0", "no", "whole")),
    (3, lambda: send([records(message(*USUAL), 2, 1, 60, 30)]), WHOLE),
    (2, lambda: send(pieces(records(message(*USUAL), 5, 60), 9, 7, 66)), WHOLE),
    (2, lambda: send([records(message(*USUAL), *[1] * RECORDS)]), WHOLE),
    (2, lambda: send(pieces(records(message(*USUAL), *[1] * RECORDS), 6 * RECORDS)), ("127.0.0.1", "", "", "", "no", "too long")),
    (23, lambda: send([MALFORMED]), ("127.0.0.1", NAME, "", "", "no", "malformed")),
    (2, lambda: send([records(message(*USUAL), 60)[:65] + b"\x17\3\3\0\1\0"]), ("127.0.0.1", "", "", "", "no", "malformed")),
    (5, lambda: send(pieces(TOO_LONG, 1448, 1448, 1448)), (*WHOLE[:5], "too long")),
    (3, lambda: send([TOO_LONG]), (*WHOLE[:5], "too long")),
    (7, lambda: send([hello(*USUAL)[:6]]), ("127.0.0.1", "", "", "", "no", "unfinished")),
    (2, reset_midway, ("127.0.0.1", "", "", "", "no", "unfinished")),
    (2, accept_and_send, WHOLE),
    (2, send_again, WHOLE),
    *((3, lambda other=other: send([other, hello(*USUAL)]), None) for other in OTHERS),
    (3, lambda: send(pieces(b"\x16\3\1\0\5\2", 2)), None),
)  # fmt: skip


def seen(row: dict[str, Any], address: Callable[[Any], str]) -> Row:
    """What a row tells."""
    return (address(row["dst"]), row["name"], row["alpn"], row["version"], row["ech"], row["state"])


def rows() -> Counter[Row]:
    """What is to be seen of run()."""
    found: Counter[Row] = Counter()
    for count, _, row in WAYS:
        if row:
            found[row] += count
    return found


def run() -> None:
    for count, way, _ in WAYS:
        for _ in range(count):
            way()


def send_pieces() -> None:
    for _ in range(PIECES):
        send(pieces(hello(*USUAL), 90))


def flood(file: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ends = []
    for _ in range(FLOOD):
        client, other = connect("127.0.0.1")
        pass_on(client, other, [hello(*USUAL)[:90]])
        ends += [client, other]
    send_pieces()
    print("full", flush=True)
    wait(file.exists)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
    send_pieces()


if __name__ == "__main__":
    {"run": run, "pieces": send_pieces, "flood": lambda: flood(Path(sys.argv[2]))}[sys.argv[1]]()
    print("done", flush=True)
