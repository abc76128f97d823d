"""System calls, and rights that are asked for."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from pathlib import Path

from tests.vm.machine import WORKLOAD, Core, Stream, container


def calls(core: Core) -> None:
    """While others come and go that want the same system calls, and others, nobody misses one."""
    with (
        Stream(core.tracker, "bindsnoop") as first,
        Stream(core.tracker, "opensnoop") as other,
        Stream(core.tracker, "bindsnoop", failed="true") as second,
        container() as app,
    ):
        core.work(app, "binds")
        with Stream(core.tracker, "listensnoop") as third:
            other.rows()
            core.work(app, "binds")
            listened = len(third.rows())
            failed = len(second.rows())
        core.work(app, "binds")
        bound = Counter(row["error"] is not None for row in first.rows())
    failed_once, bound_once = failed // 2, bound[False] // 3
    assert failed_once > 40 and bound_once > 40 and listened > 16, (failed, bound, listened)
    assert (failed, bound) == (2 * failed_once, {True: 3 * failed_once, False: 3 * bound_once})


def privsnoop(core: Core) -> None:
    """Of calls that change or need privileges I see exactly as many as were made, with what was asked for."""
    with Stream(core.tracker, "privsnoop", comm="workload") as stream, container() as app:
        core.work(app, "privs")
        core.work(app, "trapped")
        rows = stream.rows()
    trapped = [row for row in rows if row["error"] == "EPERM" and row["call"] in ("chroot", "memfd create")]
    assert Counter(row["name"] for row in trapped) == {"/trapped": 5, "trapped": 11}, trapped
    assert sum(row["error"] == "EPERM" for row in rows if row["call"] == "setuid") == 31 + 3, rows
    rows = [row for row in rows if row["name"] not in ("/trapped", "trapped")]
    seen = Counter((row["call"], row["request"], row["id"], row["name"]) for row in rows)
    assert seen == {
        ("unshare", "none", -1, ""): 13,
        ("chroot", "none", -1, "/"): 11,
        ("chroot", "none", -1, "/not/there"): 5,
        ("memfd create", "none", -1, "memo"): 7,
        ("ptrace", "traceme", -1, ""): 3,
        ("ptrace", "attach", -1, ""): 2,
        ("seccomp", "get action avail", -1, ""): 17,
        ("bpf", "prog load", -1, ""): 19,
        ("delete module", "none", -1, "no_such_module"): 23,
        ("setns", "none", -1, ""): 29,
        ("setresgid", "none", 1234, ""): 31,
        ("setuid", "none", 65534, ""): 31,
        ("setuid", "none", 0, ""): 31 + 3,
        ("keyctl", "get keyring id", -1, ""): 37,
        ("perf event open", "none", -1, ""): 2,
        ("io uring setup", "none", -1, ""): 3,
        ("userfaultfd", "none", -1, ""): 5,
        ("landlock restrict self", "none", -1, ""): 7,
        ("pivot root", "none", -1, "/not/there"): 11,
    }, seen


def capable(core: Core) -> None:
    """Of checks of capabilities, granted and denied, I see exactly as many as there were."""
    with Stream(core.tracker, "capable", comm="workload", every="true") as stream, container() as app:
        core.work(app, "caps")
        rows = stream.rows()
    seen = Counter((row["capability"], row["result"], row["syscall"]) for row in rows)
    assert {key: count for key, count in seen.items() if key[2] in ("chroot", "swapoff")} == {
        ("CAP_SYS_CHROOT", "granted", "chroot"): 101,
        ("CAP_SYS_ADMIN", "granted", "swapoff"): 7,
        ("CAP_SYS_CHROOT", "denied", "chroot"): 13,
        ("CAP_SYS_ADMIN", "denied", "swapoff"): 5,
    }, seen
    with Stream(core.tracker, "capable", pod="", host="true", comm="kdevtmpfs", every="true") as stream:
        Path("/tmp/console").unlink(missing_ok=True)
        os.mknod("/tmp/console", stat.S_IFCHR | 0o600, os.makedev(4, 40))
        Path("/tmp/console").open("wb").close()  # a thread of the kernel makes the devices of a new console
        rows = stream.rows()
    assert Counter((row["capability"], row["syscall"]) for row in rows) == {("CAP_MKNOD", None): 3}, rows


def detect(core: Core) -> None:
    """Of processes and calls that rules judge I am told all, with paths, ends of connections and descriptors."""
    for leftover in ("file", "made", "hard", "soft", "sock"):
        Path("/tmp", leftover).unlink(missing_ok=True)
    with Stream(core.tracker, "detect", comm="workload", host="true") as stream, container() as app:
        for what in ("files", "sockets", "privileges", "processes"):
            core.work(app, "suspect", what, str(WORKLOAD))
        rows = stream.rows()
    older = {
        "open": "openat",
        "creat": "openat",
        "chmod": "fchmodat",
        "link": "linkat",
        "symlink": "symlinkat",
        "rename": "renameat",
        "unlink": "unlinkat",
        "mkdir": "mkdirat",
        "rmdir": "unlinkat",
        "dup2": "dup3",
    }
    here = {} if os.uname().machine == "x86_64" else older
    said = {
        (row["call"], "" if row["result"] >= 0 else errno.errorcode[-row["result"]], row["path"], row["to"],
         chr(row["fd_type"] or 32), row["mode"])
        for row in rows
    }  # fmt: skip
    file = "/tmp/file"
    wanted = {
        ("open", "", file, "", "f", 0o640),
        ("openat2", "", file, "", "f", 0),
        ("creat", "ENOENT", "/not/there", "", "f", 0o751),
        ("chmod", "", file, "", " ", 0o4711),
        ("fchmod", "", file, "", "f", 0o755),
        ("fchmodat", "", file, "", " ", 0o640),
        ("link", "", file, "/tmp/hard", " ", 0),
        ("symlink", "", "/tmp/soft", "../etc", " ", 0),
        ("renameat2", "EEXIST", "/tmp/hard", file, " ", 0),
        ("rmdir", "", "/tmp/sub", "", " ", 0),
        ("dup", "", file, "", "f", 0),
        ("bind", "", "/tmp/sock", "", "u", 0),
        ("connect", "ECONNREFUSED", "@hidden", "", "u", 0),
        ("accept", "", "sock", "", "u", 0),
        ("connect", "ECONNREFUSED", "", "", "4", 0),
        ("accept4", "", "", "", "4", 0),
        ("sendmsg", "", "", "", "4", 0),
        ("dup2", "", "", "", "4", 0),
        ("setns", "", "", "", "f", 0),
        ("memfd create", "", "/memfd:memo", "", "f", 0),
        ("mount", "ENOENT", "/tmp/not/there", "none", " ", 0),
        ("execve", "ENOENT", "/not/there", "", " ", 0),
    }
    wanted = {(here.get(call, call), *rest) for call, *rest in wanted}
    assert said >= wanted, wanted - said
    program = WORKLOAD.stat()
    first = [row for row in rows if row["call"] == "execve" and row["arguments"][1:2] == ["processes"]]
    forks = [row for row in rows if row["call"] == "fork" and row["ppid"] == first[0]["pid"]]
    ends = {row["pid"] for row in rows if row["call"] == "procexit"}
    assert first[0]["arguments"] == [str(WORKLOAD), "processes", str(WORKLOAD)]
    assert (first[0]["exe"], first[0]["cwd"], first[0]["vpid"]) == (str(WORKLOAD), "/tmp", first[0]["pid"])
    assert (first[0]["exe_ino"], first[0]["exe_mtime"]) == (program.st_ino, program.st_mtime_ns)
    assert [(row["exe"], row["cwd"], row["parent_start"]) for row in forks] == [
        (str(WORKLOAD), "/", first[0]["start"])
    ] * 2
    assert {row["pid"] for row in rows if row["call"] == "change"} >= {first[0]["pid"], forks[0]["pid"]}
    assert ends


def syscalltop(core: Core) -> None:
    """Of system calls I see by process exactly how many there were, how many failed, and that they took their time."""

    def call() -> None:
        for _ in range(10_007):
            os.getppid()
        for _ in range(503):
            os.access("", os.F_OK)
        for _ in range(3):
            time.sleep(0.1)

    with Stream(core.tracker, "syscalltop") as stream, container() as app:
        core.call(app, call)
        rows = stream.rows()
    calls, errors, times = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        calls[row["syscall"]] += row["calls"]
        errors[row["syscall"]] += row["errors"]
        times[row["syscall"]] += row["time"]
    access = "access" if os.uname().machine == "x86_64" else "faccessat"
    assert (calls["getppid"], errors["getppid"]) == (10_007, 0), calls
    assert (calls[access], errors[access]) == (503, 503), calls
    (slept,) = (name for name in times if "nanosleep" in name)
    assert calls[slept] == 3 and times[slept] >= 270 * 10**6, times  # clocks of guests differ
    assert len({row["pid"] for row in rows}) == 1
