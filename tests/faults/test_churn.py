"""Containers come and go beside an agent that records everything."""

from __future__ import annotations

import signal
from collections import deque
from pathlib import Path

import pytest

from tests.conftest import events, run_cli, wait_until
from tests.faults.production import Watched, ended, lost_in
from tests.faults.test_leaks import holds, own_memory
from tests.loaded import maps_of
from tests.pods import BareContainer

CONTAINERS, WARM, STEP = (
    2003,
    1000,
    100,
)  # tests/kernel/test_tracker.py has 10,000 without recorders, which wait for the kernel
#: Containers that ended are remembered for 5 minutes, with 13 to 15 KB each.
MOST_BYTES = 24 << 20
RECORDINGS_MIB = 64


@pytest.mark.timeout(300)
def test_churn(bpffs: Path, start_agent, tmp_path: Path, figure) -> None:
    """With every recorder on and a stream, 2,000 containers come and go: of every hundredth, which runs a program, nothing
    is lost. From the 1,000th on the agent's memory grows by no more than it remembers of the
    ended ones, and that of its maps not at all.
    """

    def in_maps() -> int:
        return sum(each.get("bytes_memlock", 0) for each in maps_of(agent.process.pid, bpffs))

    agent = start_agent(
        *("--bpffs", str(bpffs), "--state", str(tmp_path / "state"), "--traceloop-memory", str(RECORDINGS_MIB))
    )
    cli = Watched(tmp_path, "execsnoop", "-o", "json", "-n", "churn", "-p", "!skipped", "--agent", agent.address)
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream")
    pid = agent.process.pid
    living: deque[BareContainer] = deque()
    for number in range(CONTAINERS):
        living.append(BareContainer("churn", f"churn-{number}" if number % STEP == 0 else "skipped"))
        if number % STEP == 0:
            living[-1].run("/bin/true", str(number))
            ring = f"gadget/traceloop/*/ring-{living[-1].cgroup.stat().st_ino}"
            wait_until(lambda ring=ring: list(bpffs.glob(ring)), "its recording")  # by then the others are known, too
        if number == WARM:
            warm, warm_own, warm_maps = holds(pid), own_memory(pid), in_maps()
        if len(living) > 50:
            living.popleft().delete()
    # rings that are given back are free when the kernel has seen to it that no program uses them
    wait_until(lambda: in_maps() - warm_maps <= 1 << 20 and holds(pid).files <= warm.files + 8, "what it held before")
    after, own, after_maps = holds(pid), own_memory(pid), in_maps()
    for container in living:
        container.delete()
    listed = events(run_cli("traceloop", "list", "-n", "churn", "-o", "json", "--agent", agent.address).stdout)
    cli.process.send_signal(signal.SIGINT)
    assert ended(cli) == 0, cli.err
    seen = events(cli.out)
    grown = own - warm_own  # without pages of recordings, which come and go with whoever reads them
    figure(
        f"from container {WARM} to {CONTAINERS}",
        f"{warm_own / 1e6:.1f} MB, {grown / 1e6:+.1f}; its maps {warm_maps / 1e6:.1f} MB, "
        f"{(after_maps - warm_maps) / 1e6:+.1f}; {after.files} files, before {warm.files}; {len(listed)} recordings kept; "
        f"{len(seen)} programs seen, {lost_in(cli.err)} lost",
    )
    assert [(int(event["args"][1]), event["pod"]) for event in seen] == [
        (number, f"churn-{number}") for number in range(0, CONTAINERS, STEP)
    ]
    assert lost_in(cli.err) == 0
    assert listed
    assert grown <= MOST_BYTES
    assert after.threads <= warm.threads + 8
    assert "Traceback" not in agent.log.read_text()
