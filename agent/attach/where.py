"""What programs are attached to, as far as their sections do not say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Where:
    """cgroup: the folder of the cgroup whose packets and sockets programs see, with all cgroups below it.

    hz: how often programs that take samples run on each CPU, in a second.

    looks: iterators look at what there is at once. Else they wait for a reader.

    turns: the map over whose elements walks iterate (bpf/include/walk.h), by its descriptor.
    """

    cgroup: Path | None = None
    hz: int = 0
    looks: bool = True
    turns: int = -1
