"""Connections that are older than the recorder, from /proc/PID/net/tcp of each pod's network.

An iterator program (iter/tcp) would see the network namespace of its reader alone, so that nothing is gained by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

_ESTABLISHED, _LISTEN = "01", "0A"  # net/tcp_states.h


class Connection(NamedTuple):
    """A connection as one side has it: its own address, the other's (16 bytes each), the server's port."""

    local: bytes
    peer: bytes
    port: int
    ingress: bool


def connections_of(process: Path) -> set[Connection]:
    """The established TCP connections in the network namespace of a process of /proc, but for those within it."""
    sockets = [line.split()[1:4] for line in _lines(process)]
    listening = {local.rpartition(":")[2] for local, _, state in sockets if state == _LISTEN}
    found = set()
    for local, peer, state in sockets:
        own, own_port = _parse(local)
        other, other_port = _parse(peer)
        if state != _ESTABLISHED or other == own or _plain(other).is_loopback:
            continue
        ingress = local.rpartition(":")[2] in listening
        found.add(Connection(own, other, own_port if ingress else other_port, ingress))
    return found


def _lines(process: Path) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            yield from (process / "net" / name).read_text().splitlines()[1:]


def _parse(text: str) -> tuple[bytes, int]:
    """An address of 16 bytes and a port: words of four bytes in the machine's order, in hexadecimal."""
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return (packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed), int(port, 16)


def _plain(address: bytes) -> IPv6Address:
    parsed = IPv6Address(address)
    return parsed.ipv4_mapped or parsed  # type: ignore[return-value]
