"""Finds what threads in system calls wait for: files, sockets, locks and their holders, children."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.files import printable, read_text
from agent.inspect.sockets import Socket, find
from agent.processes import Process
from gadget import syscalls
from gadget._generated import gadget_pb2 as pb

#: Calls that are looked into, processes that they may be of, and children that are looked for.
MOST_WAITS, MOST_PROCESSES, _MOST_CHILDREN = 256, 32, 512
_MOST_THREADS, _MOST_POLLED = 4096, 4
_LOCKS_BYTES = 256 << 10
_MACHINE = os.uname().machine
#: Calls that wait for what their first argument is.
_DESCRIPTOR = frozenset((
    "read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recvmmsg", "write", "writev", "pwrite64",
    "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "connect", "accept", "accept4", "fsync", "fdatasync",
    "syncfs", "flock", "fcntl", "fcntl64", "ioctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
))  # fmt: skip
_FILE_LOCKS = frozenset(("flock", "fcntl", "fcntl64"))
_POLLS = frozenset(("poll", "ppoll"))
_CHILDREN = frozenset(("wait4", "waitid"))
#: linux/futex.h: operations without their flags, and what a futex of a lock holds.
_WAIT, _LOCK_PI, _WAIT_BITSET, _LOCK_PI2, _COMMAND = 0, 6, 9, 13, 0x7F
_WAITERS, _TID = 0x80000000, 0x3FFFFFFF
#: pthread_mutex_t of glibc: the futex, 2 if somebody waits; then a count, then the thread that has it.
_CONTENDED, _OWNER = 2, 8
_P_PID = 1
_SOCKET = re.compile(r"socket:\[(\d+)\]")
#: proc_locks(5): the number of a lock, and an arrow before those that wait for it, further in for who waits for these
#: (fs/locks.c, lock_get_status).
_LOCK = re.compile(r"^(\d+): *(-> )?\w+\s+\w+\s+\w+\s+(-?\d+) ", re.MULTILINE)


def name_of(call: pb.Blocked) -> str:
    """The name of a call."""
    return syscalls.find(_MACHINE, call.number | (syscalls.COMPAT if call.compat else 0)).name


def chosen(blocked: Iterable[pb.Blocked]) -> list[pb.Blocked]:
    """The calls to look into, the first of each process first."""
    wanted = [each for each in blocked if name_of(each) in _DESCRIPTOR | _POLLS | _CHILDREN | {"futex"}]
    return sorted(wanted, key=lambda each: each.tid != each.pid)[:MOST_WAITS]


def descriptors(blocked: Sequence[pb.Blocked], processes: Sequence[Process]) -> Iterator[pb.Wait]:
    """What the descriptors lead to that calls name."""
    by_pid = {process.pid: process for process in processes}
    found: list[tuple[pb.Blocked, int, str]] = []
    for call in blocked:
        for number in _numbers(call):
            with suppress(OSError, KeyError):
                found.append((call, number, by_pid[call.pid].link(f"fd/{number}")))
    inodes = {int(match[1]) for _, _, link in found if (match := _SOCKET.fullmatch(link))}
    sockets: dict[int, Socket] = {}
    seen = set()
    for process in processes if inodes else ():
        with suppress(OSError):
            network = process.link("ns/net")
            if network not in seen:
                seen.add(network)
                sockets |= find(process, inodes)
    for call, number, link in found:
        kind, name, state = _thing(link, sockets)
        yield pb.Wait(pid=call.pid, tid=call.tid, descriptor=number, kind=kind, name=name, state=state)


def _numbers(call: pb.Blocked) -> Iterator[int]:
    """The descriptors that a call waits for."""
    if name_of(call) in _DESCRIPTOR:
        yield call.args[0] & 0x7FFFFFFF


def polled(blocked: Sequence[pb.Blocked], processes: Sequence[Process]) -> list[pb.Blocked]:
    """A call of poll as several calls, one for each descriptor of its list, up to a bound."""
    by_pid, found = {process.pid: process for process in processes}, []
    for call in blocked:
        count = call.args[1] & 0xFFFFFFFF
        if name_of(call) in _POLLS and call.pid in by_pid and 0 < count <= _MOST_POLLED:
            data = _memory(by_pid[call.pid], call.args[0], 8 * count)
            for number, _, _ in struct.iter_unpack("<iHH", data):
                if number >= 0:
                    found.append(pb.Blocked(pid=call.pid, tid=call.tid, number=_READ, args=[number]))
    return found


_READ = syscalls.numbers(_MACHINE)["read"] if _MACHINE in syscalls.MACHINES else 0


def _thing(link: str, sockets: Mapping[int, Socket]) -> tuple[str, str, str]:
    """Kind, name and state of the file or socket that a link in /proc/PID/fd leads to."""
    if match := _SOCKET.fullmatch(link):
        socket = sockets.get(int(match[1]))
        return (socket.kind, socket.name, socket.state) if socket else ("socket", "", "")
    if link.startswith("pipe:["):
        return "pipe", "", ""
    return "file", printable(link), ""


def file_locks(blocked: Sequence[pb.Blocked], proc: Path) -> Iterator[pb.Wait]:
    """The processes that hold the file locks that calls wait for."""
    waiting = {call.pid: call for call in blocked if name_of(call) in _FILE_LOCKS}
    if not waiting:
        return
    holder = 0
    with suppress(OSError):
        for match in _LOCK.finditer(read_text(proc / "locks", _LOCKS_BYTES)):
            pid = int(match[3])
            if not match[2]:
                holder = pid
            elif holder > 0 and (call := waiting.get(pid)):
                yield pb.Wait(pid=call.pid, tid=call.tid, holder=_task(proc, holder, holder))


def children(blocked: Sequence[pb.Blocked], pids: Sequence[int], proc: Path) -> Iterator[pb.Wait]:
    """The child that a call waits for: the child that it names, else the oldest child."""
    waiting = [call for call in blocked if name_of(call) in _CHILDREN]
    parents = {call.pid for call in waiting}
    of: dict[int, list[tuple[int, int]]] = {}
    for pid in pids[:_MOST_CHILDREN] if waiting else ():
        with suppress(OSError, ValueError, IndexError):
            fields = read_text(proc / str(pid) / "stat").rpartition(")")[2].split()
            if int(fields[1]) in parents and fields[0] != "Z":
                of.setdefault(int(fields[1]), []).append((int(fields[19]), pid))
    for call in waiting:
        wanted = _named_child(call)
        for _, pid in sorted(of.get(call.pid, [])):
            if not wanted or _inner_number(proc / str(pid)) == wanted:
                yield pb.Wait(pid=call.pid, tid=call.tid, child=_task(proc, pid, pid))
                break


def _named_child(call: pb.Blocked) -> int:
    """The number of the child that a call waits for, as the container numbers it; 0: any."""
    if name_of(call) == "waitid":
        return call.args[1] & 0xFFFFFFFF if call.args[0] & 0xFFFFFFFF == _P_PID else 0
    wanted = call.args[0] & 0xFFFFFFFF
    return wanted if wanted < 1 << 31 else 0


def _inner_number(task: Path | str, read: Callable[[str], str] | None = None) -> int:
    """The number that a thread has in its own pid namespace; 0 if it cannot be told."""
    with suppress(OSError, ValueError, IndexError):
        text = read(f"{task}/status") if read else read_text(Path(task) / "status")
        return next(int(line.split()[-1]) for line in text.split("\n") if line.startswith("NSpid:"))
    return 0


def mutexes(blocked: Sequence[pb.Blocked], processes: Sequence[Process]) -> Iterator[pb.Wait]:
    """Which thread of its process holds a lock that a thread waits for: it reads their memory, which may take its time.

    It knows locks of glibc, and locks whose futex itself names the thread: those that the kernel has to know (priority
    inheritance, robust locks), and musl's.
    """
    by_pid = {process.pid: process for process in processes}
    numbers: dict[int, dict[int, int]] = {}
    for call in blocked:
        process = by_pid.get(call.pid)
        if process is None or name_of(call) != "futex":
            continue
        owner = _owner(process, call)
        if not owner:
            continue
        if call.pid not in numbers:
            tids = [int(name) for name in process.names("task", _MOST_THREADS) if name.isdigit()]
            numbers[call.pid] = {_inner_number(f"task/{tid}", process.read): tid for tid in tids}
        holder = numbers[call.pid].get(owner)
        if holder and holder != call.tid:
            with suppress(OSError):
                comm = process.read(f"task/{holder}/comm").removesuffix("\n")
                yield pb.Wait(pid=call.pid, tid=call.tid, holder=pb.Task(pid=call.pid, tid=holder, comm=comm))


def _owner(process: Process, call: pb.Blocked) -> int:
    """The thread that holds a lock, as the container numbers it; 0 if that cannot be told."""
    operation = call.args[1] & _COMMAND
    data = _memory(process, call.args[0], _OWNER + 4)
    if len(data) < _OWNER + 4:
        return 0
    word, owner = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, _OWNER)[0]
    if operation in (_LOCK_PI, _LOCK_PI2) or (operation in (_WAIT, _WAIT_BITSET) and word & _WAITERS):
        return int(word & _TID)
    if operation in (_WAIT, _WAIT_BITSET) and word == _CONTENDED == call.args[2] & 0xFFFFFFFF:
        return int(owner & _TID)
    return 0


def _memory(process: Process, address: int, size: int) -> bytes:
    """The memory at an address of a process; empty if that cannot be read."""
    if not 0 < address < 1 << 62:
        return b""
    with suppress(OSError):
        fd = process.open("mem")
        try:
            return os.pread(fd, size, address)
        finally:
            os.close(fd)
    return b""


def _task(proc: Path, pid: int, tid: int) -> pb.Task:
    with suppress(OSError):
        return pb.Task(pid=pid, tid=tid, comm=read_text(proc / str(pid) / "comm").removesuffix("\n"))
    return pb.Task(pid=pid, tid=tid)
