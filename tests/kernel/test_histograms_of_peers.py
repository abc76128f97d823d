"""Histograms beside those of bpftrace, of the same load."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests import disks
from tests.bpftrace import traced
from tests.kernel.test_histograms import WAITERS, sums
from tests.live import rows_of, start_json
from tests.pods import run_in

#: runqlat.bt, in nanoseconds and of threads of one name; it also counts who loses its CPU in the middle of the kernel.
RUNQLAT = """
tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @queued[args->pid] = nsecs; }
tracepoint:sched:sched_switch {
    if (args->prev_state == 0 || args->prev_state == 0x100) { @queued[args->prev_pid] = nsecs; }
    if (@queued[args->next_pid] && args->next_comm == "waiter") { @found = hist(nsecs - @queued[args->next_pid]); }
    delete(@queued[args->next_pid]);
}
"""
#: Writes of seven sizes, so that some take long.
WRITER = """
import mmap, os, sys
buffer = memoryview(mmap.mmap(-1, 256 << 10))
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
for number in range(83):
    for size in range(7):
        os.pwrite(fd, buffer[: 4096 << size], number << 12)
print("done")
"""
#: biolatency.bt, in nanoseconds and of one disk, by the tracepoints that are where its functions account for requests.
BIOLATENCY = """
tracepoint:block:block_io_start /args->dev == DISK/ { @begun[args->sector] = nsecs; }
tracepoint:block:block_io_done /args->dev == DISK && @begun[args->sector]/ {
    @found = hist(nsecs - @begun[args->sector]);
    delete(@begun[args->sector]);
}
"""


#: Both look within some microseconds of each other: from here on a bucket is so wide that this is a small part of it.
#: Shorter ones are compared within the bounds around: the kernel takes a run queue's clock, which stands still in between.
LONG, AROUND = 16, 4
#: Where that puts durations on either side of a bound: a part of all, in percent.
POINTS = 5


def assert_alike(ours: Counter[Any], theirs: list[dict[str, int]], later: int = 0) -> None:
    """As many, and about the same part of them below each bound; below a short one within the bounds around it.

    later: theirs may end later, by so many bounds.
    """
    number = sum(each["count"] for each in theirs)
    assert abs(ours["count"] - number) <= 3 + number // 100, (ours, theirs)

    def below(power: int) -> float:
        return 100 * sum(each["count"] for each in theirs if each["max"] < 1 << power) / number

    for power in range(10, 40):
        found = (over for over in ours if isinstance(over, int) and over < 1 << power)
        own, around = 100 * sum(ours[over] for over in found) / ours["count"], 0 if power >= LONG else AROUND
        assert below(power - around) - POINTS <= own <= below(power + max(around, later)) + POINTS, (
            power,
            ours,
            theirs,
        )


def test_waits_for_a_cpu(agent, start_cli, bare, tmp_path: Path) -> None:
    """Waits for a CPU are as many and as long as runqlat.bt of bpftrace finds them."""
    waiters = f"open('/proc/self/comm', 'w').write('waiter')\n{WAITERS}"
    with traced(RUNQLAT, tmp_path) as peer:
        cli = start_json(start_cli, agent, "runqlat", "-p", "cart-0", "--interval", "100ms", "--comm", "waiter")
        run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", waiters, cwd=tmp_path)
        (seen,) = sums(rows_of(cli), "waited", "pod").values()
    assert_alike(seen, peer.histogram("@found"))


def test_requests_to_disks(agent, start_cli, bare, tmp_path: Path) -> None:
    """Requests to a disk are as many and take as long as biolatency.bt of bpftrace finds them."""
    with disks.disk(tmp_path) as device:
        major, minor = map(int, Path(f"/sys/block/{device.name}/dev").read_text().split(":"))
        only = ("--filter", f"device=={device.name}")
        with traced(BIOLATENCY.replace("DISK", str(major << 20 | minor)), tmp_path) as peer:
            cli = start_json(start_cli, agent, "biolatency", "-p", "cart-0", "--interval", "100ms", *only)
            run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", WRITER, str(device))
            (seen,) = sums(rows_of(cli), "latency", "pod").values()
    # the kernel accounts for a request after it has woken who waits for it, who may run first
    assert_alike(seen, peer.histogram("@found"), later=1)
    assert seen["count"] == 7 * 83
