"""gadget-agent-health: whether the agent at HOST:PORT serves, by the gRPC health service.

A probe runs it on every node all day, and importing grpc alone takes five times the CPU of all that this does. So it
speaks the one request that it needs by hand: RFC 9113 for the frames, RFC 7541 for the headers, without tables or
Huffman codes.
"""

from __future__ import annotations

import socket
import struct
import sys

SECONDS = 4.0
_USAGE = "usage: gadget-agent-health HOST:PORT\nExits with 0 if the agent there says that it serves."
_HEADERS, _DATA, _SETTINGS, _GOAWAY = 1, 0, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
#: Length of the message and grpc.health.v1.HealthCheckResponse{status: SERVING}
_SERVING = b"\0\0\0\0\2\x08\1"


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def _request(authority: str) -> bytes:
    headers = (
        b"\x83\x86"  # :method POST, :scheme http, from the static table
        + (b"\x04" + _text("/grpc.health.v1.Health/Check"))
        + (b"\x01" + _text(authority))
        + (b"\x00" + _text("content-type") + _text("application/grpc"))
        + (b"\x00" + _text("te") + _text("trailers"))
    )
    empty = b"\0\0\0\0\0"  # HealthCheckRequest{}: the server as a whole
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, empty)
    )


def serves(host: str, port: int) -> bool:
    """Whether the server there says that it serves. OSError if it does not answer."""
    with socket.create_connection((host, port), SECONDS) as connection, connection.makefile("rb") as replies:
        connection.sendall(_request(f"{host}:{port}"))
        said = b""
        while len(head := replies.read(9)) == 9:
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            content = replies.read(int.from_bytes(head[:3], "big"))
            if kind == _DATA:
                said += content
            if kind == _GOAWAY or (stream == 1 and flags & _END_STREAM and kind in (_DATA, _HEADERS)):
                break
        return said == _SERVING


def main() -> None:
    """Exit with 0 if the agent serves."""
    given = sys.argv[1:]
    if given and given[0] in ("-h", "--help"):
        print(_USAGE)
        return
    host, _, port = given[0].rpartition(":") if len(given) == 1 else ("", "", "")
    if not host or not port.isdecimal():
        sys.exit(_USAGE)
    try:
        if serves(host, int(port)):
            return
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    sys.exit(f"{sys.argv[1]}: not serving")
