"""The processes that run now, as /proc tells of them: those that began before anybody looked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from agent import processes
from gadget.rules.processes import ANCESTORS, Ancestor, Key, KnownProcess

#: Bytes of a command line that are kept, as of an exec.
COMMAND_BYTES = 4096


@dataclass(frozen=True)
class RunningProcesses:
    """What /proc tells of processes."""

    proc: Path = Path("/proc")

    def find(self, pid: int) -> KnownProcess | None:
        """A process with its ancestors, its start in clock ticks; None if it is over."""
        found: list[tuple[KnownProcess, int]] = []
        while pid and len(found) <= ANCESTORS and (read := self._read(pid)):
            found.append(read)
            pid = read[1]
        ancestors: tuple[Ancestor, ...] = ()
        for process, _ in reversed(found):
            process.ancestors = ancestors
            ancestors = process.below()
        return found[0][0] if found else None

    def all(self) -> Iterator[KnownProcess]:
        """All processes that run, parents before children as far as their numbers tell."""
        read: dict[int, tuple[KnownProcess, int]] = {}
        for name in sorted((name for name in os.listdir(self.proc) if name.isdecimal()), key=int):
            if found := self._read(int(name)):
                read[int(name)] = found
        for process, _ in read.values():
            process.ancestors = tuple(self._above(process, read))
            yield process

    @staticmethod
    def _above(process: KnownProcess, read: dict[int, tuple[KnownProcess, int]]) -> Iterator[Ancestor]:
        pid = read[process.key.pid][1]
        for _ in range(ANCESTORS):
            if pid not in read:
                return
            parent, pid = read[pid]
            yield parent.as_ancestor()

    def _read(self, pid: int) -> tuple[KnownProcess, int] | None:
        """A process and its parent's pid; None if the process has ended, or is a kernel thread."""
        with suppress(OSError, ValueError, IndexError, KeyError), closing(processes.Process(pid, self.proc)) as folder:
            name, _, rest = folder.read("stat").rpartition(")")
            # proc_pid_stat(5): parent, group, session, terminal and start are the fields 4, 5, 6, 7 and 22
            fields = rest.split()
            status = dict(line.split(":\t", 1) for line in folder.read("status").splitlines() if ":\t" in line)
            made = KnownProcess(Key(pid, int(fields[19]), 0), name.partition("(")[2])
            given = folder.read("cmdline", COMMAND_BYTES)
            made.arguments = tuple(given.removesuffix("\0").split("\0")) if given else ()
            made.pgid, made.sid = int(fields[2]), int(fields[3])
            made.vpid, made.vpgid = (int(status[each].split()[-1]) for each in ("NSpid", "NSpgid"))
            with suppress(OSError):  # a thread of the kernel has no program
                made.path = folder.link("exe").removesuffix(" (deleted)")
                made.cwd = folder.link("cwd")
                made.memfd = made.path.startswith("/memfd:")
            return made, int(fields[1])
        return None
