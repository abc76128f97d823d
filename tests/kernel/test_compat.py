"""Programs that make 32-bit system calls, whose numbers and arguments are others."""

from __future__ import annotations

import platform
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, Cli, events, wait_until
from tests.kernel.judged import watching
from tests.pods import run_in


@pytest.fixture
def compat(workload: Callable[[str], Path]) -> Path:
    """The workload, where the kernel takes its calls."""
    if platform.machine() != "x86_64":
        pytest.skip("its calls are x86's")
    binary = workload("compat")
    status = subprocess.run([binary], check=False).returncode
    if status == -signal.SIGSEGV:
        pytest.skip("this kernel emulates no 32-bit calls (CONFIG_IA32_EMULATION)")
    assert status == 0
    return binary


@pytest.fixture
def rows(agent: Agent, start_cli: Callable[..., Cli], bare: Any, compat: Path, tmp_path: Path) -> Any:
    """Gives a gadget's rows of a kind of calls."""

    def see(gadget: str, kind: str) -> list[dict[str, Any]]:
        cli = start_cli(gadget, "--agent", agent.address, "-o", "json", "-p", "compat-0", "--comm", "compat")
        wait_until(lambda: f"{gadget}: started" in agent.log.read_text(), "the stream's start")
        run_in(bare("shop", "compat-0").cgroup, "unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh",
               compat, kind, cwd=tmp_path)  # fmt: skip
        out, err = cli.finish()
        assert "nothing lost" in err
        return events(out)

    return see


def test_opens(rows) -> None:
    """Of a 32-bit program's opens I see each, as those of any other."""
    seen = Counter((e["path"], e["flags"], e["mode"], e["error"]) for e in rows("opensnoop", "opens"))
    assert seen == {
        ("missing", "O_RDONLY|O_CLOEXEC", "0000", "ENOENT"): 37,
        ("missing", "O_RDWR", "0000", "ENOENT"): 41,
        ("made", "O_WRONLY|O_CREAT|O_TRUNC", "0604", None): 43,
        ("made", "O_RDWR|O_CREAT|O_EXCL", "0640", "EEXIST"): 47,
    }


def test_prints(rows) -> None:
    """What a 32-bit program prints on a terminal I see as that of any other."""
    seen = Counter((e["data"], e["bytes"]) for e in rows("ttysnoop", "prints"))
    assert seen == {("plain\n", 6): 13, ("one two\n", 8): 17, ("", 1): 1}


def test_execs(rows) -> None:
    """Of a 32-bit program's execs that fail I see each, with its arguments."""
    failed = [e for e in rows("execsnoop", "execs") if e["error"]]
    seen = Counter((e["exe"], tuple(e["args"]), e["args_truncated"], e["error"]) for e in failed)
    assert seen == {("/does/not/exist", ("started", "a b"), False, "ENOENT"): 11 + 13}


def test_connects(rows) -> None:
    """Of a 32-bit program's connection attempts I see how each ended."""
    seen = Counter((e["result"], e["error"]) for e in rows("tcpconnect", "connects"))
    assert seen == {("refused", "ECONNREFUSED"): 17, ("ok", None): 7}


def test_connections(rows) -> None:
    """Of a 32-bit program's connections I see connect, accept and both closes."""
    assert Counter(e["operation"] for e in rows("tcptracer", "connects")) == {"connect": 7, "accept": 7, "close": 14}


def test_binds(rows) -> None:
    """Of a 32-bit program's binds I see each, by whichever call."""
    seen = Counter((e["protocol"], e["address"]["addr"], e["error"]) for e in rows("bindsnoop", "binds"))
    assert seen == {("tcp", "0.0.0.0", None): 11 + 13}


def test_listens(rows) -> None:
    """Of a 32-bit program's listens I see each, by whichever call."""
    seen = Counter((e["protocol"], e["backlog"], e["error"]) for e in rows("listensnoop", "binds"))
    assert seen == {("tcp", 5, None): 11 + 13}


def test_privileged_x32(rows) -> None:
    """A program cannot hide its privileged calls by making them as x32 calls."""
    seen = Counter((e["call"], e["request"]) for e in rows("privsnoop", "x32"))
    assert seen == {("chroot", "none"): 17, ("ptrace", "attach"): 19}


def test_mounts_x32(rows) -> None:
    """A program cannot hide its mounts by making them as x32 calls."""
    seen = Counter((e["operation"], e["target"]) for e in rows("mountsnoop", "x32"))
    assert seen == {("umount", "/not/there"): 23}


def test_binds_x32(rows) -> None:
    """A program cannot hide its binds by making them as x32 calls."""
    assert [e["fd"] for e in rows("bindsnoop", "x32")] == [-1] * 29


def test_listens_x32(rows) -> None:
    """A program cannot hide its listens by making them as x32 calls."""
    assert [e["fd"] for e in rows("listensnoop", "x32")] == [-1] * 31


def test_judged(bare, compat: Path, tmp_path: Path) -> None:
    """A program cannot hide its calls from rules by making them as 32-bit calls."""
    up = 'ip link set lo up; exec "$@"'
    with watching() as rows:
        for kind in ("opens", "execs", "connects", "binds"):
            run_in(bare().cgroup, "unshare", "--net", "sh", "-c", up, "sh", compat, kind, cwd=tmp_path)
    files = ("open", "openat", "openat2", "creat", "execve", "execveat")
    own = [row for row in rows if row["comm"] == "compat" and not row["ppid"]]
    short = str(tmp_path)
    assert Counter(
        (row["call"], row["result"] >= 0, row["path"].removeprefix(f"{short}/")) for row in own if row["call"] in files
    ) == {
        ("open", False, "missing"): 37,
        ("openat", False, "missing"): 41,
        ("creat", True, "made"): 43,
        ("openat2", False, "made"): 47,
        ("execve", False, "/does/not/exist"): 11,
        ("execveat", False, "/does/not/exist"): 13,
    }
    assert Counter(
        (row["call"], row["result"] >= 0, row["fd_type"])
        for row in own
        if row["call"] in ("connect", "accept4", "bind", "listen")
    ) == {
        ("connect", False, "4"): 17,
        ("connect", True, "4"): 7,
        ("accept4", True, "4"): 7,
        ("bind", True, "4"): 11 + 13 + 1,
        ("listen", True, "4"): 11 + 13 + 1,
    }
    assert {row["dst"].split(" ")[0] for row in own if row["call"] == "connect"} == {"127.0.0.1"}
