"""What a container does already when it begins to be watched: the programs that run, and the ports that wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from agent.containers.cgroups import processes_in
from agent.inspect import sockets
from agent.processes import Process
from gadget.rules.seen import PORTS, PROGRAMS

#: Processes of a container that are looked at, and descriptors of each.
MOST_PROCESSES, MOST_DESCRIPTORS = 512, 4096
#: UDP sockets of clients wait at a port as servers do: the kernel chooses theirs from here on.
_FIRST_OF_CLIENTS = 32768
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")


def before(folder: Path, proc: Path) -> Iterator[tuple[str, str]]:
    """What a container does already, as kinds and values of a Learner. folder is the container's cgroup."""
    for pid in processes_in(folder, MOST_PROCESSES):
        with suppress(OSError), closing(Process(pid, proc)) as process:
            if process.read("comm").startswith(("runc", "crun")):  # at work until the container's program begins
                continue
            yield PROGRAMS, process.link("exe").removesuffix(" (deleted)")
            yield from ((PORTS, port) for port in _ports(process))


def _ports(process: Process) -> Iterator[str]:
    inodes = set()
    for number in process.names("fd", MOST_DESCRIPTORS):
        with suppress(OSError):
            if found := _SOCKET.fullmatch(process.link(f"fd/{number}")):
                inodes.add(int(found[1]))
    for socket in sockets.find(process, inodes).values() if inodes else ():
        is_server = socket.protocol == "tcp" or socket.port < _FIRST_OF_CLIENTS
        if socket.kind == "listener" and socket.port and is_server:
            yield f"{socket.protocol}/{socket.port}"
