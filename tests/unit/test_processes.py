from __future__ import annotations

import os
import time
from pathlib import Path

from agent.processes import SETTLED_SECONDS, first_of

TICKS = os.sysconf("SC_CLK_TCK")


def process(proc: Path, pid: int, parent: int, age: float, name: str = "app") -> int:
    began = int((time.clock_gettime(time.CLOCK_BOOTTIME) - age) * TICKS)
    (proc / str(pid)).mkdir()
    fields = " ".join(["0"] * 17)
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} {fields} {began} 0\n")
    return pid


def test_first(tmp_path: Path) -> None:
    """The end of a container is that of its own program: the oldest process from outside, whatever the others are called."""
    pids = [
        process(tmp_path, 30, 7, 60.0, "exec'd later"),
        process(tmp_path, 20, 7, 99.0, "app) S 20 ("),
        process(tmp_path, 21, 20, 999.0),
    ]
    assert first_of([*pids, 4711], tmp_path) == 20


def test_runtime_at_work(tmp_path: Path) -> None:
    """While a runtime may still be at work nobody is taken for the container's own program."""
    assert first_of([process(tmp_path, 20, 7, SETTLED_SECONDS / 4)], tmp_path) == 0
