"""Programs that begin, end and are there."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.bpf.libbpf import kernel_has
from gadget.kinds.numbers import COUNT_UNKNOWN
from tests.pods import BareContainer
from tests.vm.machine import Core, Stream, container


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
