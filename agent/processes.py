"""What /proc tells of a container's processes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: By then a runtime's helpers have ended, or become the container's own program.
SETTLED_SECONDS = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


def first_of(pids: Sequence[int], proc: Path) -> int:
    """The process that runs a container's own program, of all that are in it; 0 if that cannot be told.

    It is the oldest whose parent is outside and that has a mount namespace of its own, which a runtime's helpers do
    not have. bpf/traceloop says the same of those that begin while it looks.
    """
    inside = set(pids)
    found = []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            # proc_pid_stat(5): the name, in parentheses, may hold anything; parent is field 4, the start field 22
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            parent, began = int(fields[1]), int(fields[19]) / _TICKS
            if parent not in inside and _is_apart(proc, pid, parent, began):
                found.append((began, pid))
    return min(found)[1] if found else 0


def _is_apart(proc: Path, pid: int, parent: int, began: float) -> bool:
    """Whether a process has another mount namespace than its parent, or is old enough where we may not ask."""
    try:
        return os.readlink(proc / str(pid) / "ns/mnt") != os.readlink(proc / str(parent or 1) / "ns/mnt")
    except OSError:  # CAP_SYS_PTRACE
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began > SETTLED_SECONDS
