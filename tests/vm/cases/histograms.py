"""Histograms of waits."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests import disks
from tests.vm.machine import Core, Stream, container


def lengths(rows: list[dict[str, Any]], name: str, by: str) -> dict[Any, list[int]]:
    """How many durations of each length there were, and behind them their sum, by a field."""
    found: dict[Any, list[int]] = {}
    for row in rows:
        found[row[by]] = [sum(both) for both in zip(row[name], found.get(row[by], [0] * len(row[name])), strict=True)]
    return found


def runqlat(core: Core) -> None:
    """Of each process I see how often and how long its threads waited for a CPU, as the kernel counts it."""
    said: list[list[int]] = []

    def wait() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        children = []
        for _ in range(2):
            if not (child := os.fork()):
                for _ in range(5):
                    until = time.process_time() + 0.01
                    while time.process_time() < until:
                        pass
                    time.sleep(0.001)
                os._exit(0)
            children.append(child)
        with Path("/tmp/said").open("w") as to:
            for child in children:
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            for child in children:
                print(child, Path(f"/proc/{child}/schedstat").read_text().strip(), file=to)

    with Stream(core.tracker, "runqlat", processes="true") as stream, container() as app:
        core.call(app, wait)
        said = [list(map(int, line.split())) for line in Path("/tmp/said").read_text().splitlines()]
        seen = lengths(stream.rows(), "waited", "pid")
    for pid, _, waited, times in said:
        count = sum(seen[pid][:-1])
        assert times <= count <= times + 1, (said, seen)  # it may be about to leave the CPU for good
        assert seen[pid][-1] == waited or (seen[pid][-1] > waited and count > times), (said, seen)


def biolatency(core: Core) -> None:
    """Of requests to a disk I see exactly how many reads and writes there were, by how long they took."""
    with disks.disk(Path("/run")) as device, Stream(core.tracker, "biolatency") as stream, container() as app:
        core.call(app, lambda: disks.use(device))
        seen = lengths([row for row in stream.rows() if row["device"] == device.name], "latency", "operation")
    counts = {operation: sum(of[:-1]) for operation, of in seen.items()}
    assert (counts["read"], counts["write"]) == (disks.READS[0], disks.WRITES[0]), seen
    assert all(of[-1] > 0 for of in seen.values()), seen


def tcprtt(core: Core) -> None:
    """Of connections I see their round-trip times, once for each packet that came, by address."""
    Path("/tmp/go").touch()
    with Stream(core.tracker, "tcprtt", addresses="true") as stream, container() as app:
        core.work(app, "traffic")
        rows = stream.rows()
    assert rows and all(row["dst"] and not row["dst"].port for row in rows), rows
    assert all(sum(row["rtt"][:-1]) and row["rtt"][-1] for row in rows), rows
    assert sum(sum(row["rtt"][:-1]) for row in rows) > 200, rows


def syscall_latency(core: Core) -> None:
    """Of each system call I see exactly how often it was made, by how long it took."""

    def call() -> None:
        for _ in range(10_007):
            os.getppid()
        for _ in range(3):
            time.sleep(0.1)

    with Stream(core.tracker, "syscall-latency") as stream, container() as app:
        core.call(app, call)
        seen = lengths(stream.rows(), "latency", "syscall")
    assert sum(seen["getppid"][:-1]) == 10_007, seen
    slept = max(seen.values(), key=lambda of: of[-1])
    assert sum(slept[27:-1]) >= 3, seen  # 0.1 s is between 2^26 and 2^27 ns


syscall_latency.__name__ = "syscall-latency"  # cases have the names of gadgets
