"""syscalltop on this kernel: exact sums, with the time that calls took."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests.conftest import events
from tests.live import start_json
from tests.pods import run_in

CALLER = """
import os, time
for _ in range(10_007):
    os.getppid()
for _ in range(503):
    os.access("", os.F_OK)
for _ in range(3):
    time.sleep(0.1)
print("done")
"""


def test_exact_sums(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of system calls I see by process exactly how many there were, how many failed, and that they took their time."""
    cli = start_json(start_cli, agent, "syscalltop", "-p", "cart-0", "--interval", "100ms")
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", CALLER, cwd=tmp_path)
    out, err = cli.finish()
    assert "nothing lost" in err
    calls, errors, times = Counter[str](), Counter[str](), Counter[str]()
    for row in events(out):
        calls[row["syscall"]] += row["calls"]
        errors[row["syscall"]] += row["errors"]
        times[row["syscall"]] += row["time"]
    assert (calls["getppid"], errors["getppid"]) == (10_007, 0)
    assert (calls["access"] + calls["faccessat"], errors["access"] + errors["faccessat"]) >= (503, 503)
    assert times["clock_nanosleep"] >= 300_000_000
    assert calls["clock_nanosleep"] == 3
