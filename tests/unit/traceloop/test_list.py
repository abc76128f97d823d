from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from gadget.kinds.times import ago
from tests.conftest import events, run_cli
from tests.unit.traceloop.fake import FakeRecorder, item
from tests.unit.traceloop.replies import record, reply

SECOND = 1_000_000_000


def test_the_newest_end_is_first(tmp_path: Path) -> None:
    """`list` shows what ended last first, how long ago, and what runs at the end; an exit status is as in a shell."""
    now = time.time_ns()
    found = [
        item("old", "app", "a" * 64, cgroup=1, status=127 << 8, known=True, ended_ns=now - 7300 * SECOND),
        item("runs", "app", "b" * 64, cgroup=2, running=True),
        item("new", "app", "c" * 64, cgroup=3, status=11, known=True, ended_ns=now - 12 * SECOND),
        item("gone", "app", "d" * 64, cgroup=4),
    ]
    with FakeRecorder(tmp_path, found) as agent:
        text = run_cli("traceloop", "list", "--agent", agent.address).stdout.splitlines()
        rows = events(run_cli("traceloop", "list", "--agent", agent.address, "-o", "json").stdout)
    ends = {line.split()[2]: found[0] for line in text[1:] if (found := re.findall(r"\d+[smhd] ago", line))}
    assert list(ends) == ["new", "old"] and ends["old"] == "2h ago" and ends["new"] in ("12s ago", "13s ago", "14s ago")
    assert [(row["pod"], row["exit_status"]) for row in rows] == [
        ("new", 139), ("old", 127), ("gone", None), ("runs", None)
    ]  # fmt: skip


def test_why(tmp_path: Path) -> None:
    """`list` says why each container that ended badly did so, in the sentence that `why` has, and nothing of others."""
    now = time.time_ns()
    found = [
        item("old", "app", "a" * 64, cgroup=1, status=1 << 8, known=True, ended_ns=now - 7300 * SECOND),
        item("runs", "app", "b" * 64, cgroup=2, running=True),
        item("done", "app", "c" * 64, cgroup=3, known=True, ended_ns=now),
    ]
    missing = record(1, name="open", text=b"/etc/cart.yaml", args=[1], result=-2)
    with FakeRecorder(tmp_path, found, [reply(missing)]) as agent:
        rows = events(run_cli("traceloop", "list", "--agent", agent.address, "-o", "json").stdout)
        text = run_cli("traceloop", "list", "--agent", agent.address).stdout
    why = {row["pod"]: row["why"] for row in rows}
    assert "could not open /etc/cart.yaml: no such file (ENOENT)" in why["old"] and why["old"] in text
    assert not why["runs"] and not why["done"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-3, "0s ago"), (59, "59s ago"), (60, "1m ago"), (7199, "1h ago"), (200_000, "2d ago")],
)
def test_ages(seconds: int, expected: str) -> None:
    """An age is in the unit that suits it, and never negative, whatever the clocks of the nodes say."""
    assert ago(10**18, 10**18 + seconds * SECOND) == expected
