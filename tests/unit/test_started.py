"""Since when a container runs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from agent.containers.started import started_at


def now() -> int:
    """CLOCK_BOOTTIME in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_process_that_was_there_before(tmp_path: Path) -> None:
    """A container that ran before the agent is shown with its own start, to a clock tick, not with the agent's."""
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    before = now()
    with subprocess.Popen(["sleep", "60"]) as first:
        after = now()
        with subprocess.Popen(["sleep", "60"]) as second:
            (tmp_path / "cgroup.procs").write_text(f"{second.pid}\n0\n{first.pid}\n")
            assert before - tick <= started_at(tmp_path) <= after
            second.kill()
        first.kill()


def test_a_name_that_looks_like_numbers(tmp_path: Path) -> None:
    """What a process calls itself does not change when it began."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text(f"7 (a) S 1 {' 9' * 19}) S 1{' 0' * 17} 4711 0 0\n")
    (tmp_path / "cgroup.procs").write_text("7\n")
    assert started_at(tmp_path, tmp_path) == 4711 * (10**9 // os.sysconf("SC_CLK_TCK"))


def test_processes_below(tmp_path: Path) -> None:
    """A container with systemd in it has its processes in cgroups below its own."""
    (tmp_path / "init.scope").mkdir()
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "init.scope/cgroup.procs").write_text(f"{os.getpid()}\n")
    assert 0 < started_at(tmp_path) <= now()


def test_not_known(tmp_path: Path) -> None:
    """Where no process is left to ask, it is not known, and nothing breaks."""
    assert started_at(tmp_path) == 0
    assert started_at(tmp_path / "gone") == 0
    (tmp_path / "cgroup.procs").write_text("99999999\nx\n")
    assert started_at(tmp_path) == 0
