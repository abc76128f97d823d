"""The parts of what the node says of a container: names that are alike, limits of both versions of cgroups, locks."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path

import pytest

from agent.inspect import usage, waits
from agent.inspect.paths import Walk, most_alike
from agent.inspect.service import Inspector
from agent.processes import Process
from gadget import syscalls
from gadget._generated import gadget_pb2 as pb

NUMBERS = syscalls.numbers(os.uname().machine)


def walked(root: Path, path: str) -> list[tuple[str, bool]]:
    """The components of a path below a root, and whether they are there."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        with Walk(fd) as walk:
            return [(each.path, each.exists) for each in walk.along(path)]
    finally:
        os.close(fd)


def test_most_alike() -> None:
    """Of many names in a folder I am told those that could be meant, the likeliest first; of a few all."""
    many = [f"{at:05}.log" for at in range(3000)]
    found = most_alike("prices.yaml", [*many, "prices.yml", "old.yaml", "price.yaml", "..data"])
    assert set(found[:2]) == {"price.yaml", "prices.yml"} and "..data" not in found
    assert most_alike("prices.yaml", many) == []
    assert most_alike("prices.yaml", ["b", "a", "..2026_01_01"]) == ["a", "b"]


def test_hostile_names_cost_little() -> None:
    """A folder full of long names that are all alike costs less than a second."""
    letters = random.Random(7)
    names = ["".join(letters.choices("ab", k=255)) for _ in range(4096)]
    began = time.monotonic()
    most_alike("ab" * 127, names)
    assert time.monotonic() - began < 1


def test_walk(tmp_path: Path) -> None:
    """A path ends at the first part that is not there; dots and double slashes are no parts; a file is no folder."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/app").touch()
    assert walked(tmp_path, "//etc/./apq/x") == [("/etc", True), ("/etc/apq", False)]
    assert walked(tmp_path, "/etc/app/x") == [("/etc", True), ("/etc/app", True), ("/etc/app/x", False)]
    assert len(walked(tmp_path, "/.." * 1000)) == 64


def test_walk_leaves_nothing_open(tmp_path: Path) -> None:
    """Looking at paths costs no file descriptors, whatever is on them."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("/none")
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/loop", "/gone", "/fifo", "/none", "/fifo/x", "/" + "x" * 300):
        walked(tmp_path, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_fifo_is_not_opened(tmp_path: Path) -> None:
    """A FIFO is looked at, not opened: who waits for a reader of it does not go on."""
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path, os.O_PATH)
    with Walk(fd) as walk:
        (found,) = walk.along("/fifo")
    os.close(fd)
    assert stat.S_ISFIFO(found.mode)
    with pytest.raises(OSError, match="No such device"):
        os.open(tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK)


@pytest.mark.parametrize("version", [1, 2])
def test_limit_above(tmp_path: Path, version: int) -> None:
    """Of a container and its pod that limit is told of which the least is left, of both versions of cgroups."""
    mount = tmp_path / "unified"
    top = tmp_path / "pids" if version == 1 else mount
    (mount / "pod/app").mkdir(parents=True)
    (top / "pod/app").mkdir(parents=True, exist_ok=True)
    for folder, limit, current in (("pod/app", "max", 7), ("pod", "32", 31)):
        (top / folder / "pids.max").write_text(f"{limit}\n")
        (top / folder / "pids.current").write_text(f"{current}\n")
    memory = tmp_path / "memory" if version == 1 else mount
    (memory / "pod/app").mkdir(parents=True, exist_ok=True)
    names = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    (memory / f"pod/app/memory.{names[0]}").write_text("9223372036854771712" if version == 1 else "max")
    (memory / f"pod/app/memory.{names[1]}").write_text("4096")
    found = {each.name: each for each in usage.of_cgroup(mount / "pod/app", mount)}
    assert (found["pids"].limit, found["pids"].used) == (32, 31)
    assert (found["memory"].HasField("limit"), found["memory"].used) == (False, 4096)


def test_locks_of_files(tmp_path: Path) -> None:
    """Who waits for a lock of a file is told from who holds it by the kernel's own list; an open file's has no holder."""
    (tmp_path / "locks").write_text(
        "1: OFDLCK ADVISORY  WRITE -1 00:2a:14 0 EOF\n1: -> OFDLCK ADVISORY  WRITE 71 00:2a:14 0 EOF\n"
        "2: FLOCK  ADVISORY  WRITE 41 08:01:131 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 72 08:01:131 0 EOF\n"
        "2:  -> FLOCK  ADVISORY  WRITE 73 08:01:131 0 EOF\n"
    )
    (tmp_path / "41").mkdir()
    (tmp_path / "41/comm").write_text("backup\n")
    blocked = [pb.Blocked(pid=pid, tid=pid, number=NUMBERS["flock"], args=[3] * 6) for pid in (71, 72, 73)]
    found = [(each.tid, each.holder.pid, each.holder.comm) for each in waits.file_locks(blocked, tmp_path)]
    assert found == [(72, 41, "backup"), (73, 41, "backup")]


def test_process_that_is_over() -> None:
    """A process whose number another may have by now answers nothing."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    process = Process(pid)
    os.waitpid(pid, 0)
    assert not process.is_there
    assert process.names("fd", 10) == []
    with pytest.raises(OSError, match="No such"):
        process.read("status")
    process.close()


class _Blind:
    """A tracker of an agent that has the processes of its own pod alone, as with least privilege."""

    def __init__(self, folder: Path) -> None:
        self.mount, self.proc, self._folder = folder, Path("/proc"), folder / "app"
        self._folder.mkdir()
        (self._folder / "cgroup.procs").write_text("0\n0\n")

    def containers(self) -> list[object]:
        """One."""
        return [type("Item", (), {"id": 7, "ended": 0, "container": None})()]

    def folder(self, item: object) -> Path:
        """Its folder."""
        return self._folder


def test_without_the_right(tmp_path: Path) -> None:
    """An agent that may not look at processes says so, and tells what the cgroup tells."""
    blind = _Blind(tmp_path)
    (tmp_path / "app/memory.max").write_text("1048576")
    (tmp_path / "app/memory.current").write_text("4096")
    reply = Inspector("node-a", blind).inspect(pb.InspectRequest(cgroup_id=7, paths=["/etc"]))  # type: ignore[arg-type]
    assert list(reply.missing) == ["files, limits and sockets: the agent does not see the node's processes"]
    assert [(each.name, each.limit, each.used) for each in reply.usages][:1] == [("memory", 1 << 20, 4096)]
