"""listensnoop on this kernel: every way a listen can end, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, run_workload, start_json
from tests.pods import run_in

#: What tests/workloads/binds.c does: (protocol, address, port, options, backlog, error): how often.
LISTENS = {
    ("tcp", "0.0.0.0", 7001, "SO_REUSEADDR", 5, None): 13,
    ("udp", "::", 7002, "SO_REUSEPORT|IPV6_V6ONLY", 5, "ENOTSUP"): 11,
    ("tcp", "0.0.0.0", "chosen", "0", 1 << 30, None): 3,
    ("unknown", None, None, "0", 7, "ENOTSOCK"): 19,
    ("unknown", None, None, "0", 9, "EBADF"): 2,
}


def way(row: dict) -> tuple[object, ...]:
    where = (None, None)
    if row["address"]:
        port = row["address"]["port"]
        where = row["address"]["addr"], port if 0 < port < 8000 else "chosen"
    return row["protocol"], *where, row["options"], row["backlog"], row["error"]


def test_exact_count(agent, start_cli, make_pod, workload) -> None:
    """Of listens that succeed and of each way to fail I see exactly as many as happened, with address and options."""
    cli = start_json(start_cli, agent, "listensnoop", "-p", "cart-0")
    container = run_workload(make_pod("shop", "cart-0"), workload("binds"))
    assert container.log.read_text() == "done\n"
    rows = rows_of(cli)
    assert Counter(map(way, rows)) == LISTENS
    assert {row["queue"] for row in rows if row["backlog"] == 5 and not row["error"]} == {5}
    assert all(0 < row["queue"] < 1 << 30 for row in rows if row["backlog"] == 1 << 30)


def test_only_failed(agent, start_cli, make_pod, workload) -> None:
    """With --failed I see only the listens that failed."""
    cli = start_json(start_cli, agent, "listensnoop", "--failed")
    run_workload(make_pod(), workload("binds"))
    assert Counter(map(way, rows_of(cli))) == {key: count for key, count in LISTENS.items() if key[-1]}


def test_calls_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """A listen that seccomp kept from happening by SIGSYS failed, and --failed shows it."""
    cli = start_json(start_cli, agent, "listensnoop", "--comm", "trapped", "--failed")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    rows = rows_of(cli)
    assert Counter((row["protocol"], row["backlog"], row["queue"], row["error"]) for row in rows) == {
        ("tcp", 5, 0, "EPERM"): 19
    }
