"""Tells since when a container has run that is older than the agent."""

from __future__ import annotations

import os
from pathlib import Path

from agent.containers.cgroups import processes_in

#: How many processes, and cgroups, of a container are looked at: it may have any number. The first one is among the
#: first that the kernel lists: those that come are added at the tail (css_set_move_task, kernel/cgroup/cgroup.c).
LOOKED_AT = 64


def started_at(folder: Path, proc: Path = Path("/proc")) -> int:
    """When the container whose cgroup's directory is folder began, CLOCK_BOOTTIME in nanoseconds; 0 if not known.

    The earliest start of its processes. It is exact while its first program lives: the kernel counts it in the same
    clock (proc(5), starttime). The directory does not tell: it has no birth time (statx(2)), and its others are those
    of when it was last brought into memory (kernfs_init_inode, fs/kernfs/inode.c).
    """
    pids = [pid for pid in processes_in(folder, LOOKED_AT) if pid]  # 0: not in our pid namespace
    starts = [start for start in (_start_ticks(proc / str(pid)) for pid in pids) if start]
    return min(starts) * (10**9 // os.sysconf("SC_CLK_TCK")) if starts else 0


def _start_ticks(process: Path) -> int:
    """When a process began, in clock ticks since boot; 0 if it is gone."""
    try:
        after_comm = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(after_comm[19])
    except (OSError, IndexError, ValueError):
        return 0
