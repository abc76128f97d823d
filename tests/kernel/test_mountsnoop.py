"""mountsnoop on this kernel: the old and the new way to mount, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, start_json
from tests.pods import run_in

#: What tests/workloads/mounts.c does: (operation, source, target, type, flags, error): how often.
MOUNTS = {
    ("mount", "", "/", "", "MS_REC|MS_PRIVATE", None): 1,
    ("mount", "shelf", "/tmp/place", "tmpfs", "MS_RDONLY|MS_NOSUID", None): 13,
    ("mount", "/tmp/place", "/tmp/other", "", "MS_BIND|MS_REC", None): 13,
    ("umount", "", "/tmp/other", "", "MNT_DETACH", None): 13,
    ("umount", "", "/tmp/place", "", "0", None): 13,
    ("fsopen", "", "", "tmpfs", "0", None): 7,
    ("fsmount", "", "", "", "MS_NOSUID", None): 7,
    ("move mount", "", "/tmp/place", "", "0", None): 7,
    ("open tree", "/tmp/place", "", "", "MS_BIND", None): 7,
    ("umount", "", "/tmp/place", "", "UMOUNT_NOFOLLOW", None): 7,
    ("mount", "none", "/tmp/not/there", "tmpfs", "0", "ENOENT"): 5,
    ("mount", "none", "/tmp/place", "nosuchfs", "0", "ENODEV"): 5,
    ("umount", "", "/tmp/place", "", "MNT_FORCE", "EINVAL"): 5,
    ("fsmount", "", "", "", "0", "EBADF"): 5,
}


def way(row: dict) -> tuple[object, ...]:
    return tuple(row[name] for name in ("operation", "source", "target", "type", "flags", "error"))


def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of mounts and unmounts, the old and the new way, and of each failure I see exactly as many as happened."""
    cli = start_json(start_cli, agent, "mountsnoop", "-p", "cart-0")
    run_in(bare("shop", "cart-0").cgroup, workload("mounts"), cwd=tmp_path)
    rows = rows_of(cli)
    assert Counter(map(way, rows)) == MOUNTS
    assert all(row["latency"] > 0 for row in rows)


def test_only_failed(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --failed I see only what failed."""
    cli = start_json(start_cli, agent, "mountsnoop", "--failed")
    run_in(bare().cgroup, workload("mounts"), cwd=tmp_path)
    assert Counter(map(way, rows_of(cli))) == {key: count for key, count in MOUNTS.items() if key[-1]}


def test_calls_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """A mount that seccomp kept from happening by SIGSYS failed, and --failed shows it."""
    cli = start_json(start_cli, agent, "mountsnoop", "--comm", "trapped", "--failed")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    rows = rows_of(cli)
    assert Counter(map(way, rows)) == {("mount", "", "/trapped", "", "0", "EPERM"): 13}
    assert {row["latency"] for row in rows} == {None}  # not since the fsopen before, which succeeded
