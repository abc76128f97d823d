"""Lines of net/tcp of sockets that no process has."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent._generated.readers.snapshot_socket import Reader, parse
from agent.containers.tracker import Cgroup

TIME_WAIT = (
    b"   1: 0100007F:1F90 0200007F:A2B4 06 00000007:00000003 03:00000E5C 00000000     0        0 0 3 0000000000000000"
)


def test_without_process() -> None:
    """A connection in TIME-WAIT has its ends, queues and state, and no process."""
    found = parse(TIME_WAIT)
    assert found and (found["state"], found["unsent"], found["received"], found["fd"]) == (6, 7, 3, -1)
    mapped = bytes(10) + b"\xff\xff\x7f\x00\x00"
    assert (found["src"], found["dst"]) == ((mapped + b"\1", 8080), (mapped + b"\2", 41652))


def test_version_6() -> None:
    """An IPv6 address is whole."""
    found = parse(TIME_WAIT.replace(b"0100007F:", b"000080FE00000000FF005450B5A5FCFE:"))
    assert found and found["src"][0].hex() == "fe80000000000000505400fffefca5b5"


@pytest.mark.parametrize(
    "line",
    [b"", b"  sl  local_address", TIME_WAIT.replace(b" 0 3 ", b" 4711 3 "), TIME_WAIT.replace(b"0100007F", b"01")],
)
def test_others(line: bytes) -> None:
    """A socket that a process has, and what makes no sense, is left out: the walk of files finds the first."""
    assert parse(line) is None


def test_more_than_are_read(tmp_path: Path) -> None:
    """Sockets that there is no room for, and lines that are not looked at, are told as lost."""
    cgroup, process = tmp_path / "cgroup/pod", tmp_path / "proc/17"
    for folder in (cgroup, process / "net", process / "ns"):
        folder.mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text("17\n")
    (process / "stat").write_text(f"17 (app) S 1 {' '.join('0' * 30)}")
    (process / "ns/net").symlink_to("net:[99]")
    (process / "net/tcp").write_bytes(b"head\n" + 7 * (TIME_WAIT + b"\n"))
    reader = Reader(tmp_path / "cgroup", tmp_path / "proc", most_lines=5, most_rows=3)
    found = [*reader.read([Cgroup(7, None, 0, "/pod")])]
    assert sum(bool(each.values) for each in found) == 3
    assert sum(each.lost for each in found) == 5 - 3 + 1
