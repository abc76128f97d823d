"""Files, mounts, terminals and disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from gadget.kinds.times import DURATION_UNKNOWN
from tests import disks
from tests.vm.cases.processes import running
from tests.vm.machine import Core, Stream, container


def opensnoop(core: Core) -> None:
    """Of every kind of open and of failure I see exactly as many as happened, with the full path."""
    for leftover in ("again", "fifo", "file", "link", "made"):
        Path("/tmp", leftover).unlink(missing_ok=True)
    for leftover in ("deep", "jail"):
        shutil.rmtree(f"/tmp/{leftover}", ignore_errors=True)
    with Stream(core.tracker, "opensnoop", full_path="true", comm="workload") as stream, container() as app:
        core.work(app, "odd_opens")
        rows = stream.rows()
    seen = Counter((row["path"], row["full_path"], row["error"]) for row in rows)
    odd = {
        ("fifo", "/tmp/fifo", "EINTR"): 3,
        ("/leaf", "/tmp/deep/leaf", None): 5,
        ("untouched", "/tmp/untouched", "ENOENT"): 23,
        ("leaf", "/tmp/gone/leaf", "ENOENT"): 37,
        ("/inside", "/tmp/jail/inside", "ENOENT"): 41,
    }
    assert {key: seen[key] for key in odd} == odd, seen
    with Stream(core.tracker, "opensnoop", full_path="true", comm="workload") as stream, container() as app:
        core.work(app, "opens")
        core.work(app, "trapped")
        rows = stream.rows()
    own = [row for row in rows if row["path"].startswith(("/tmp", "./", "leaf")) or not row["path"]]
    seen = Counter((row["path"], row["full_path"], row["mode"], row["error"]) for row in own)
    assert seen == {
        ("/tmp/file", "/tmp/file", 0o600, None): 1 + 1,
        ("/tmp/trapped", "/tmp/trapped", 0, "EPERM"): 7,
        ("/tmp/file", "/tmp/file", 0, None): 101 + 23,
        ("/tmp/missing", "/tmp/missing", 0, "ENOENT"): 13,
        ("/tmp/file/below", "/tmp/file/below", 0, "ENOTDIR"): 7,
        ("/tmp", "/tmp", 0, "EISDIR"): 5,
        ("/tmp/file", "/tmp/file", 0o640, "EEXIST"): 3,
        ("/tmp/link", "/tmp/link", 0, "ELOOP"): 11,
        ("", "", 0, "EFAULT"): 2,
        ("./file", "/tmp/file", 0, None): 17,
        ("/tmp/made", "/tmp/made", 0o604, None): 19,
        ("/tmp", "/tmp", 0, None): 29,
        ("/tmp/deep/deeper", "/tmp/deep/deeper", 0, None): 1,
        ("leaf", "/tmp/deep/deeper/leaf", 0o600, None): 31,
    }, seen
    assert all((row["fd"] == -1) == (row["error"] is not None) for row in own)


def mountsnoop(core: Core) -> None:
    """Of mounts and unmounts, the old and the new way, and of each failure I see exactly as many as happened."""
    with Stream(core.tracker, "mountsnoop", comm="workload") as stream, container() as app:
        core.work(app, "mounts")
        rows = stream.rows()
    seen = Counter((row["operation"], row["target"], row["type"], row["error"]) for row in rows)
    assert seen == {
        ("mount", "/", "", None): 1,
        ("mount", "/tmp/place", "tmpfs", None): 13,
        ("mount", "/tmp/other", "", None): 13,
        ("umount", "/tmp/other", "", None): 13,
        ("umount", "/tmp/place", "", None): 20,
        ("fsopen", "", "tmpfs", None): 7,
        ("fsmount", "", "", None): 7,
        ("move mount", "/tmp/place", "", None): 7,
        ("open tree", "", "", None): 7,
        ("mount", "/tmp/not/there", "tmpfs", "ENOENT"): 5,
        ("mount", "/tmp/place", "nosuchfs", "ENODEV"): 5,
        ("umount", "/tmp/place", "", "EINVAL"): 5,
        ("fsmount", "", "", "EBADF"): 5,
    }, seen
    with Stream(core.tracker, "mountsnoop", failed="true") as stream, container() as app:
        core.work(app, "trapped")
        rows = stream.rows()
    trapped = Counter((row["operation"], row["target"], row["error"], row["latency"]) for row in rows)
    assert trapped == {("mount", "/trapped", "EPERM", DURATION_UNKNOWN): 13}, trapped


def filemods(core: Core) -> None:
    """Of each change of a file, in vain or not, I see exactly as many as there were, with whole paths."""
    shutil.rmtree("/tmp/mods", ignore_errors=True)
    with Stream(core.tracker, "filemods", comm="workload") as stream, container() as app:
        core.work(app, "mods")
        rows = stream.rows()
    seen = Counter((row["operation"], row["path"], row["to"], row["error"]) for row in rows)
    file = "/tmp/mods/file"
    wanted = {
        ("mkdir", "/tmp/mods", "", None): 1,
        ("mkdir", "/tmp/mods/sub", "", None): 13,
        ("rmdir", "/tmp/mods/sub", "", None): 13,
        ("mkdir", "/tmp/mods/next", "", None): 5,
        ("rmdir", "/tmp/mods/next", "", None): 5,
        ("link", file, "/tmp/mods/hard", None): 5,
        ("unlink", "/tmp/mods/hard", "", None): 5,
        ("symlink", "/tmp/mods/soft", "../mods/file", None): 5,
        ("unlink", "/tmp/mods/soft", "", None): 5,
        ("rename", file, "/tmp/mods/moved", None): 7,
        ("rename", "/tmp/mods/moved", file, None): 7,
        ("rename", file, file, "EEXIST"): 7,
        ("truncate", file, "", None): 35,
        ("chmod", file, "", None): 38,
        ("chown", file, "", None): 38,
        ("utimes", file, "", None): 6,
        ("unlink", "/tmp/mods/none", "", "ENOENT"): 23,
        ("rename", "/tmp/mods/none", "/tmp/mods/other", "ENOENT"): 23,
        ("rmdir", "/tmp/mods", "", "ENOTEMPTY"): 23,
        ("truncate", "", "", "EBADF"): 23,
        ("chmod", "", "", "ENOENT"): 23,
        ("unlink", "file", "", "EBADF"): 23,
        ("unlink", file, "", None): 1,
        ("chmod", file, "", "ENOENT"): 2,
        ("rmdir", "/tmp/..", "", "ENOTEMPTY"): 1,
    }
    attributes = Counter((row["operation"], row["attribute"]) for row in rows if row["attribute"])
    assert {key: count for key, count in seen.items() if "xattr" not in key[0]} == wanted, seen
    assert attributes == {
        ("setxattr", "trusted.memo"): 3,
        ("setxattr", "trusted.more"): 3,
        ("removexattr", "trusted.memo"): 3,
    }, attributes


def fsslower(core: Core) -> None:
    """Of reads, writes, opens and syncs of files I see exactly as many as there were; of the slow ones only these."""
    for least in ("0", "250ms"):
        shutil.rmtree("/tmp/slow", ignore_errors=True)
        with Stream(core.tracker, "fsslower", comm="workload", min=least) as stream, container() as app:
            core.work(app, "slow")
            rows = stream.rows()
        slow = [row["latency"] for row in rows if row["bytes"] == 100]
        assert len(slow) == 3 and min(slow) >= 300 * 10**6, slow
        if least != "0":
            assert all(row["latency"] >= 250 * 10**6 for row in rows), rows
            continue
        seen = Counter((row["operation"], row["path"], row["error"], row["bytes"]) for row in rows)
        assert seen == {
            ("open", "/tmp", None, 0): 1,
            ("open", "/tmp/slow/file", None, 0): 1,
            ("write", "/tmp/slow/file", None, 4096): 13,
            ("write", "/tmp/slow/file", None, 1024): 7,
            ("read", "/tmp/slow/file", None, 512): 11,
            ("read", "/tmp/slow/file", None, 1024): 5,
            ("read", "/tmp/slow/file", None, 0): 1,
            ("sync", "/tmp/slow/file", None, 0): 6,
            ("open", "/tmp/slow/other", None, 0): 17,
            ("open", "/tmp/slow/none", "ENOENT", 0): 19,
            ("read", "/tmp", "EISDIR", 0): 2,
            ("open", "/tmp/slow/slow", None, 0): 1,
            ("write", "/tmp/slow/slow", None, 4096): 1,
            ("read", "/tmp/slow/slow", None, 100): 3,
        }, seen


def fdpass(core: Core) -> None:
    """Of open files that a process passes to another I see each at both ends, with its type, name and the other end."""
    with Stream(core.tracker, "fdpass", comm="workload") as stream, container() as app:
        core.work(app, "passes")
        rows = stream.rows()
    kinds = {
        ("file", "/tmp/passed"): 47,
        ("directory", "/tmp"): 7,
        ("pipe", ""): 5,
        ("socket", "-"): 3,
        ("file", "/memfd:memo"): 11,
        ("other", "/[eventfd]"): 2,
        ("character device", "/dev/null"): 101,
    }
    seen = Counter((row["operation"], row["type"], row["path"] if row["type"] != "socket" else "-") for row in rows)
    assert seen == {(way, *kind): count for way in ("send", "receive") for kind, count in kinds.items()}, seen
    assert {(row["peer_comm"], row["peer"].pod) for row in rows} == {("workload", "cart-0")}
    inodes = {way: {row["inode"] for row in rows if row["operation"] == way} for way in ("send", "receive")}
    assert len(inodes["send"]) == 7 and inodes["send"] == inodes["receive"], inodes
    assert len({row["pid"] for row in rows}) == 2 and len({row["peer_pid"] for row in rows}) == 1


def ttysnoop(core: Core) -> None:
    """Of what a program prints on a terminal and reads there I see each call, with its text and how much it was."""
    with Stream(core.tracker, "ttysnoop", comm="workload", input="true") as stream, container() as app:
        core.work(app, "prints")
        rows = stream.rows()
    large = "x" * 4096
    seen = Counter((row["operation"], row["data"], row["bytes"]) for row in rows)
    assert seen == {
        ("write", "plain\n", 6): 101,
        ("write", large, 10_000): 3,
        ("write", large, 4096): 2,
        ("write", large, 6000): 1,
        ("write", "\\xff café \\xc3", 9): 11,
        ("write", "\33[2J\33]0;title\7\r\n", 16): 13,
        ("write", "one two\n", 8): 7 + 5,
        ("write", "abcdefghijklmnop", 20): 1,
        ("write", "", 6): 17 + 19,
        ("write", "own\n", 4): 23,
        ("read", "secret\n", 7): 31 + 3,
    }, seen
    assert {row["tty"] for row in rows if row["data"] == "own\n"} == {"tty"}
    assert {row["tty"][:4] for row in rows if row["data"] != "own\n"} == {"pts/"}


def filetop(core: Core) -> None:
    """Of files I see by process and path exactly how many reads and writes there were, and their bytes."""

    def work() -> None:
        one, two = (os.open(f"/tmp/{name}", os.O_RDWR | os.O_CREAT | os.O_TRUNC) for name in ("one", "two"))
        for _ in range(1_009):
            os.write(one, b"x" * 7)
        for _ in range(503):
            os.pread(one, 11, 0)
        for _ in range(5):
            os.sendfile(two, one, 0, 3)

    with Stream(core.tracker, "filetop") as stream, container() as app:
        core.call(app, work)
        rows = [row for row in stream.rows() if row["path"] in ("/tmp/one", "/tmp/two")]
    seen = Counter[tuple[str, str]]()
    for row in rows:
        seen.update({(row["path"], each): row[each] for each in ("reads", "writes", "read", "written")})
    one = {"reads": 508, "writes": 1_009, "read": 503 * 11 + 15, "written": 7_063}
    two = {"reads": 0, "writes": 5, "read": 0, "written": 15}
    wanted = {
        (f"/tmp/{name}", key): value for name, each in (("one", one), ("two", two)) for key, value in each.items()
    }
    assert seen == wanted, seen
    assert len({row["pid"] for row in rows}) == 1


def snapshot_file(core: Core) -> None:
    """A snapshot has each descriptor of a container's process, with the file's name as /proc has it, removed or not."""
    work = "exec 7>/tmp/kept 8>/tmp/removed 9</tmp; rm /tmp/removed; echo done; exec sleep 600"
    with container() as app, running(app, "/bin/busybox", "sh", "-c", work) as process:
        assert process.stdout and process.stdout.readline() == "done\n"
        while Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0] != b"sleep":
            time.sleep(0.01)
        with Stream(core.tracker, "snapshot_file") as stream:
            rows = stream.snapshot()
        names = {int(fd): os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")}
    files = {row["fd"]: row["path"] + " (deleted)" * row["deleted"] for row in rows if row["type"] != "pipe"}
    pipes = {row["fd"]: f"pipe:[{row['inode']}]" for row in rows if row["type"] == "pipe"}
    assert files | pipes == names and len(rows) == len(names), rows
    assert [files[fd] for fd in (7, 8, 9)] == ["/tmp/kept", "/tmp/removed (deleted)", "/tmp"], files


def biotop(core: Core) -> None:
    """Of requests to a disk I see by process exactly how many reads and writes there were, and their bytes."""
    with disks.disk(Path("/run")) as device, Stream(core.tracker, "biotop") as stream, container() as app:
        before = disks.moved(device)
        core.call(app, lambda: disks.use(device))
        after = disks.moved(device)
        rows = [row for row in stream.rows() if row["device"] == device.name]
    seen = {each: Counter[str]() for each in ("read", "write")}
    for row in rows:
        if row["operation"] in seen:
            seen[row["operation"]].update(requests=row["requests"], bytes=row["bytes"], errors=row["errors"])
        assert row["time"] >= row["longest"] > 0
    for name, (count, size) in (("read", disks.READS), ("write", disks.WRITES)):
        assert seen[name] == Counter(requests=count, bytes=count * size, errors=0), (name, rows)
    assert (seen["read"]["bytes"], seen["write"]["bytes"]) == (after[0] - before[0], after[1] - before[1])
    assert len({row["pid"] for row in rows}) == 1


def snapshot_mounts(core: Core) -> None:
    """A snapshot has each mount that a container's process sees, as /proc has it."""
    with container() as app, Stream(core.tracker, "snapshot_mounts") as none:
        assert none.snapshot() == []
        with subprocess.Popen(["/bin/busybox", "sleep", "600"]) as process:
            (app.cgroup / "cgroup.procs").write_text(str(process.pid))
            with Stream(core.tracker, "snapshot_mounts") as stream:
                rows = stream.snapshot()
            lines = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
            process.kill()
    assert sorted((row["id"], row["parent"], row["pid"]) for row in rows) == sorted(
        (*map(int, line.split()[:2]), process.pid) for line in lines
    )
