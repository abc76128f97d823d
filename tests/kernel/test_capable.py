"""capable on this kernel: checks of capabilities that are granted and denied, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from agent.libbpf import kernel_has
from tests.conftest import run_cli
from tests.live import rows_of, start_json
from tests.pods import run_in

#: What tests/workloads/caps.c is asked for: (capability, result, syscall): how often.
CHECKS = {
    ("CAP_SYS_CHROOT", "granted", "chroot"): 101,
    ("CAP_SYS_ADMIN", "granted", "swapoff"): 7,
    ("CAP_SYS_CHROOT", "denied", "chroot"): 13,
    ("CAP_SYS_ADMIN", "denied", "swapoff"): 5,
}
#: The same, of checks without audit.
UNAUDITED = {("CAP_SYS_ADMIN", "granted", "mremap"): 17}
NAMES = {name for _, _, name in CHECKS}
has_tracepoint = pytest.mark.skipif(not kernel_has("trace_event_raw_cap_capable"), reason="needs Linux 6.14")


def way(row: dict) -> tuple[object, ...]:
    return row["capability"], row["result"], row["syscall"]


@has_tracepoint
def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --every I see each check, with its result and the call; else the first, the 10th and the 100th."""
    every = start_json(start_cli, agent, "capable", "--comm", "caps", "--every")
    few = start_json(start_cli, agent, "capable", "--comm", "caps")
    run_in(bare("shop", "cart-0").cgroup, workload("caps"), cwd=tmp_path)
    rows = [row for row in rows_of(every) if row["syscall"] in NAMES]
    assert Counter(map(way, rows)) == CHECKS
    assert {row["level"] for row in rows} == {0}
    counts = [(*way(row), row["count"]) for row in rows_of(few) if row["syscall"] in NAMES]
    assert counts == [
        *(("CAP_SYS_CHROOT", "granted", "chroot", count) for count in (1, 10, 100)),
        ("CAP_SYS_ADMIN", "granted", "swapoff", 1),
        *(("CAP_SYS_CHROOT", "denied", "chroot", count) for count in (1, 10)),
        ("CAP_SYS_ADMIN", "denied", "swapoff", 1),
    ]


@has_tracepoint
def test_checks_without_audit(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Checks that the kernel makes without audit, as for memory that is mapped, I see with --unaudited only, all of them."""
    usual = start_json(start_cli, agent, "capable", "--comm", "caps", "--every")
    every = start_json(start_cli, agent, "capable", "--comm", "caps", "--every", "--unaudited")
    run_in(bare("shop", "cart-0").cgroup, workload("caps"), cwd=tmp_path)
    rows = rows_of(usual)
    assert not [row for row in rows if row["syscall"] in ("mmap", "mremap", "brk", "mprotect")]
    names = {*NAMES, "mremap"}
    assert Counter(way(row) for row in rows_of(every) if row["syscall"] in names) == CHECKS | UNAUDITED


@has_tracepoint
def test_only_failed(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --failed I see only checks that were denied."""
    cli = start_json(start_cli, agent, "capable", "--comm", "caps", "--every", "--failed")
    run_in(bare().cgroup, workload("caps"), cwd=tmp_path)
    rows = [row for row in rows_of(cli) if row["syscall"] in NAMES]
    assert Counter(map(way, rows)) == {key: count for key, count in CHECKS.items() if key[1] == "denied"}


@pytest.mark.skipif(kernel_has("trace_event_raw_cap_capable"), reason="this kernel has what it needs")
def test_older_kernel() -> None:
    """On a kernel that cannot tell of capabilities I am told so in one line."""
    done = run_cli("capable", "--local")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "lacks the hook cap_capable" in done.stderr
