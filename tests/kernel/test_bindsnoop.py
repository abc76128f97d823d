"""bindsnoop on this kernel: every way a bind can end, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, run_workload, start_json
from tests.pods import run_in

#: What tests/workloads/binds.c does: (protocol, address, port, options, error): how often.
BINDS = {
    ("tcp", "0.0.0.0", 7001, "SO_REUSEADDR", None): 13,
    ("udp", "::", 7002, "SO_REUSEPORT|IPV6_V6ONLY", None): 11,
    ("tcp", "0.0.0.0", 7003, "0", None): 1,
    ("tcp", "0.0.0.0", 7003, "0", "EADDRINUSE"): 7,
    ("tcp", "192.0.2.1", 80, "0", "EADDRNOTAVAIL"): 5,
    ("tcp", "0.0.0.0", "chosen", "0", None): 17,
    ("tcp", "0.0.0.0", 7004, "0", "EINVAL"): 17,
    ("unknown", "0.0.0.0", 7005, "0", "ENOTSOCK"): 19,
    ("unknown", "0.0.0.0", 7006, "0", "EBADF"): 2,
}


def way(row: dict) -> tuple[object, ...]:
    port = row["address"]["port"]
    shown = port if 0 < port < 8000 else "chosen"
    return row["protocol"], row["address"]["addr"], shown, row["options"], row["error"]


def test_exact_count(agent, start_cli, make_pod, workload) -> None:
    """Of binds that succeed and of each way to fail I see exactly as many as happened, with address and options."""
    cli = start_json(start_cli, agent, "bindsnoop", "-p", "cart-0")
    container = run_workload(make_pod("shop", "cart-0"), workload("binds"))
    assert container.log.read_text() == "done\n"
    rows = rows_of(cli)
    assert Counter(map(way, rows)) == BINDS
    assert all(row["address"]["port"] for row in rows)
    assert {(row["namespace"], row["pod"], row["comm"]) for row in rows} == {("shop", "cart-0", "workload")}


def test_only_failed(agent, start_cli, make_pod, workload) -> None:
    """With --failed I see only the binds that failed."""
    cli = start_json(start_cli, agent, "bindsnoop", "--failed")
    run_workload(make_pod(), workload("binds"))
    assert Counter(map(way, rows_of(cli))) == {key: count for key, count in BINDS.items() if key[-1]}


def test_calls_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """A bind that seccomp kept from happening by SIGSYS failed, and --failed shows it."""
    cli = start_json(start_cli, agent, "bindsnoop", "--comm", "trapped", "--failed")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    assert Counter(map(way, rows_of(cli))) == {("tcp", "127.0.0.1", 7007, "0", "EPERM"): 17}
