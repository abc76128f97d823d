"""cputop on this kernel: CPU time as the cgroup's own account has it, waiting as /proc/PID/schedstat has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.live import rows_of, start_json
from tests.pods import CGROUPS, run_in

#: Three processes on one CPU; each writes what the kernel says of it before it ends.
SPINNERS = """
import os, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
children = []
for number in range(3):
    child = os.fork()
    if not child:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        with open("/proc/self/schedstat") as said, open(f"said-{os.getpid()}", "w") as to:
            to.write(said.read())
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
print("done")
"""


@pytest.mark.parametrize("processes", [False, True])
def test_as_the_kernel_counts(agent, start_cli, bare, tmp_path: Path, processes: bool) -> None:
    """Of a container I see all CPU time that its cgroup counts; of its processes how long they ran and waited, too."""
    options = ["--processes"] if processes else []
    cli = start_json(start_cli, agent, "cputop", "-p", "cart-0", "--interval", "100ms", *options)
    cgroup = bare("shop", "cart-0").cgroup
    run_in(cgroup, sys.executable, "-c", SPINNERS, cwd=tmp_path)
    counted = (cgroup / "cpu.stat").read_text().split()
    rows = rows_of(cli)
    usage = int(counted[counted.index("usage_usec") + 1])
    # its last threads are still ending when the file is read
    assert abs(sum(row["cpu"] for row in rows) - usage * 1000) < usage * 1000 / 50
    ran, waited = Counter[int](), Counter[int]()
    for row in rows:
        ran[row["pid"]] += row["cpu"]
        waited[row["pid"]] += row["waited"]
    said = {int(path.name.removeprefix("said-")): path.read_text().split() for path in tmp_path.glob("said-*")}
    assert len(said) == 3
    if not processes:
        assert set(ran) == {0}
        assert waited[0] >= sum(int(each[1]) for each in said.values())
    for pid, each in said.items() if processes else ():
        assert ran[pid] >= int(each[0]) >= 0.2e9  # its end takes time, too
        assert waited[pid] >= int(each[1]) > 0.1e9


THROTTLED = """
import time
while time.process_time() < 0.25:
    pass
print("done")
"""


def test_throttled(agent, start_cli, bare) -> None:
    """Of a container with a limit of CPU time I see in each table how long the limit has kept CPUs from it since the one before."""
    cgroup = bare("shop", "cart-0").cgroup
    first = CGROUPS / "cpu" / cgroup.name
    folder = first if first.parent.is_dir() else cgroup
    folder.mkdir(exist_ok=True)
    try:
        (folder / ("cpu.cfs_quota_us" if folder == first else "cpu.max")).write_text("20000")
        cli = start_json(start_cli, agent, "cputop", "-p", "cart-0", "--interval", "100ms")
        with (folder / "cgroup.procs").open("w") as procs:
            enter = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')"
            done = subprocess.run(
                [sys.executable, "-c", f"{enter}\n{THROTTLED}"],
                preexec_fn=lambda: os.write(procs.fileno(), b"0"), capture_output=True, check=True,
            )  # fmt: skip
        assert done.stdout == b"done\n"
        stat = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        counted = int(stat["throttled_time"]) if folder == first else int(stat["throttled_usec"]) * 1000
        rows = rows_of(cli)
    finally:
        if folder == first:
            folder.rmdir()
    seen = sum(row["throttled"] for row in rows)
    # what came before its first row is not counted, and what came after its last one
    assert counted / 2 < seen <= counted
    assert all(row["pressure"] is None or 0 <= row["pressure"] <= 100 for row in rows)
