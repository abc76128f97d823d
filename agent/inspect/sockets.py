"""Sockets of a container's network: who listens, and what the socket behind a descriptor is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agent.flows.sockets import MOST, parse, plain
from agent.processes import Process
from gadget._generated import gadget_pb2 as pb
from gadget.kinds.texts import decode_text

#: net/tcp_states.h, as ss(8) calls them
_STATES = ("", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "UNCONN", "CLOSE-WAIT",
           "LAST-ACK", "LISTEN", "CLOSING")  # fmt: skip
_LISTEN, _UNCONNECTED = 10, 7
#: Processes whose descriptors are looked at for a socket, of each so many, and of all.
MOST_PROCESSES, _DESCRIPTORS, _MOST_LINKS = 512, 4096, 65_536


class Socket(NamedTuple):
    """A socket. name is the peer's ADDRESS:PORT, or its own address if it listens, or a path."""

    protocol: str
    kind: str
    name: str
    state: str
    port: int


def find(process: Process, inodes: Collection[int] = (), ports: Collection[int] = ()) -> dict[int, Socket]:
    """The sockets with some inodes in the network of a process, and those that wait for others at some ports."""
    found: dict[int, Socket] = {}
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in _lines(process, name):
            with suppress(ValueError, IndexError):
                fields = line.split()
                inode, state = int(fields[9]), int(fields[3], 16)
                waits = state == (_LISTEN if name.startswith("tcp") else _UNCONNECTED)
                port = int(fields[1].rpartition(b":")[2], 16)
                if inode in inodes or (waits and port in ports):
                    found[inode] = _internet(name[:3], fields, state)
    if inodes:
        for line in _lines(process, "unix"):
            with suppress(ValueError, IndexError):
                fields = line.rstrip(b"\n").split(None, 7)
                if (inode := int(fields[6])) in inodes:
                    listens = int(fields[3], 16) & 0x10000  # __SO_ACCEPTCON
                    name = decode_text(b"".join(fields[7:]))
                    found[inode] = Socket("unix", "listener" if listens else "socket", name, "", 0)
    return found


def _internet(protocol: str, fields: list[bytes], state: int) -> Socket:
    own, own_port = parse(decode_text(fields[1]))
    if state == (_LISTEN if protocol == "tcp" else _UNCONNECTED):
        return Socket(protocol, "listener", str(plain(own)), _STATES[state], own_port)
    peer, port = parse(decode_text(fields[2]))
    address = plain(peer)
    name = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    return Socket(protocol, "socket", name, _STATES[state] if state < len(_STATES) else "", own_port)


def _lines(process: Process, name: str) -> Iterator[bytes]:
    with suppress(OSError), os.fdopen(process.open(f"net/{name}"), "rb") as file:
        yield from islice(file, 1, MOST + 1)


def owners(inodes: Collection[int], pids: Iterable[int], proc: Path) -> dict[int, pb.Task]:
    """For each socket the first process that has a descriptor of it."""
    wanted, found, left = {f"socket:[{inode}]": inode for inode in inodes}, dict[int, pb.Task](), _MOST_LINKS
    for pid in islice((pid for pid in pids if pid), MOST_PROCESSES):
        with suppress(OSError):
            process = Process(pid, proc)
            try:
                for number in process.names("fd", min(_DESCRIPTORS, left)):
                    left -= 1
                    with suppress(OSError):
                        inode = wanted.get(process.link(f"fd/{number}"))
                        if inode is not None and inode not in found:
                            found[inode] = pb.Task(pid=pid, tid=pid, comm=process.read("comm").removesuffix("\n"))
            finally:
                process.close()
        if left <= 0 or len(found) == len(wanted):
            break
    return found


def listeners(found: Mapping[int, Socket], tasks: Mapping[int, pb.Task]) -> Iterator[pb.Listener]:
    """The sockets that listen at ports, and the processes that have them."""
    for inode, each in found.items():
        yield pb.Listener(port=each.port, protocol=each.protocol, address=each.name, task=tasks.get(inode))
