"""What `memtop` reads of both versions of cgroups, from files as kernels have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.containers.tracker import Cgroup
from agent.readers import find_reader
from gadget.errors import Unsupported
from gadget.kinds.numbers import COUNT_UNKNOWN

VERSION_2 = {
    "memory.current": "7340032\n",
    "memory.max": "max\n",
    "memory.stat": "anon 4096000\nfile 3145728\nkernel 8192\n",
    "memory.events": "low 0\nhigh 3\nmax 17\noom 2\noom_kill 1\noom_group_kill 0\n",
}
VERSION_1 = {
    "memory.usage_in_bytes": "7340032\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.max_usage_in_bytes": "8000000\n",
    "memory.stat": "cache 1\nrss 2\ntotal_cache 3145728\ntotal_rss 4096000\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "memory.failcnt": "17\n",
}
COMMON = {"usage": 7340032, "rss": 4096000, "cache": 3145728, "max": 17, "oom_kill": 1}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def read(reader: Any, *names: str) -> dict[int, dict[str, int]]:
    containers = [Cgroup(at, None, 0, f"/pod/{name}") for at, name in enumerate(names, 7)]
    return {each.cgroup_id: dict(each.values) for each in reader.read(containers)}


def test_version_2(tmp_path: Path) -> None:
    """On cgroup version 2 I see memory, the least limit of container and pod, and each event; `?` is what an old kernel does not tell."""
    write(tmp_path, {"cgroup.controllers": "cpu io memory pids\n"})
    write(tmp_path / "pod", {"memory.max": "67108864\n"})
    write(tmp_path / "pod/app", VERSION_2)
    found = read(find_reader("memtop", tmp_path, tmp_path), "app")
    assert found == {7: {**COMMON, "limit": 64 << 20, "peak": COUNT_UNKNOWN, "high": 3, "oom": 2}}
    write(tmp_path / "pod/app", {"memory.peak": "8000000\n", "memory.max": "33554432\n"})
    (row,) = read(find_reader("memtop", tmp_path, tmp_path), "app").values()
    assert (row["peak"], row["limit"]) == (8_000_000, 32 << 20)


def test_version_1(tmp_path: Path) -> None:
    """Where version 1 has the memory controller beside version 2 I see the same, but what only version 2 counts."""
    unified = write(tmp_path / "unified", {"cgroup.controllers": "\n"})
    write(tmp_path / "memory", {"memory.usage_in_bytes": "0\n"})
    write(tmp_path / "memory/pod/app", VERSION_1)
    found = read(find_reader("memtop", unified, tmp_path), "app")
    assert found == {7: {**COMMON, "limit": 0, "peak": 8_000_000, "high": COUNT_UNKNOWN, "oom": COUNT_UNKNOWN}}


def test_once_more(tmp_path: Path) -> None:
    """A container that has ended since the last table is in the next one once more, as it was read last."""
    write(tmp_path, {"cgroup.controllers": "memory\n"})
    for name in ("one", "two"):
        write(tmp_path / "pod" / name, VERSION_2)
    reader = find_reader("memtop", tmp_path, tmp_path)
    assert {id_: row.get("ended") for id_, row in read(reader, "one", "two").items()} == {7: None, 8: None}
    assert {id_: row.get("ended") for id_, row in read(reader, "one").items()} == {7: None, 8: 1}
    assert list(read(reader, "one")) == [7]


def test_no_controller(tmp_path: Path) -> None:
    """On a node that counts no memory I am told so in one line."""
    write(tmp_path / "unified", {"cgroup.controllers": "cpu\n"})
    with pytest.raises(Unsupported, match="this node counts no memory"):
        find_reader("memtop", tmp_path / "unified", tmp_path)
