"""What programs are attached to, as far as their sections do not say it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Seat(Protocol):
    """The attachment of a program that runs at some calls only."""

    def missed(self) -> int:
        """How often the program did not run because its hook was already running on that CPU."""

    def leave(self) -> None:
        """Detach it."""


class Calls(Protocol):
    """Shares the hooks of all system calls among programs that want some calls only."""

    def attach(self, hook: str, program: int, calls: Collection[int]) -> Seat:
        """Let a program, by its descriptor, run at these calls: places in a table of bpf/include/calls.h."""


@dataclass(frozen=True)
class Where:
    """cgroup: the folder of the cgroup whose packets and sockets programs see, with all cgroups below it.

    hz: how often programs that take samples run on each CPU, in a second.

    looks: iterators look at what there is at once. Else they wait for a reader.

    turns: the map over whose elements walks iterate (bpf/include/walk.h), by its descriptor.

    calls: who runs programs at the calls of their object's table (CALLS). Without, they run at all calls.
    """

    cgroup: Path | None = None
    hz: int = 0
    looks: bool = True
    turns: int = -1
    calls: Calls | None = None
