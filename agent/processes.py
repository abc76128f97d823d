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
    """The process that runs a container's own program, of all that are in it; 0 if that cannot be told (yet).

    It is the oldest whose parent is outside, as runtimes' helpers end or become it soon. bpf/traceloop tells it of
    those that begin while it looks.
    """
    inside = set(pids)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    found = []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            # proc_pid_stat(5): the name, in parentheses, may hold anything; parent is field 4, the start field 22
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            began = int(fields[19]) / _TICKS
            if int(fields[1]) not in inside and now - began > SETTLED_SECONDS:
                found.append((began, pid))
    return min(found)[1] if found else 0
