"""Servers that answer in many ways, in a network namespace that containers of the corpus join.

Run as `unshare --net python -m tests.why.peers FOLDER`; prints "ready". FOLDER gets a certificate that no one trusts.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

IFF_TUN, IFF_NO_PI, TUNSETIFF = 1, 0x1000, 0x400454CA  # linux/if_tun.h
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3  # RFC 1035
#: Names that the cluster's name server knows.
NAMES = {
    b"redis": "10.43.0.20",
    b"db": "10.43.0.21",
    b"web": "10.43.0.24",
    b"down": "10.43.0.30",
    b"gone": "10.99.0.9",
    b"api": "10.43.0.23",
}
#: Its address, and those of servers that are silent, that are not there, and that fail.
DNS, SILENT, ABSENT, FAILING = "10.43.0.10", "10.43.0.11", "10.43.0.12", "10.43.0.13"


def answer(query: bytes, names: dict[bytes, str], otherwise: int) -> bytes:
    """A DNS answer to a query of one name: only the first label counts."""
    length = query[12]
    label, at = query[13 : 13 + length].lower(), 12
    while query[at]:
        at += query[at] + 1
    question, kind = query[12 : at + 5], query[at + 1 : at + 3]
    known = names.get(label)
    found = known is not None and kind == b"\0\1"
    code = NOERROR if known else otherwise
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, int(found), 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(known) if found and known else b""
    return head + question + record


def serve_names(address: str, names: dict[bytes, str], otherwise: int | None) -> None:
    """Answer queries at an address; without a code for unknown names, none at all."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))

    def run() -> None:
        while True:
            query, client = server.recvfrom(2048)
            if otherwise is not None:
                with suppress(OSError, IndexError):
                    server.sendto(answer(query, names, otherwise), client)

    threading.Thread(target=run, daemon=True).start()


def serve(address: str, port: int, talk: Callable[[socket.socket], None]) -> None:
    """Have a talk with each client of a port."""
    server = socket.create_server((address, port), backlog=128)

    def one(client: socket.socket) -> None:
        with suppress(OSError), client:
            talk(client)

    def run() -> None:
        while True:
            client, _ = server.accept()
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


def silent(client: socket.socket) -> None:
    """Read, say nothing."""
    while client.recv(4096):
        pass


def resets(client: socket.socket) -> None:
    """Hear one message, then reset."""
    client.recv(4096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes(client: socket.socket) -> None:
    """Hear one message, then hang up."""
    client.recv(4096)


def http(status: str) -> Callable[[socket.socket], None]:
    """Answer any request with a status."""

    def talk(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n".encode())
        time.sleep(0.05)  # what is not read when a socket closes makes a reset of it

    return talk


def certificate(folder: Path) -> ssl.SSLContext:
    """What a server with a certificate of its own making uses."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=api", "-addext", "subjectAltName=DNS:api,IP:10.43.0.23", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def over_tls(context: ssl.SSLContext, talk: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """Talk behind a handshake."""

    def whole(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as inner:
            talk(inner)

    return whole


def blackhole() -> int:
    """An interface behind which nobody answers, as long as the descriptor is open."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"hole0", IFF_TUN | IFF_NO_PI))
    return device


def main() -> None:
    """Serve until the end."""
    blackhole()
    own = [f"ip addr add 10.43.0.{last}/32 dev lo" for last in (*range(10, 14), *range(20, 31))]
    for command in (
        "ip link set lo up",
        *own,
        "ip addr add 10.99.0.1/24 dev hole0",
        "ip link set hole0 up",
        "ip route add unreachable 10.98.0.0/24",
    ):
        subprocess.run(command.split(), check=True)
    serve_names(DNS, NAMES, NXDOMAIN)
    serve_names(SILENT, {}, None)
    serve_names(FAILING, {}, SERVFAIL)
    context = certificate(Path(sys.argv[1]))
    serve("10.43.0.20", 6379, silent)
    serve("10.43.0.21", 5432, resets)
    serve("10.43.0.22", 443, http("400 Bad Request"))
    serve("10.43.0.23", 443, over_tls(context, http("200 OK")))
    serve("10.43.0.24", 80, http("200 OK"))
    serve("10.43.0.24", 8500, http("503 Service Unavailable"))
    serve("10.43.0.25", 5432, closes)
    serve("0.0.0.0", 9090, silent)  # what a sidecar has taken
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
