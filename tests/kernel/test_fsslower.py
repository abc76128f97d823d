"""fsslower on this kernel: with no least time every call, with one only what took as long."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, start_json
from tests.pods import run_in

#: What tests/workloads/slow.c does in its folder: (operation, path, error, bytes): how often.
CALLS = {
    ("open", "", None, 0): 1,
    ("open", "slow/file", None, 0): 1,
    ("write", "slow/file", None, 4096): 13,
    ("write", "slow/file", None, 1024): 7,
    ("read", "slow/file", None, 512): 11,
    ("read", "slow/file", None, 1024): 5,
    ("read", "slow/file", None, 0): 1,
    ("sync", "slow/file", None, 0): 6,
    ("open", "slow/other", None, 0): 17,
    ("open", "slow/none", "ENOENT", 0): 19,
    ("read", "", "EISDIR", 0): 2,
    ("open", "slow/slow", None, 0): 1,
    ("write", "slow/slow", None, 4096): 1,
    ("read", "slow/slow", None, 100): 3,
}


def way(row: dict, folder: Path) -> tuple[object, ...]:
    return row["operation"], row["path"].removeprefix(str(folder)).lstrip("/"), row["error"], row["bytes"]


def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of reads, writes, opens and syncs of files I see exactly as many as there were, and none of what is no file."""
    cli = start_json(start_cli, agent, "fsslower", "--comm", "slow", "--min", "0")
    run_in(bare("shop", "cart-0").cgroup, workload("slow"), cwd=tmp_path)
    rows = rows_of(cli)
    assert Counter(way(row, tmp_path) for row in rows) == CALLS
    assert {row["type"] for row in rows if row["path"].startswith(f"{tmp_path}/slow/") and not row["error"]} != {""}


def test_only_slow_ones(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --min I see what took at least so long, and how long it took."""
    cli = start_json(start_cli, agent, "fsslower", "--comm", "slow", "--min", "250ms", "--ops", "read")
    run_in(bare("shop", "cart-0").cgroup, workload("slow"), cwd=tmp_path)
    rows = rows_of(cli)
    assert {row["operation"] for row in rows} == {"read"}
    assert all(row["latency"] >= 250_000_000 for row in rows)
    slow = [row["latency"] for row in rows if row["path"] == f"{tmp_path}/slow/slow"]
    assert len(slow) == 3
    assert min(slow) >= 300_000_000
