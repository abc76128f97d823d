"""What /proc tells of a container's processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path

from agent.files import PROCESS_BYTES, read_descriptor

#: After this time a runtime's helpers have ended, or have become the container's own program.
SETTLED_SECONDS = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A process of /proc, by its folder's descriptor: another process may get its number, but not this folder."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        """Find a process. OSError if there is none of that number."""
        self.pid = pid
        self._fd = os.open(proc / str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of one of its files. OSError if it is over, or that is not allowed."""
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._fd)

    def read(self, name: str, most: int = PROCESS_BYTES) -> str:
        """The beginning of one of its files. OSError if it is over, or that is not allowed."""
        fd = self.open(name)
        try:
            return read_descriptor(fd, most)
        finally:
            os.close(fd)

    def link(self, name: str) -> str:
        """Where one of its links leads. OSError if it is over, or that is not allowed."""
        return os.readlink(name, dir_fd=self._fd)

    def names(self, folder: str, most: int) -> list[str]:
        """The names in one of its folders, so many at most; none if it is over."""
        with suppress(OSError):
            fd = self.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with os.scandir(fd) as entries:
                    return [entry.name for entry in islice(entries, most)]
            finally:
                os.close(fd)
        return []

    @property
    def is_there(self) -> bool:
        """Whether it is not over, so that its number is its own."""
        try:
            return bool(self.read("stat"))
        except OSError:
            return False


@contextmanager
def held(
    list_now: Callable[[], Sequence[int]], proc: Path, most: int, only: Collection[int] = ()
) -> Iterator[list[Process]]:
    """Some or all of the processes that list_now returns.

    list_now is called twice, so that each is certainly one of them.
    """
    with ExitStack() as stack:
        found: list[Process] = []
        for pid in list_now():
            if len(found) == most:
                break
            if pid and (not only or pid in only):
                with suppress(OSError):
                    process = Process(pid, proc)
                    stack.callback(process.close)
                    found.append(process)
        again = set(list_now())
        yield [process for process in found if process.pid in again and process.is_there]


def first_of(pids: Sequence[int], proc: Path, settled: float = SETTLED_SECONDS) -> int:
    """Which of a container's processes runs its own program; 0 if that cannot be told (yet).

    It is the oldest one with a parent outside. This holds some seconds after the start: then the runtime's helpers have
    ended, or have become this process.
    bpf/traceloop reports the first process of containers that begin while it runs.
    """
    inside = set(pids)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    found = []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            # proc_pid_stat(5): the name, in parentheses, may hold anything; parent is field 4, the start field 22
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            began = int(fields[19]) / _TICKS
            if int(fields[1]) not in inside and now - began > settled:
                found.append((began, pid))
    return min(found)[1] if found else 0
