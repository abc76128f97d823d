"""What is measured on, and with: the machine, versions of peers, processes and what they use."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gadget import __version__
from tests.bpftrace import with_tracing
from tests.pods import BareContainer

PACKAGES = Path(__file__).with_name("packages.txt")
#: The kernel's posix-timers.h: the clock of a process is its number, complemented, and this.
CPUCLOCK_SCHED = 2


def enter_tracing() -> None:
    """Begin anew with tracefs where peers look for it, if it is not; mounted for this process and its children alone."""
    command = [sys.executable, "-m", "tests.bench", *sys.argv[1:]]
    if (again := with_tracing(*command)) != command:
        os.execvp(again[0], again)


def describe() -> dict[str, Any]:
    """The machine, the date, and the versions of everything that is measured."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packages = [line.partition("#")[0].strip() for line in PACKAGES.read_text().splitlines()]
    names = ["strace", "libbpf1", *(name for name in packages if name)]
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *names], capture_output=True, text=True, check=False
    )
    versions = dict(line.split() for line in shown.stdout.splitlines() if len(line.split()) == 2)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu[1] if cpu else os.uname().machine,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30)),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "python": sys.version.split()[0],
        "kubectl-gadget": f"{__version__} ({commit.stdout.strip()})",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **versions,
    }


def enter(container: BareContainer | None) -> Callable[[], None]:
    """For preexec_fn: be in a container."""

    def write() -> None:
        if container:
            (container.cgroup / "cgroup.procs").write_text("0")

    return write


def cpu_seconds(pid: int) -> float:
    """What a process and its threads, those that have ended too, have used, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def thread_seconds(pid: int) -> dict[str, float]:
    """What each thread of a process has used."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            found[folder.name] = int((folder / "schedstat").read_text().split()[0]) / 1e9
    return found


def peak_mib(pids: Iterable[int]) -> float:
    """The most memory that processes have had, together."""
    found = [re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in pids]
    return sum(int(each[1]) for each in found if each) / 1024


def resident_mib(pid: int) -> float:
    """The memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
