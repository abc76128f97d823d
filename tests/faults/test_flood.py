"""More events than anyone can read. With an agent that reads none of them: tests/kernel/test_stream.py."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

import orjson

from tests.conftest import wait_until
from tests.faults.production import PATH, Producer, opens, stop


def test_flood(agent, workload, tmp_path: Path, figure) -> None:
    """Two containers flood a small ring while a third goes on quietly: I see all of the quiet one, and for each flooder
    what I see and what is counted as its own is exactly what it did.
    """
    binary = workload("produce")
    with (
        Producer(binary, "flood-0", "first") as first,
        Producer(binary, "flood-1", "second", namespace=first.namespace) as second,
        Producer(binary, "quiet-0", "quiet", namespace=first.namespace) as quiet,
    ):
        cli = opens(tmp_path, agent, first, "--buffer", "256K")
        with first.steadily(3001, 0), second.steadily(4001, 0):
            for number in range(1, 8):
                quiet.make(13)
                wait_until(lambda number=number: cli.out.count('"container":"quiet"') == 13 * number, "the quiet ones")
            wait_until(lambda: first.made > 100_000 and second.made > 100_000, "a flood")
        out, err = stop(cli, signal.SIGINT)
    seen = Counter(row["container"] for row in map(orjson.loads, out.splitlines()) if row["path"].startswith(PATH))
    (where,) = re.findall(r"lost: ring full on node-a \((.*)\)\.", err)
    lost = {name: int(number) for name, number in (item.split() for item in where.split(", "))}
    figure("events", f"seen {dict(seen)}, lost {lost}")
    assert seen["quiet"] == quiet.made == 91
    assert "quiet" not in lost
    assert seen["first"] + lost["first"] == first.made
    assert seen["second"] + lost["second"] == second.made
