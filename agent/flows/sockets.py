"""Open connections, from /proc/PID/net/tcp of each pod's network: older than the recorder, or still in use.

An iterator program (iter/tcp) would gain nothing: it sees only the network namespace of its reader.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import NamedTuple

_ESTABLISHED, _LISTEN = "01", "0A"  # net/tcp_states.h
#: How many sockets of each IP version are looked at in one network: 0.2 s of CPU.
MOST = 65_536
#: Ports that the kernel gives to clients begin here (ip_local_port_range), if nobody has changed that.
_EPHEMERAL = 32_768


class Connection(NamedTuple):
    """A connection as one side has it: its own address, the other's (16 bytes each), the server's port.

    ingress is None, and the port 0, if it cannot be told any more which side connected.
    """

    local: bytes
    peer: bytes
    port: int
    ingress: bool | None


class Established(NamedTuple):
    """An established connection with another: addresses of 16 bytes, and ports."""

    local: bytes
    local_port: int
    peer: bytes
    peer_port: int


def connections_of(process: Path) -> set[Connection]:
    """The established TCP connections of a process's network namespace. Connections within it are left out."""
    listening, found = _sockets(process)
    return {_directed(each, each.local_port in listening) for each in found}


def established_in(process: Path) -> list[Established]:
    """The established TCP connections of a process's network namespace, without who connected."""
    return _sockets(process)[1]


def _directed(each: Established, listens: bool) -> Connection:
    if listens:
        return Connection(each.local, each.peer, each.local_port, True)
    if each.local_port >= _EPHEMERAL:
        return Connection(each.local, each.peer, each.peer_port, False)
    if each.peer_port >= _EPHEMERAL:  # a server that listens no more
        return Connection(each.local, each.peer, each.local_port, True)
    return Connection(each.local, each.peer, 0, None)


def _sockets(process: Path) -> tuple[set[int], list[Established]]:
    """The ports at which a socket listens, and the connections."""
    listening, found = set(), []
    for line in _lines(process):
        _, local, peer, state, _ = line.split(maxsplit=4)
        if state == _LISTEN:
            listening.add(int(local.rpartition(":")[2], 16))
        elif state == _ESTABLISHED:
            made = Established(*parse(local), *parse(peer))
            if made.peer != made.local and not plain(made.peer).is_loopback:
                found.append(made)
    return listening, found


def _lines(process: Path) -> Iterator[str]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError), (process / "net" / name).open(errors="replace") as file:
            yield from islice(file, 1, MOST + 1)


def parse(text: str) -> tuple[bytes, int]:
    """An address of 16 bytes and a port: words of four bytes in the machine's order, in hexadecimal."""
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return (packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed), int(port, 16)


def plain(address: bytes) -> IPv4Address | IPv6Address:
    """An address as people write it."""
    parsed = IPv6Address(address)
    return parsed.ipv4_mapped or parsed
