"""What the agent may take of its machine: memory for events, and file descriptors."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import suppress
from pathlib import Path

from agent.files import read_text
from gadget.errors import Exhausted
from gadget.text import counted

MIB = 1 << 20
#: The limit if no cgroup has one: a quarter of the machine's memory, and this many bytes at most.
UNLIMITED_BYTES = 1 << 30
#: What the agent takes without runs, but for recordings, and each run beside its rings: measured under a flood of opens
#: 3 MiB of maps and programs and as much of messages.
OWN_BYTES, RUN_BYTES = 80 * MIB, 6 * MIB
#: Of these, maps with entries that the kernel allocates at once.
MAP_BYTES = 3 * MIB
#: Runs that may stand: three stories of all kinds. RunBudget bounds their memory, like that of all others.
STANDING_RUNS = 64
#: File descriptors of a run (25, and two of each CPU where it takes samples), and of all else.
RUN_FILES, OWN_FILES = 40 + 2 * (os.cpu_count() or 1), 256


class RunBudget:
    """The memory that all runs may take together. Most of it is rings, which the kernel charges as they are made."""

    def __init__(self, total: int = UNLIMITED_BYTES, node: str = "") -> None:
        """A budget of total bytes."""
        self._total, self._node = total, node
        self._lock = threading.Lock()
        self._taken: list[int] = []

    def take(self, size: int) -> None:
        """Count a run with rings of size in. Exhausted if it does not fit."""
        size += RUN_BYTES
        with self._lock:
            used, runs = sum(self._taken), len(self._taken)
            if used + size <= self._total:
                self._taken.append(size)
                return
        have = f"{used / MIB:.0f} of {self._total / MIB:.0f} MiB of memory for events are in use"
        by = f"by {counted(runs, 'run')} on {self._node}"
        first = "end one" if runs else "raise the agent's memory limit"
        raise Exhausted(f"{have} {by}, and {size / MIB:.0f} more are asked for: {first}, or ask for less with --buffer")

    def give_back(self, size: int) -> None:
        """Note that a run of this size has ended."""
        with self._lock:
            self._taken.remove(size + RUN_BYTES)


def bytes_for_runs(limit: int, recordings: int, machine: int) -> int:
    """The bytes that all runs may take beside recordings. limit: the memory limit, 0 for none."""
    return max(0, limit - OWN_BYTES - recordings) if limit else min(machine // 4, UNLIMITED_BYTES)


def machine_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The memory of this machine."""
    return int(next(line.split()[1] for line in read_text(meminfo).splitlines() if line.startswith("MemTotal:"))) << 10


def memory_limit(process: Path = Path("/proc/self"), root: Path = Path("/")) -> int:
    """The least memory limit of this process's cgroup and those around it, in bytes; 0 if there is none.

    Of version 2, and of version 1 where that has the memory controller. root is where paths of mounts begin.
    """
    paths = {}
    for line in read_text(process / "cgroup", MIB).splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    limits = []
    for line in read_text(process / "mountinfo", MIB).splitlines():
        before, _, after = line.partition(" - ")
        top, mount = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            limits += _limits(root / mount.lstrip("/"), top, paths.get("", "/"), "memory.max")
        elif kind == "cgroup" and "memory" in options.split(","):
            own = next((path for names, path in paths.items() if "memory" in names.split(",")), "/")
            limits += _limits(root / mount.lstrip("/"), top, own, "memory.limit_in_bytes")
    least = min(limits, default=0)
    return least if least < machine_bytes() else 0


def _limits(mount: Path, top: str, own: str, name: str) -> list[int]:
    """The limits of a cgroup and those around it, as far as the mount shows them."""
    below = own.removeprefix(top.rstrip("/")).strip("/") if own.startswith(top) else ""
    found = []
    at = mount / below
    while at.is_relative_to(mount):
        with suppress(OSError, ValueError):  # "max", or the root, which has none
            found.append(int(read_text(at / name)))
        at = at.parent
    return found


def raise_descriptors(wanted: int) -> str:
    """Let this process have so many file descriptors. Returns why it has fewer, or an empty string."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return ""
    if hard < wanted:
        with suppress(OSError, ValueError):  # CAP_SYS_RESOURCE
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return ""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return "" if hard >= wanted else f"{hard} file descriptors where all runs at once need {wanted}: raise LimitNOFILE"
