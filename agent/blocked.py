"""The calls that threads have not returned from, and what their arguments point to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from pathlib import Path

from agent.files import read_text
from agent.processes import Process, held
from agent.threads import Bounded
from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted
from gadget.syscalls import Capture, How

#: How many threads of a container are asked which call they are in: it may have any number of threads.
MOST_THREADS = 4096
#: How many processes have their memory read, and how many bytes of each argument: the kernel takes no longer path.
MOST_PROCESSES, PATH_BYTES = 32, 4096
#: A struct sockaddr has no more (struct sockaddr_storage).
_ADDRESS_BYTES = 128
#: All that is read for one answer.
_MOST_BYTES = 256 << 10
#: How long reading memory may take: if a file system does not answer, a page of its file holds up the reader.
READ_SECONDS = 0.5
_PAGE = 4096
_MACHINE = os.uname().machine


def find_blocked(processes: Sequence[int]) -> Iterator[pb.Blocked]:
    """The system calls that threads of processes are in, from /proc/PID/task/TID/syscall; of a limited number."""
    for pid, task, compat in islice(_threads(processes), MOST_THREADS):
        try:
            fields = read_text(task / "syscall").split()
            comm = read_text(task / "comm").removesuffix("\n")
        except OSError:
            continue
        if compat != _is_32bit(pid):
            continue  # it began another program just now: the number may be of either
        if len(fields) < 7 or fields[0].startswith("-"):
            continue  # it runs, or waits for something that is not a call
        number, args = int(fields[0]), [int(each, 16) for each in fields[1:7]]
        yield pb.Blocked(pid=pid, tid=int(task.name), comm=comm, number=number, args=args, compat=compat)


def _is_32bit(pid: int) -> bool:
    """Whether a process runs a 32-bit program, whose calls have other numbers.

    By its auxiliary vector (getauxval(3)), which the kernel keeps: pairs of a small number and a value, of 4 bytes each
    then. The program's file would tell too, but it may be in a file system that does not answer.
    """
    try:
        with open(f"/proc/{pid}/auxv", "rb") as vector:
            return int.from_bytes(vector.read(8), sys.byteorder) >> 32 != 0
    except OSError:
        return False


def _threads(processes: Sequence[int]) -> Iterator[tuple[int, Path, bool]]:
    """The threads of processes: the process, the thread's folder, and whether it makes 32-bit calls."""
    for pid in processes:
        compat = _is_32bit(pid)
        with suppress(OSError), os.scandir(f"/proc/{pid}/task") as entries:
            for entry in entries:
                yield pid, Path(entry.path), compat


class ProcessMemory:
    """Reads what the arguments of calls point to. If reading takes too long, nothing is told of that container."""

    def __init__(self, mask: Callable[[bytes], bytes] | None = None) -> None:
        """Let mask hide text that must not leave the node."""
        self._mask = mask or bytes
        self._threads = Bounded("memory", 8)

    def add_to(self, blocked: Sequence[pb.Blocked], processes: Callable[[], Sequence[int]], key: int) -> None:
        """Add paths and addresses to the calls of a container, which has these processes and this key."""
        wanted: dict[int, list[tuple[int, pb.Blocked]]] = {}
        for at, each in enumerate(blocked):
            if _pointed(each):
                wanted.setdefault(each.pid, []).append((at, each))
        if not wanted:
            return
        try:
            future: Future[dict[int, list[pb.Memory]]]
            future = self._threads.start(key, lambda: self._read(wanted, processes))
            found = future.result(READ_SECONDS)
        except (Exhausted, OSError, TimeoutError):
            return
        for at, memory in found.items():
            blocked[at].memory.extend(memory)

    def _read(
        self, wanted: Mapping[int, Sequence[tuple[int, pb.Blocked]]], processes: Callable[[], Sequence[int]]
    ) -> dict[int, list[pb.Memory]]:
        found: dict[int, list[pb.Memory]] = {}
        left = _MOST_BYTES
        with held(processes, Path("/proc"), MOST_PROCESSES, wanted) as several:
            for process in several:
                with suppress(OSError):
                    memory = process.open("mem")
                    try:
                        for at, call in wanted[process.pid]:
                            if left <= 0:
                                return found
                            found[at] = [each for each in _of_call(memory, call) if _is_still_in(process, call)]
                            left -= sum(len(each.data) for each in found[at])
                    finally:
                        os.close(memory)
        for several_texts in found.values():
            for each in several_texts:
                each.data = self._mask(each.data)
        return found


def _pointed(call: pb.Blocked) -> dict[int, Capture]:
    """Which arguments of a call are paths and addresses of sockets."""
    number = call.number | (syscalls.COMPAT if call.compat else 0)
    arguments = syscalls.find(_MACHINE, number).arguments
    plan = syscalls.pointed(_MACHINE, number)
    return {
        index: each for index, each in plan.items() if each.how == How.STRING or _is_address(arguments[index], each)
    }


def _is_address(argument: syscalls.Argument, capture: Capture) -> bool:
    return "sockaddr" in argument.kind and capture.how == How.BYTES_ARG


def _of_call(memory: int, call: pb.Blocked) -> Iterator[pb.Memory]:
    for index, capture in _pointed(call).items():
        address = call.args[index]
        if not 0 < address < sys.maxsize - PATH_BYTES:
            continue
        if capture.how == How.STRING:
            data = _string(memory, address)
            if data is not None:
                text, nul, _ = data.partition(b"\0")
                yield pb.Memory(argument=index, data=text, size=len(text) + (not nul))
        else:
            size = call.args[capture.size] & 0xFFFFFFFF
            with suppress(OSError):
                data = os.pread(memory, min(size, _ADDRESS_BYTES), address)
                yield pb.Memory(argument=index, data=data, size=size)


def _string(memory: int, address: int) -> bytes | None:
    """What is at an address, to a NUL and beyond, by pages as the next one may not be there; None if nothing is."""
    data = b""
    while b"\0" not in data and len(data) < PATH_BYTES:
        at = address + len(data)
        try:
            more = os.pread(memory, min(_PAGE - at % _PAGE, PATH_BYTES - len(data)), at)
        except OSError:
            more = b""
        if not more:
            break
        data += more
    return data or None


def _is_still_in(process: Process, call: pb.Blocked) -> bool:
    """Whether a thread is still in the call: only then does the memory that was read belong to this call."""
    try:
        fields = process.read(f"task/{call.tid}/syscall").split()
    except OSError:
        return False
    return len(fields) >= 7 and fields[0] == str(call.number) and [int(each, 16) for each in fields[1:7]] == call.args
