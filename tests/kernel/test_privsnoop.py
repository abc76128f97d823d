"""privsnoop on this kernel: each call with what it asked for, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, start_json
from tests.pods import run_in

#: What tests/workloads/privs.c does: (call, request, namespaces, id, name): how often.
CALLS = {
    ("unshare", "none", "CLONE_NEWUTS|CLONE_NEWIPC", -1, ""): 13,
    ("chroot", "none", "0", -1, "/"): 11,
    ("chroot", "none", "0", -1, "/not/there"): 5,
    ("memfd create", "none", "0", -1, "memo"): 7,
    ("ptrace", "traceme", "0", -1, ""): 3,
    ("ptrace", "attach", "0", -1, ""): 2,
    ("seccomp", "get action avail", "0", -1, ""): 17,
    ("bpf", "prog load", "0", -1, ""): 19,
    ("delete module", "none", "0", -1, "no_such_module"): 23,
    ("setns", "none", "CLONE_NEWNET", -1, ""): 29,
    ("setresgid", "none", "0", 1234, ""): 31,
    ("setuid", "none", "0", 65534, ""): 31,
    ("setuid", "none", "0", 0, ""): 31,
    ("keyctl", "get keyring id", "0", -1, ""): 37,
    ("perf event open", "none", "0", -1, ""): 2,
    ("io uring setup", "none", "0", -1, ""): 3,
    ("userfaultfd", "none", "0", -1, ""): 5,
    ("landlock restrict self", "none", "0", -1, ""): 7,
    ("pivot root", "none", "0", -1, "/not/there"): 11,
}
ELEMENTS = ("bpf", "map lookup elem", "0", -1, "")


def way(row: dict) -> tuple[object, ...]:
    return tuple(row[name] for name in ("call", "request", "namespaces", "id", "name"))


def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of each call I see exactly as many as were made, with what was asked for, and why some failed."""
    cli = start_json(start_cli, agent, "privsnoop", "--comm", "privs")
    run_in(bare("shop", "cart-0").cgroup, workload("privs"), cwd=tmp_path)
    rows = rows_of(cli)
    assert Counter(map(way, rows)) == CALLS
    errors = Counter((row["call"], row["error"]) for row in rows if row["call"] in ("chroot", "setuid", "setns"))
    assert errors == {
        ("chroot", None): 11,
        ("chroot", "ENOENT"): 5,
        ("setuid", None): 31,
        ("setuid", "EPERM"): 31,
        ("setns", "EBADF"): 29,
    }
    details = {(row["call"], row["detail"]) for row in rows}
    assert details >= {
        ("unshare", "NEWUTS|NEWIPC"),
        ("chroot", "/not/there"),
        ("ptrace", "traceme"),
        ("ptrace", "attach 4194303"),
        ("bpf", "prog load"),
        ("setuid", "0"),
        ("setuid", "65534"),
        ("userfaultfd", None),
    }
    assert {row["tpid"] for row in rows if row["request"] == "attach"} == {4194303}


def test_elements(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --elements I see also what programs do with maps; with --failed only what failed."""
    cli = start_json(start_cli, agent, "privsnoop", "--comm", "privs", "--elements", "--failed")
    run_in(bare().cgroup, workload("privs"), cwd=tmp_path)
    seen = Counter(map(way, rows_of(cli)))
    assert seen[ELEMENTS] == 41
    assert seen["chroot", "none", "0", -1, "/not/there"] == 5
    assert not seen["chroot", "none", "0", -1, "/"]


def test_calls_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """A call that seccomp kept from happening by SIGSYS failed, and --failed shows it."""
    cli = start_json(start_cli, agent, "privsnoop", "--comm", "trapped", "--failed")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    assert Counter((row["call"], row["id"], row["name"], row["error"]) for row in rows_of(cli)) == {
        ("setuid", 0, "", "EPERM"): 3,
        ("chroot", -1, "/trapped", "EPERM"): 5,
        ("memfd create", -1, "trapped", "EPERM"): 11,
    }
