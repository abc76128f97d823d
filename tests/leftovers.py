"""Tests of the kernel run one at a time, and begin by removing what a run that was killed left behind."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.pods import BUNDLES, MARK, UNIFIED, remove_below, remove_cgroups

#: Part of the path of what belongs to a run.
RUN = "/pytest-of-"
LOCK = Path("/run/lock/kubectl-gadget-tests")
#: Where an agent of this machine serves.
SERVED = Path("/run/gadget")
CLONE_NEWNS = 0x00020000  # linux/sched.h


@contextmanager
def alone() -> Iterator[None]:
    """Wait for other runs on this machine to end, then be the only one."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for other tests on this machine", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        remove_leftovers()
        yield


def own_mounts() -> None:
    """From now on this process mounts for itself alone, and no other agent serves at the place where one is looked for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    SERVED.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tests", SERVED], check=True)


def runs(pid: int) -> bool:
    """Whether a test run of that process goes on."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(b"pytest" in word or word.startswith(b"tests.") for word in words)
    return False


def _parent(process: Path) -> str:
    """proc_pid_stat(5): the name, in parentheses, may hold anything."""
    return (process / "stat").read_text().rpartition(")")[2].split()[1]


def _owner_of(place: Path) -> int:
    """Whose temporary folder it lies in: pytest writes its process id there; 0 if nobody's."""
    for folder in place.parents:
        with suppress(OSError, ValueError):
            return int((folder / ".lock").read_text())
    return 0


def remove_leftovers() -> None:
    """End agents and containers of runs that were killed, and remove their files, cgroups and pins."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_text().split("\0")
            is_agent = any(word.endswith("/gadget-agent") for word in command[:2])
            if is_agent and any(RUN in word for word in command) and not runs(int(_parent(process))):
                os.kill(int(process.name), signal.SIGKILL)
    for mark in BUNDLES.glob(f"*/{MARK}"):
        owner, _, place = mark.read_text().partition(" ")
        if owner.isdecimal() and runs(int(owner)):
            continue
        path = Path(place)
        subprocess.run(["runc", "delete", "--force", mark.parent.name], check=False, capture_output=True)
        if place:  # else whoever made it was killed before it had a cgroup
            remove_below(UNIFIED / path)
            for each in (path, path.parent):  # the first is often gone already
                remove_cgroups(str(each))
        shutil.rmtree(mark.parent, ignore_errors=True)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "bpf" and RUN in place and not runs(_owner_of(Path(place))):
            shutil.rmtree(f"{place}/gadget", ignore_errors=True)
            subprocess.run(["umount", place], check=False)
