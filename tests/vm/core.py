"""What each kernel has to show, tried inside a guest: python -m tests.vm.core WORKLOADS.

WORKLOADS is a folder of compiled tests/workloads. Prints a JSON object a line: the verified instructions of each
program, how each core test went, and a last line without which nothing counts. The agent's parts run in this process:
starting programs is what emulation is slowest at.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from agent.bpf.bpf_object import BpfObject
from agent.bpf.libbpf import kernel_has
from agent.bpf.objects import read_object
from agent.containers.tracker import Tracker
from agent.flows.recorder import FlowRecorder
from agent.profile.kept import FileCache
from agent.profile.profiling import Profiling
from agent.run.runs import begin
from agent.selection import Selection
from agent.syscalls.recorder import SyscallRecorder
from agent.syscalls.settings import Settings as SyscallSettings
from agent.threads import Bounded
from agent.traceloop.recorder import Recorder, RecorderSettings
from agent.traceloop.service import TraceloopService
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import KernelLacks
from gadget.kinds.numbers import COUNT_UNKNOWN
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.syscalls import table as table_of_calls
from kubectl_gadget import strace
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import Reader, ThreadEnd
from tests import datagrams, disks, dns, losses, tls
from tests.pods import BareContainer
from tests.vm.machine import WORKLOAD, Busy, Core, Stream, container, make_network

HERE = "10.9.0.1"  # not 127.0.0.1, with which nobody else is talked to
CASE_SECONDS = 60
#: How much there was of each stack: name of the thread, functions of the program, of the kernel, the innermost first.
Stacks = Counter[tuple[str, tuple[str, ...], tuple[str, ...]]]
#: Since Linux 7.0 tasks can be preempted in the middle of a program: see Busy. Before, only an interrupt comes there.
PREEMPTS_SINCE = 7
ATTEMPTS, ATTEMPTS_BEFORE = 30, 3


def tracker(core: Core) -> None:
    """Of 13 containers that run one program as soon as they are made I see each one's exec, fully named."""
    with ExitStack() as stack, Stream(core.tracker, "execsnoop", pod="") as stream:
        for number in range(13):
            short = stack.enter_context(container(f"short-{number}"))
            short.run("/bin/busybox", "true", str(number))
        rows = [row for row in stream.rows() if row["args"][:2] == ["/bin/busybox", "true"]]
    seen = [(row["args"][2], row["namespace"], row["pod"], row["container"]) for row in rows]
    assert seen == [(str(number), "shop", f"short-{number}", "app") for number in range(13)], seen


def execsnoop(core: Core) -> None:
    """Of 67 execs, 7 of which fail, I see exactly 60 that ran and 7 that did not, with arguments and directory."""
    with Stream(core.tracker, "execsnoop", cwd="true") as stream, container() as app:
        core.work(app, "execs", "1", "67", "7")
        core.work(app, "execs", "1", "5", "2", "thread")
        rows = [row for row in stream.rows() if row["args"][:1] == ["started"]]
    one_thread = [row for row in rows if row["tid"] == row["pid"]]

    ways = Counter((row["error"], row["exe"], row["cwd"], row["pcomm"]) for row in one_thread)
    assert ways == {
        (None, "/workload", "/tmp", "workload"): 60,
        ("ENOENT", "/does/not/exist", "/tmp", "workload"): 7,
    }, ways
    assert Counter(len(row["args"][1]) for row in one_thread) == Counter(n * 37 % 3000 for n in range(67))
    assert Counter(row["error"] for row in rows if row["tid"] > row["pid"]) == {None: 3, "ENOENT": 2}
    assert {(row["namespace"], row["pod"], row["container"]) for row in rows} == {("shop", "cart-0", "app")}

    with Stream(core.tracker, "execsnoop") as stream, container() as app:
        core.work(app, "literals", "23")
        core.work(app, "trapped")
        rows = [row for row in stream.rows() if row["error"]]
    seen = Counter((row["exe"], tuple(row["args"]), row["args_truncated"], row["error"]) for row in rows)
    untouched = seen["/not/there", ("untouched", "second argument", "crosses pages"), False, "ENOENT"]
    missing = seen["/not/there", (), True, "ENOENT"]
    assert (untouched, missing) in ((23, 0), *([] if kernel_has("bpf_task_work") else [(0, 23)])), seen
    assert sum(seen["/not/there", ("nowhere",), True, error] for error in ("ENOENT", "EFAULT")) == 1, seen
    assert seen["/tmp/broken", ("half-way",), True, "EINVAL"] == 1, seen
    assert seen["/trapped", ("trapped",), False, "EPERM"] == 37, seen


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


def tcpconnect(core: Core) -> None:
    """Of connects that succeed and that are refused I see exactly as many as happened, over IPv4 and IPv6."""
    wanted = {
        ("127.0.0.1", "ok", None): 13,
        ("127.0.0.1", "refused", "ECONNREFUSED"): 7,
        ("::1", "ok", None): 5,
        ("::1", "refused", "ECONNREFUSED"): 3,
    }
    with ExitStack() as stack:
        places: dict[tuple[str, str], Any] = {}
        for address, result, _ in wanted:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            place = stack.enter_context(socket.socket(family))
            place.bind((address, 0))
            if result == "ok":
                place.listen(64)
            places[address, result] = place.getsockname()

        def connects() -> None:
            for (address, result, _), count in wanted.items():
                for _ in range(count):
                    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
                        # closed by reset: else timers, for which nobody waits, may come while a program runs
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        code = client.connect_ex(places[address, result])
                        assert code == (0 if result == "ok" else errno.ECONNREFUSED)

        with Stream(core.tracker, "tcpconnect") as stream, container() as app:
            core.call(app, connects)
            core.work(app, "trapped")
            rows = stream.rows()
    trapped = [row for row in rows if row["error"] == "EPERM"]
    assert [(row["dst"].addr, row["result"]) for row in trapped] == [("127.0.0.1", "failed")] * 23, trapped
    rows = [row for row in rows if row["error"] != "EPERM"]
    assert Counter((row["dst"].addr, row["result"], row["error"]) for row in rows) == wanted, rows
    assert all(row["dst"].port == places[row["dst"].addr, row["result"]][1] for row in rows)
    assert all(row["latency"] > 0 and row["src"].addr == row["dst"].addr for row in rows)


def tcptracer(core: Core) -> None:
    """Of each connection I see connect, accept and the close of both ends, with exactly the bytes of each direction."""
    Path("/tmp/go").touch()
    with Stream(core.tracker, "tcptracer") as stream, container() as app:
        core.work(app, "traffic")
        core.work(app, "trapped")
        rows = stream.rows()
    kinds = Counter((row["operation"], row["version"]) for row in rows)
    assert kinds == {
        ("connect", 6): 13, ("accept", 6): 13, ("close", 6): 26, ("connect", 4): 88, ("accept", 4): 88, ("close", 4): 176,
    }, kinds  # fmt: skip
    closes = Counter((row["sent"], row["received"]) for row in rows if row["operation"] == "close")
    assert closes == Counter([(10 * n, 3 * n) for n in range(1, 102)] + [(3 * n, 10 * n) for n in range(1, 102)])


def exitsnoop(core: Core) -> None:
    """Of each way to end I see exactly as many processes as ended so, with code, signal and who sent it."""
    with Stream(core.tracker, "exitsnoop") as stream, container() as app:
        core.work(app, "exits")
        rows = stream.rows()
    names = {"succeeds", "fails", "copies", "threads", "terminated", "killed", "real-time", "faults"}
    names |= {"itself", "pipe", "too big", "timer", "queued"}
    ends = [row for row in rows if row["comm"] in names]
    killers = {0: None, **{row["ppid"]: "parent" for row in ends}, **{row["pid"]: "itself" for row in ends}}
    seen = Counter((row["comm"], row["code"], row["signal"], killers[row["killer"]]) for row in ends)
    assert seen == {
        ("succeeds", 0, None, None): 101,
        ("fails", 3, None, None): 23,
        ("copies", 0, None, None): 2,
        ("threads", 0, None, None): 19,
        ("terminated", 143, "SIGTERM", "parent"): 13,
        ("killed", 137, "SIGKILL", "parent"): 11,
        ("real-time", 168, "SIGRT_8", "parent"): 5,
        ("faults", 139, "SIGSEGV", None): 7,
        ("itself", 138, "SIGUSR1", "itself"): 3,
        ("pipe", 141, "SIGPIPE", None): 17,
        ("too big", 153, "SIGXFSZ", None): 29,
        ("timer", 140, "SIGUSR2", None): 31,
        # which before Linux 5.15 cannot be told from a signal of the kernel
        ("queued", 140, "SIGUSR2", "parent" if kernel_has("bpf_task_pt_regs") else None): 37,
    }, seen
    assert all(row["age"] > 0 and row["rss"] > 0 for row in ends)


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


def bindsnoop(core: Core) -> None:
    """Of binds that succeed and of each way to fail I see exactly as many as happened."""
    with Stream(core.tracker, "bindsnoop") as stream, container() as app:
        core.work(app, "binds")
        core.work(app, "trapped")
        rows = stream.rows()
    seen = Counter((row["protocol"], row["address"].addr, row["options"], row["error"]) for row in rows)
    assert seen == {
        ("tcp", "0.0.0.0", "SO_REUSEADDR", None): 13,
        ("udp", "::", "SO_REUSEPORT|IPV6_V6ONLY", None): 11,
        ("tcp", "0.0.0.0", "0", None): 18,
        ("tcp", "0.0.0.0", "0", "EADDRINUSE"): 7,
        ("tcp", "192.0.2.1", "0", "EADDRNOTAVAIL"): 5,
        ("tcp", "0.0.0.0", "0", "EINVAL"): 17,
        ("unknown", "0.0.0.0", "0", "ENOTSOCK"): 19,
        ("unknown", "0.0.0.0", "0", "EBADF"): 2,
        ("tcp", "127.0.0.1", "0", "EPERM"): 17,
    }, seen
    who = {(row["hpid"] == row["pid"], row["hcomm"]) for row in rows if row["error"] == "EADDRINUSE"}
    assert who == {(True, "workload")}, who


def listensnoop(core: Core) -> None:
    """Of listens that succeed and of each way to fail I see exactly as many as happened."""
    with Stream(core.tracker, "listensnoop") as stream, container() as app:
        core.work(app, "binds")
        core.work(app, "trapped")
        rows = stream.rows()
    seen = Counter((row["protocol"], row["options"], row["backlog"], row["error"]) for row in rows)
    assert seen == {
        ("tcp", "SO_REUSEADDR", 5, None): 13,
        ("udp", "SO_REUSEPORT|IPV6_V6ONLY", 5, "ENOTSUP"): 11,
        ("tcp", "0", 1 << 30, None): 3,
        ("unknown", "0", 7, "ENOTSOCK"): 19,
        ("unknown", "0", 9, "EBADF"): 2,
        ("tcp", "0", 5, "EPERM"): 19,
    }, seen


def sigsnoop(core: Core) -> None:
    """Of signals that reach a process and of those that do not I see exactly as many as were sent, and why."""
    with Stream(core.tracker, "sigsnoop", all="true") as stream, container() as app:
        core.work(app, "signals")
        core.work(app, "trapped")
        rows = stream.rows()
    own = [row for row in rows if row["comm"] == row["tcomm"] == "workload" or row["error"]]
    seen = Counter((row["signal"], row["result"], row["reason"], row["error"]) for row in own)
    dumped = seen.pop(("SIGCHLD", "ignored", "child dumped core", None), 0)
    seen["SIGCHLD", "ignored", "child killed", None] += dumped
    assert seen == {
        ("SIGKILL", "delivered", "call", None): 11,
        ("SIGSEGV", "delivered", "not mapped", None): 7,
        ("SIGCHLD", "ignored", "child killed", None): 18,
        ("SIGCHLD", "ignored", "child exited", None): 5,
        ("SIGUSR2", "failed", "call", "EPERM"): 5,
        ("SIGALRM", "delivered", "timer", None): 13,
        ("SIGPIPE", "delivered", "kernel", None): 3,
        ("SIGUSR2", "ignored", "call", None): 17,
        ("SIGHUP", "delivered", "call", None): 19,
        ("SIGTERM", "failed", "call", "ESRCH"): 23,
        ("99", "failed", "call", "EINVAL"): 2,
        ("SIGRT_8", "queue full", "call", "EAGAIN"): 29,
        ("SIGUSR1", "delivered", "call", None): 1,
        ("SIGUSR1", "already pending", "call", None): 1,
        ("SIGUSR1", "failed", "call", "EPERM"): 31,
        ("SIGSYS", "delivered", "seccomp", None): 195,
    }, seen


def oomkill(core: Core) -> None:
    """Of 4 processes that use up the memory of their container I see each, with its limit and who asked for more."""
    limit = 32 << 20
    with Stream(core.tracker, "oomkill") as stream, container() as app:
        for folder in reversed(app.cgroup.parents):
            if (folder / "cgroup.subtree_control").exists():
                (folder / "cgroup.subtree_control").write_text("+memory")
        (app.cgroup / "memory.max").write_text(str(limit))
        for _ in range(3):
            core.work(app, "ends", "oom")
        core.work(app, "ends", "oom shared")  # both processes are killed, and one is chosen
        rows = stream.rows()
    seen = [(row["comm"], row["scope"], row["limit"], row["trigger"].pod) for row in rows]
    assert seen == [("workload", "cgroup", limit, "cart-0")] * 4, seen
    assert all(row["pid"] == row["fpid"] for row in rows[:3]), rows
    assert all(limit // 2 < row["rss"] < 2 * limit for row in rows), rows


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


@contextmanager
def running(inside: BareContainer, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a container, which is ended."""

    def enter() -> None:
        (inside.cgroup / "cgroup.procs").write_text("0")

    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=enter)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def snapshot_process(core: Core) -> None:
    """A snapshot has each process of a container once, with its state: one that sleeps, a stopped one, a zombie."""
    with container() as app, ExitStack() as stack:
        start = lambda *command: stack.enter_context(running(app, "/bin/busybox", *command)).pid  # noqa: E731
        asleep, stopped, zombie = start("sleep", "600"), start("sleep", "600"), start("true")
        os.kill(stopped, signal.SIGSTOP)
        os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
        os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
        while Path(f"/proc/{asleep}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.01)
        with Stream(core.tracker, "snapshot_process") as stream:
            rows = stream.snapshot()
    seen = {row["pid"]: (row["state"], row["ppid"], row["nspid"], row["threads"], row["exe"]) for row in rows}
    here, program = os.getpid(), os.path.realpath("/bin/busybox")
    assert len(rows) == 3 and seen == {
        asleep: ("sleeping", here, asleep, 1, program),
        stopped: ("stopped", here, stopped, 1, program),
        zombie: ("zombie", here, zombie, 1, ""),
    }, rows


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


def stacks(
    core: Core, name: str, counted: str, settings: dict[str, str], act: Callable[[BareContainer, Stacks], None]
) -> Stacks:
    """The stacks of what is done in a container, each with its thread's name, and how much there was of it."""
    gadget = catalog.find(name)
    profiling = Profiling(gadget, counted, FileCache(), Bounded("profile", 4), Path("/proc"))
    subscriber = begin(gadget, settings, core.tracker, Selection(pods=["cart-0"])).first
    functions: dict[int, pb.Frame] = {}
    told: dict[int, pb.Stack] = {}
    found: Stacks = Counter()

    def take() -> None:
        for batch in subscriber.batches():
            made = profiling.take(batch)
            functions.update((each.number, each) for each in made.frames)
            told.update((each.number, each) for each in made.stacks)
            for number, count in zip(made.seen, made.counts, strict=True):
                frames = [functions[each] for each in told[number].frames]
                user = tuple(each.name for each in frames if not each.kernel)
                found[told[number].comm, user, tuple(each.name for each in frames if each.kernel)] += count

    with closing(subscriber), container() as app:
        thread = Thread(target=take)
        thread.start()
        act(app, found)
        subscriber.finish()
        thread.join()
        losses = subscriber.summary().losses
    if any(loss.reason == "program busy" for loss in losses):
        raise Busy
    assert not losses, losses
    return found


def profile(core: Core) -> None:
    """Of a program that spins I see which functions take most time, and of one that calls the kernel those of the kernel."""

    def call() -> None:
        for _ in range(300_000):
            os.getppid()

    def act(app: BareContainer, found: Stacks) -> None:
        while not found:  # the names of the kernel are read, which takes seconds under emulation
            core.call(app, call)
        core.work(app, "spins", "6")

    own = Counter[str]()
    kernel = set[str]()
    for (_, user, inside), count in stacks(core, "profile", "samples", {"hz": "499"}, act).items():
        own[next(iter(user), "")] += count
        kernel |= {*inside}
    spun = [name for name, _ in own.most_common() if name.startswith("spin_")]
    assert spun[0] == "spin_40" and {*spun[1:3]} == {"spin_25", "spin_20"}, own
    assert {*spun[3:]} == {"spin_10", "spin_5"}, own
    assert any("sys_getppid" in name or "syscall" in name or "svc" in name for name in kernel), sorted(kernel)


def offcpu(core: Core) -> None:
    """Of threads that sleep, read and wait for a lock I see in which functions, and for about how long."""

    def act(app: BareContainer, found: Stacks) -> None:
        while not found:  # as above
            core.call(app, lambda: time.sleep(0.1))
        core.work(app, "offs", "100")

    seen = Counter[str]()
    inside: dict[str, set[str]] = {}
    for (comm, user, kernel), nanoseconds in stacks(core, "offcpu", "time", {}, act).items():
        seen.update({f"{comm} {name}": nanoseconds for name in user if name.startswith("wait_")})
        inside.setdefault(comm, set()).update(kernel)
    assert {*seen} == {"sleeps wait_in_sleep", "reads wait_in_read", "locks wait_for_lock", "workload wait_in_sleep"}, (
        seen,
        inside,
    )
    assert seen["sleeps wait_in_sleep"] >= 100 * 5_000_000 * 0.9, seen
    for comm, part in (("sleeps", "nanosleep"), ("reads", "pipe_"), ("locks", "futex")):
        assert any(part in name for name in inside[comm]), inside[comm]


def tcptop(core: Core) -> None:
    """Of each connection I see at both ends exactly the bytes of each direction, together as many as were sent."""
    Path("/tmp/go").touch()
    with Stream(core.tracker, "tcptop") as stream, container() as app:
        core.work(app, "traffic")
        rows = stream.rows()
    ends: dict[tuple[Any, Any], Counter[str]] = {}
    for row in rows:
        sums = ends.setdefault((row["src"], row["dst"]), Counter())
        sums.update(sent=row["sent"], received=row["received"])
    seen = Counter((each["sent"], each["received"]) for each in ends.values())
    assert seen == Counter([(10 * n, 3 * n) for n in range(1, 102)] + [(3 * n, 10 * n) for n in range(1, 102)]), seen
    assert all(row["pid"] for row in rows)


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


def snapshot_socket(core: Core) -> None:
    """A snapshot has each socket of a container's process, with state, ends, queues and name."""
    ready, told = os.pipe()
    with container() as app, ExitStack() as stack:
        if not (pid := os.fork()):
            with suppress(BaseException):
                (app.cgroup / "cgroup.procs").write_text("0")
                make_network()
                kept = [socket.create_server(("127.0.0.1", 8080), backlog=7)]
                kept += [socket.create_connection(("127.0.0.1", 8080)), kept[0].accept()[0]]
                kept[1].sendall(b"x" * 4711)
                kept.append(socket.create_connection(("127.0.0.1", 8080)))
                kept.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                kept[-1].bind(("::1", 5353))
                kept.append(socket.socket(socket.AF_UNIX))
                kept[-1].bind("\0core")
                kept[-1].listen(3)
                os.write(told, b"x")
                signal.pause()
            os._exit(1)
        stack.callback(os.waitpid, pid, 0)
        stack.callback(os.kill, pid, signal.SIGKILL)
        os.close(told)
        assert os.read(ready, 1)
        with Stream(core.tracker, "snapshot_socket", pid=str(pid)) as stream:
            rows = stream.snapshot()
    os.close(ready)
    own = [row for row in rows if row["name"] == "@core" or row["src"].port in (8080, 5353) or row["dst"].port == 8080]
    seen = Counter((row["type"], row["state"], row["received"], row["unsent"], row["name"]) for row in own)
    assert seen == {
        ("tcp", "listen", 1, 7, ""): 1,
        ("tcp", "established", 0, 0, ""): 2,
        ("tcp", "established", 4711, 0, ""): 1,
        ("udp", "close", 0, 0, ""): 1,
        ("unix stream", "listen", 0, 3, "@core"): 1,
    }, seen
    assert {row["src"].addr for row in own if row["type"] != "unix stream"} == {"127.0.0.1", "::1"}


def cputop(core: Core) -> None:
    """Of a container I see all CPU time that its cgroup counts, and that its threads waited for each other."""

    def spin() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        children = []
        for _ in range(3):
            if not (child := os.fork()):
                until = time.process_time() + 0.2
                while time.process_time() < until:
                    pass
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    with Stream(core.tracker, "cputop") as stream, container() as app:
        core.call(app, spin)
        counted = (app.cgroup / "cpu.stat").read_text().split()
        rows = stream.rows()
    usage = int(counted[counted.index("usage_usec") + 1])
    assert {(row["pod"], row["pid"]) for row in rows} == {("cart-0", 0)}
    # its last threads are still ending when the file is read
    assert abs(sum(row["cpu"] for row in rows) - usage * 1000) < usage * 1000 / 50, (rows, counted)
    assert sum(row["waited"] for row in rows) > 300 * 10**6, rows
    pressure = Path("/proc/pressure/cpu").exists()
    assert {row["pressure"] != COUNT_UNKNOWN for row in rows} == {pressure}, rows


def memtop(core: Core) -> None:
    """Of a container I see the memory that its cgroup counts, and its pod's limit."""
    with container() as app:
        for above in reversed(app.cgroup.parents[:4]):
            (above / "cgroup.subtree_control").write_text("+memory")
        (app.cgroup.parent / "memory.max").write_text(str(64 << 20))
        core.call(app, lambda: Path("/dev/shm/full").write_bytes(bytes(8 << 20)))
        with Stream(core.tracker, "memtop") as stream:
            (row,) = stream.snapshot()
        stat = dict(line.split() for line in (app.cgroup / "memory.stat").read_text().splitlines())
        Path("/dev/shm/full").unlink()
    assert (row["limit"], row["oom_kill"], row["high"]) == (64 << 20, 0, 0), row
    # old kernels add up what each CPU has only now and then
    assert 7 << 20 < row["cache"] <= row["usage"] and abs(row["cache"] - int(stat["file"])) < 1 << 20, (row, stat)


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


def lengths(rows: list[dict[str, Any]], name: str, by: str) -> dict[Any, list[int]]:
    """How many durations of each length there were, and behind them their sum, by a field."""
    found: dict[Any, list[int]] = {}
    for row in rows:
        found[row[by]] = [sum(both) for both in zip(row[name], found.get(row[by], [0] * len(row[name])), strict=True)]
    return found


def runqlat(core: Core) -> None:
    """Of each process I see how often and how long its threads waited for a CPU, as the kernel counts it."""
    said: list[list[int]] = []

    def wait() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        children = []
        for _ in range(2):
            if not (child := os.fork()):
                for _ in range(5):
                    until = time.process_time() + 0.01
                    while time.process_time() < until:
                        pass
                    time.sleep(0.001)
                os._exit(0)
            children.append(child)
        with Path("/tmp/said").open("w") as to:
            for child in children:
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            for child in children:
                print(child, Path(f"/proc/{child}/schedstat").read_text().strip(), file=to)

    with Stream(core.tracker, "runqlat", processes="true") as stream, container() as app:
        core.call(app, wait)
        said = [list(map(int, line.split())) for line in Path("/tmp/said").read_text().splitlines()]
        seen = lengths(stream.rows(), "waited", "pid")
    for pid, _, waited, times in said:
        count = sum(seen[pid][:-1])
        assert times <= count <= times + 1, (said, seen)  # it may be about to leave the CPU for good
        assert seen[pid][-1] == waited or (seen[pid][-1] > waited and count > times), (said, seen)


def biolatency(core: Core) -> None:
    """Of requests to a disk I see exactly how many reads and writes there were, by how long they took."""
    with disks.disk(Path("/run")) as device, Stream(core.tracker, "biolatency") as stream, container() as app:
        core.call(app, lambda: disks.use(device))
        seen = lengths([row for row in stream.rows() if row["device"] == device.name], "latency", "operation")
    counts = {operation: sum(of[:-1]) for operation, of in seen.items()}
    assert (counts["read"], counts["write"]) == (disks.READS[0], disks.WRITES[0]), seen
    assert all(of[-1] > 0 for of in seen.values()), seen


def tcprtt(core: Core) -> None:
    """Of connections I see their round-trip times, once for each packet that came, by address."""
    Path("/tmp/go").touch()
    with Stream(core.tracker, "tcprtt", addresses="true") as stream, container() as app:
        core.work(app, "traffic")
        rows = stream.rows()
    assert rows and all(row["dst"] and not row["dst"].port for row in rows), rows
    assert all(sum(row["rtt"][:-1]) and row["rtt"][-1] for row in rows), rows
    assert sum(sum(row["rtt"][:-1]) for row in rows) > 200, rows


def syscall_latency(core: Core) -> None:
    """Of each system call I see exactly how often it was made, by how long it took."""

    def call() -> None:
        for _ in range(10_007):
            os.getppid()
        for _ in range(3):
            time.sleep(0.1)

    with Stream(core.tracker, "syscall-latency") as stream, container() as app:
        core.call(app, call)
        seen = lengths(stream.rows(), "latency", "syscall")
    assert sum(seen["getppid"][:-1]) == 10_007, seen
    slept = max(seen.values(), key=lambda of: of[-1])
    assert sum(slept[27:-1]) >= 3, seen  # 0.1 s is between 2^26 and 2^27 ns


syscall_latency.__name__ = "syscall-latency"  # cases have the names of gadgets


def dnssnoop(core: Core) -> None:
    """Of each message of DNS, also over TCP, and of each question without an answer I see both ends, with process."""

    def talk() -> None:
        make_network()
        dns.over_tcp("127.0.0.1")
        with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
            server.bind(("127.0.0.1", dns.PORT))
            client.connect(("127.0.0.1", dns.PORT))
            for number in range(7):
                client.send(dns.question(number, dns.ADDRESSES, dns.A))
                asked, peer = server.recvfrom(600)
                server.sendto(dns.answer(asked, *dns.ANSWERS[dns.ADDRESSES]), peer)
                client.recv(600)

    with Stream(core.tracker, "dnssnoop") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    keys = ("protocol", "message", "name", "rcode")
    seen = Counter((*(row[key] for key in keys), row["latency"] == DURATION_UNKNOWN) for row in rows)
    each = {
        ("udp", dns.ADDRESSES, "NOERROR"): 7,
        ("tcp", dns.ADDRESSES, "NOERROR"): dns.TOGETHER,
        ("tcp", dns.NO_NAME, "NXDOMAIN"): dns.APART,
        ("tcp", dns.MANY, "NOERROR"): dns.IN_PIECES,
    }
    assert seen == {
        **{(protocol, "question", name, None, True): 2 * count for (protocol, name, _), count in each.items()},
        **{(protocol, "answer", name, rcode, False): 2 * count for (protocol, name, rcode), count in each.items()},
        ("tcp", "question", dns.SILENT, None, True): 2,
        **({("tcp", "no answer", dns.SILENT, None, False): 2} if kernel_has("bpf_timer_start") else {}),
    }, seen
    addresses = {row["addresses"] for row in rows if row["name"] == dns.ADDRESSES and row["message"] == "answer"}
    assert addresses == {"10.0.0.1, 10.0.0.2"}, addresses
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def snisnoop(core: Core) -> None:
    """Of hellos of TLS, whole, in pieces or damaged, I see each once, with what it says and its process."""

    def talk() -> None:
        make_network()
        tls.run()

    with Stream(core.tracker, "snisnoop") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    seen = Counter(tls.seen(row, lambda end: end.addr) for row in rows)
    assert seen == tls.rows(), (seen - tls.rows(), tls.rows() - seen)
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def tcpretrans(core: Core) -> None:
    """Of segments that are sent again I see exactly as many as TCP counts, with why, state and process."""
    counts = Path("/tmp/counts")

    def talk() -> None:
        make_network()
        losses.run(counts)

    with Stream(core.tracker, "tcpretrans") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    told = json.loads(counts.read_text())
    seen = Counter((row["reason"], row["state"], row["bytes"]) for row in rows)
    assert seen["rto", "syn sent", 0] == sum(told["syn"]), (told, seen)
    assert seen["syn ack", "syn recv", 0] == losses.SYN_ACK, (told, seen)
    data = {kind: seen[kind, "established", losses.LOST] for kind in ("tlp", "rto", "fast", "loss")}
    assert sum(data.values()) == sum(told["timeouts"]) + sum(told["fast"]), (told, seen)
    assert data["tlp"] >= losses.TIMEOUTS and data["fast"] >= losses.FAST and data["rto"] >= 2 * losses.TIMEOUTS, seen
    known = kernel_has("bpf_sock_from_file")  # came with what tells whose a socket is
    assert len({row["pid"] for row in rows}) == 1 and bool(rows[0]["pid"]) == known, rows


def tcpdrop(core: Core) -> None:
    """Of packets that a socket does not take I see exactly as many as TCP had to send again, with why and where."""
    counts = Path("/tmp/counts")

    def talk() -> None:
        make_network()
        losses.run(counts)

    with Stream(core.tracker, "tcpdrop", host="true") as stream, container() as app:
        core.call(app, talk)
        rows = [row for row in stream.rows() if row["bytes"] == losses.LOST]
    told = json.loads(counts.read_text())
    assert len(rows) == sum(told["timeouts"]) + sum(told["fast"]), (told, rows)
    reasons = {(row["reason"], row["function"], row["protocol"], row["flags"]) for row in rows}
    reason, function, *others = next(iter(reasons))
    assert (len(reasons), *others) == (1, "tcp", "PSH|ACK"), reasons
    if kernel_has("bpf_strncmp"):  # came with reasons
        assert reason in ("SOCKET_FILTER", "TCP_FILTER") and function == "tcp_v4_rcv", reasons
    whose = {(row["pod"], row["state"]) for row in rows}
    assert whose in ({("cart-0", "established")}, {("", "unknown")}), whose


def udpsnoop(core: Core) -> None:
    """Of each conversation over UDP I see begin and end, at both ends, with why, and bytes and datagrams each way."""

    def talk() -> None:
        make_network()
        datagrams.talk()

    with Stream(core.tracker, "udpsnoop", silence=datagrams.SILENCE) as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    assert Counter(map(datagrams.seen, rows)) == datagrams.rows(), rows
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def observe(core: Core) -> None:
    """Of flows I see what became of each, at both ends: made and closed, refused, datagrams; with bytes and process."""

    def talk() -> None:
        make_network()
        subprocess.run(["ip", "addr", "replace", f"{HERE}/32", "dev", "lo"], check=True)
        with socket.create_server((HERE, 8080)) as listener:
            client = socket.create_connection((HERE, 8080))
            server = listener.accept()[0]
            client.sendall(bytes(1009))
            while len(server.recv(2000, socket.MSG_PEEK)) < 1009:
                pass
            client.close()
            server.recv(2000)
            assert server.recv(1) == b""
            server.close()
        for _ in range(3):
            assert socket.socket().connect_ex((HERE, 8081)) == errno.ECONNREFUSED
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind((HERE, 8082))
            one.sendto(bytes(19), (HERE, 8082))
            other.sendto(bytes(23), other.recvfrom(100)[1])
            one.recv(100)

    with Stream(core.tracker, "observe") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    keys = ("protocol", "direction", "type", "verdict", "sent", "received")
    assert Counter(tuple(row[key] for key in keys) for row in rows) == {
        ("tcp", "egress", "begun", "forwarded", 0, 0): 1,
        ("tcp", "ingress", "begun", "forwarded", 0, 0): 1,
        ("tcp", "egress", "ended", "forwarded", 1009, 0): 1,
        ("tcp", "ingress", "ended", "forwarded", 0, 1009): 1,
        ("tcp", "egress", "failed", "refused", 0, 0): 3,
        ("udp", "egress", "begun", "forwarded", 19, 0): 1,
        ("udp", "ingress", "begun", "forwarded", 0, 19): 1,
        ("udp", "egress", "ended", "forwarded", 19, 23): 1,
        ("udp", "ingress", "ended", "forwarded", 23, 19): 1,
    }, rows
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def traceloop(core: Core) -> None:
    """Of a container that exited 3 and is gone I see that, and its last calls; of four threads I see every call."""
    settings = RecorderSettings(Path("/sys/fs/bpf/gadget/traceloop"), Path("/run/saved"), lambda container: True)
    with closing(Recorder(core.tracker, settings)) as recorder:
        service = TraceloopService("guest", recorder)
        with container("dies") as app:
            _wait_for_ring(recorder, "dies")
            core.call(app, lambda: os.access("", os.F_OK))
            core.work(app, "ends", "exit3")
        with container("threads") as app:
            _wait_for_ring(recorder, "threads")
            core.work(app, "ends", "threads", "503")
        items = {item.container.pod: item for item in service.list().items}
        entries = {pod: _entries(service, item) for pod, item in items.items()}
        missed = recorder.missed()
        recorder.end()
    if missed:
        raise Busy
    died = items["dies"]
    assert (died.running, died.known, died.status, died.oom) == (False, True, 3 << 8, False), died
    texts = [strace.text(entry) for entry in entries["dies"] if isinstance(entry, Call)]
    assert 'execve("/workload", ["/workload", "exit3"]' in " ".join(texts), texts
    assert 'write(1, "begin\\n", 6) = 6' in texts, texts
    access = "access(" if os.uname().machine == "x86_64" else "faccessat(AT_FDCWD, "  # arm64 has only the newer call
    assert any(text.startswith(f'{access}"/etc/app.conf", R_OK) = -1 ENOENT') for text in texts), texts
    assert any(text.startswith(f'{access}"", F_OK) = -1 ENOENT') for text in texts), texts
    assert texts[-1].startswith("exit_group(3)"), texts
    assert isinstance(entries["dies"][-1], ThreadEnd)
    calls = [entry for entry in entries["threads"] if isinstance(entry, Call)]
    closed: dict[int, list[int]] = {}
    for call in calls:
        if call.args and call.args[0] >= 1000000 and strace.text(call).startswith("close("):
            closed.setdefault(call.tid, []).append(call.args[0] - 1000000)
    assert list(closed.values()) == [list(range(503))] * 4, {tid: len(numbers) for tid, numbers in closed.items()}
    assert not [path for path in Path("/sys/fs/bpf").rglob("*") if not path.is_dir()]


def flows(core: Core) -> None:
    """I see whom a container talked to and who talked to it, how often and how often in vain, over TCP, UDP and SCTP."""
    subprocess.run(["ip", "addr", "replace", f"{HERE}/32", "dev", "lo"], check=False)
    # heartbeats that come more seldom than a silence lasts that ends a talk
    for name, milliseconds in {"rto_min": 100, "rto_initial": 100, "rto_max": 100, "hb_interval": 1500}.items():
        Path(f"/proc/sys/net/sctp/{name}").write_text(str(milliseconds))

    def talks() -> None:
        with ExitStack() as stack:
            server = stack.enter_context(socket.create_server((HERE, 7001)))
            for port, count in ((7001, 5), (7002, 3)):
                for _ in range(count):
                    with socket.socket() as client:
                        assert client.connect_ex((HERE, port)) == (0 if port == 7001 else errno.ECONNREFUSED)
            server = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            server.bind((HERE, 7003))
            for _ in range(7):
                with socket.socket(type=socket.SOCK_DGRAM) as client:
                    client.sendto(b"question", (HERE, 7003))
                    server.sendto(b"answer", server.recvfrom(100)[1])
                    client.recv(100)
            server = stack.enter_context(socket.socket(proto=socket.IPPROTO_SCTP))
            server.bind((HERE, 7004))
            server.listen()
            for _ in range(3):
                client = stack.enter_context(socket.socket(proto=socket.IPPROTO_SCTP))
                client.connect((HERE, 7004))
                accepted = stack.enter_context(server.accept()[0])
                client.send(b"question")
                accepted.send(accepted.recv(100))
            time.sleep(4)

    pins = Path("/sys/fs/bpf/flows")
    recorder = FlowRecorder(
        core.tracker, pins, Path("/run/flows"), constants=dict.fromkeys(("unanswered_ns", "answered_ns"), 10**9)
    )
    try:
        with container() as app:
            core.call(app, talks)
            keys, seen, uids = recorder.read()
        assert not recorder.udp_problem, recorder.udp_problem
        lost = recorder.losses()
    finally:
        recorder.close()
        recorder.end()
    if lost.pop("program busy"):
        raise Busy
    assert not any(lost.values()), lost
    directions = catalog.constants("flows", "direction")
    way = {directions["DIRECTION_EGRESS"]: "to", directions["DIRECTION_INGRESS"]: "from"}
    columns = [keys[name].tolist() for name in ("direction", "protocol", "port")]
    found = {
        (way[direction], protocol, port): (int(flow["count"]), int(flow["failed"]))
        for (direction, protocol, port), flow in zip(zip(*columns, strict=True), seen, strict=True)
    }
    assert found == {
        ("to", socket.IPPROTO_TCP, 7001): (5, 0),
        ("from", socket.IPPROTO_TCP, 7001): (5, 0),
        ("to", socket.IPPROTO_TCP, 7002): (3, 3),
        ("to", socket.IPPROTO_UDP, 7003): (7, 0),
        ("from", socket.IPPROTO_UDP, 7003): (7, 0),
        ("to", socket.IPPROTO_SCTP, 7004): (3, 0),
        ("from", socket.IPPROTO_SCTP, 7004): (3, 0),
    }, found
    assert all(uids)


def syscalls(core: Core) -> None:
    """Of a container I see the calls that it made, and no others, also after it is gone."""
    settings = SyscallSettings(care_seconds=60)
    recorder = SyscallRecorder(core.tracker, Path("/sys/fs/bpf/syscalls"), Path("/run/syscalls"), settings)
    try:
        with container("calls") as app:
            core.work(app, "ends", "exit3")
            core.call(app, lambda: os.sync())
        (found,) = (calls for who, calls in recorder.read().items() if who.workload == "Pod/calls")
        lost = recorder.losses()
    finally:
        recorder.close()
        recorder.end()
    if lost.pop("program busy"):
        raise Busy
    assert not any(lost.values()), lost
    names = {call.name for number, call in table_of_calls(os.uname().machine).items() if found.calls >> number & 1}
    assert {"execve", "exit_group", "sync", "write"} <= names and not names & {"mount", "setns"}, names
    assert (found.compat, found.containers, found.older) == (0, 1, 0), found


def _wait_for_ring(recorder: Recorder, pod: str) -> None:
    """A runtime starts a process long after it made the cgroup; here nothing is between them."""
    while not any(ring.about.container.pod == pod for ring in recorder.rings()):
        time.sleep(0.01)


def _entries(service: TraceloopService, item: pb.TraceloopItem) -> list[Any]:
    request = pb.TraceloopReadRequest(cgroup_id=item.container.cgroup_id)
    (reply,) = service.read(request, lambda: True)
    return Reader().entries(reply)


CASES = (
    tracker,
    calls,
    execsnoop,
    opensnoop,
    tcpconnect,
    tcptracer,
    exitsnoop,
    bindsnoop,
    listensnoop,
    sigsnoop,
    oomkill,
    mountsnoop,
    privsnoop,
    capable,
    detect,
    filemods,
    fsslower,
    fdpass,
    ttysnoop,
    syscalltop,
    profile,
    offcpu,
    snapshot_process,
    filetop,
    snapshot_file,
    snapshot_mounts,
    memtop,
    tcptop,
    biotop,
    snapshot_socket,
    cputop,
    runqlat,
    biolatency,
    tcprtt,
    syscall_latency,
    dnssnoop,
    snisnoop,
    tcpretrans,
    tcpdrop,
    udpsnoop,
    observe,
    traceloop,
    flows,
    syscalls,
)


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def on_alarm(number: int, frame: object) -> None:
    raise TimeoutError(f"not done within {CASE_SECONDS} s")


def attempts_on(release: str) -> int:
    """How often a case is tried on a kernel where programs find themselves busy."""
    return ATTEMPTS if int(release.partition(".")[0]) >= PREEMPTS_SINCE else ATTEMPTS_BEFORE


def try_case(name: str, case: Callable[[], None]) -> None:
    """Say whether it works, what the kernel lacks for it, or how it failed."""
    began = time.monotonic()
    outcome: dict[str, object] = {}
    attempts, most = 0, attempts_on(os.uname().release)
    while attempts < most:
        attempts += 1
        outcome = {"works": True}
        signal.alarm(CASE_SECONDS)
        try:
            case()
        except KernelLacks as error:
            outcome = {"lacks": str(error)}
        except Busy:
            outcome = {"failed": f"a program was busy in each of {most} attempts"}
            continue
        except Exception:
            outcome = {"failed": traceback.format_exc()}
        finally:
            signal.alarm(0)
        break
    say(case=name, seconds=round(time.monotonic() - began, 1), attempts=attempts, **outcome)


def load(name: str) -> None:
    """Load an object, and say how many instructions the verifier processed for each program."""
    with BpfObject(read_object(name), name) as loaded:
        if name in ("profile", "offcpu"):  # as their runs do
            loaded.preallocate("containers", "chosen", "losses_by_cgroup")
        loaded.load()
        for program, info in loaded.programs():
            say(program=f"{name}/{program}", instructions=info.verified_insns)


def main() -> None:
    signal.signal(signal.SIGALRM, on_alarm)
    say(release=os.uname().release)
    for name in sys.argv[2:]:
        try_case(f"load {name}", partial(load, name))
    with closing(Tracker()) as running:
        core = Core(running, Path(sys.argv[1]))
        for case in (case for case in CASES if case.__name__ in sys.argv[2:]):
            try_case(case.__name__, partial(case, core))
    say(done=True)


if __name__ == "__main__":
    main()
