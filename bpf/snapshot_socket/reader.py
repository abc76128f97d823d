"""Sockets that no process has, by /proc/PID/net/tcp of a process in their network namespace.

They are TCP's: connections in TIME-WAIT, those that go on closing after their process has let go of them, and those
that wait to be accepted.
"""

from __future__ import annotations

import os
from binascii import unhexlify
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from agent.containers.cgroups import processes_in
from agent.containers.tracker import Cgroup
from agent.processes import Process, first_of, held
from agent.readers import Reading

#: Of one network namespace: lines that are looked at, and rows.
MOST_LINES, MOST_ROWS = 262_144, 8192
_PROCESSES = 4096
_NOBODY = (1 << 32) - 1
_MAPPED = bytes(10) + b"\xff\xff"


class Reader:
    """Reads sockets. Of containers with a network in common the one that began first has them."""

    def __init__(self, mount: Path, proc: Path, most_lines: int = MOST_LINES, most_rows: int = MOST_ROWS) -> None:
        """Of containers below mount, whose processes are in proc."""
        self._mount, self._proc = mount, proc
        self._most_lines, self._most_rows = most_lines, most_rows

    def read(self, containers: Sequence[Cgroup]) -> Iterator[Reading]:
        """Each socket of each container's network, but for the node's own."""
        seen = {self._of_node()}
        for each in sorted(containers, key=lambda item: item.started):
            yield Reading(each.id, {})
            with suppress(OSError):  # it has just ended
                yield from self._of(each, seen)

    def _of_node(self) -> int:
        """The node's own network namespace: that of the first process, or where nobody may know that the agent's."""
        for name in ("1", "self"):
            with suppress(OSError):
                return os.stat(self._proc / name / "ns/net").st_ino
        return 0

    def _of(self, cgroup: Cgroup, seen: set[int]) -> Iterator[Reading]:
        list_now = partial(processes_in, self._mount / cgroup.path.lstrip("/"), _PROCESSES)
        first = first_of(list_now(), self._proc, settled=0)
        with held(list_now, self._proc, 1, [first]) as processes:
            for process in processes:
                netns = int(process.link("ns/net").removeprefix("net:[").removesuffix("]"))
                if netns in seen:
                    continue
                seen.add(netns)
                rows = lost = 0
                for line in _lines(process, self._most_lines):
                    values = parse(line) if line else None
                    if line is None or (values and rows == self._most_rows):
                        lost += 1
                    elif values:
                        rows += 1
                        yield Reading(cgroup.id, {**values, "netns": netns})
                    else:
                        yield Reading(cgroup.id, {})
                if lost:
                    yield Reading(cgroup.id, {}, lost)


def _lines(process: Process, most: int) -> Iterator[bytes | None]:
    """Those of sockets; None in place of more than are looked at."""
    for name in ("net/tcp", "net/tcp6"):
        with suppress(OSError), os.fdopen(process.open(name), "rb") as file:
            yield from islice(file, 1, most + 1)
            if next(file, None):
                yield None


def parse(line: bytes) -> dict[str, Any] | None:
    """The values of a line of net/tcp that has no inode; None of another."""
    fields = line.split()
    with suppress(ValueError, IndexError):
        if int(fields[9]):
            return None
        unsent, _, received = fields[4].partition(b":")
        return {
            "uid": _NOBODY,
            "gid": _NOBODY,
            "fd": -1,
            "state": int(fields[3], 16),
            "src": _end(fields[1]),
            "dst": _end(fields[2]),
            "unsent": int(unsent, 16),
            "received": int(received, 16),
            "name": b"",
        }
    return None


def _end(text: bytes) -> tuple[bytes, int]:
    """An address and a port, written as words of 32 bits in the order of the machine."""
    address, _, port = text.partition(b":")
    words = unhexlify(address)
    if len(words) not in (4, 16):
        raise ValueError("no address")
    plain = b"".join(int.from_bytes(words[at : at + 4], "big").to_bytes(4, "little") for at in range(0, len(words), 4))
    return (plain if len(plain) == 16 else _MAPPED + plain), int(port, 16)
