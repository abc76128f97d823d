"""The IP addresses of containers, from their network namespaces: no runtime and no API server is asked.

The processes of a namespace decide what is in it: any number of addresses and routes, under any name, changing at any
time. So it is read up to a limit, in a thread of its own that is waited for only so long, and not again at once.
"""

from __future__ import annotations

import logging
import os
import re
import select
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from agent.containers import rtnetlink
from agent.files import read_text

log = logging.getLogger(__name__)

#: /proc/PID/net/fib_trie lists each route's prefix, then its kind; an address of one's own is a LOCAL host route
_OWN_IPV4 = re.compile(r"\|-- ([\d.]+)\n\s+/32 host LOCAL")
#: How much is read of each of these files: some 3,000 routes.
_FILE_BYTES = 256 << 10
#: How long a namespace may take to tell its addresses. The kernel's lock of all networks may be held meanwhile.
READ_SECONDS = 0.25
#: When a namespace is read again: after so many seconds, and so many times as long as reading took.
AGAIN_SECONDS, AGAIN_TIMES = 1.0, 50
#: How many threads may wait for namespaces at once.
MOST_READERS = 8
#: Namespaces remembered, at about 1 KB.
MOST_NETWORKS = 4096
#: Cgroups that are looked at for a process of a container, and how deep below its own.
MOST_FOLDERS, DEEPEST = 64, 8
#: A process's start is told in ticks of 10 ms (proc_pid_stat(5)).
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class _Network:
    """What was read of a network namespace, and when (CLOCK_BOOTTIME, seconds); seconds is what it took."""

    addresses: tuple[str, ...] = ()
    read: float = float("-inf")
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Addresses:
    """Tells addresses, and remembers them by network namespace. Its methods may be called by any thread."""

    def __init__(
        self, proc: Path = Path("/proc"), clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    ) -> None:
        """Look at the processes of proc."""
        self._proc = proc
        self._clock = clock
        self._lock = threading.Lock()
        self._networks: OrderedDict[int, _Network] = OrderedDict()
        self._readers = threading.BoundedSemaphore(MOST_READERS)

    def of_cgroup(self, folder: Path) -> tuple[int, tuple[str, ...]]:
        """The network namespace of a cgroup's process (its inode), and the addresses there; 0 without a process."""
        where, pid = _first(folder)
        if not pid:
            return 0, ()
        try:
            process = os.pidfd_open(pid)
        except OSError:
            return 0, ()
        try:  # the number may have been given to another process since it was read; from here on it is not
            return self.of(pid, lambda: pid in _pids(where) and not _has_ended(process))
        finally:
            os.close(process)

    def of(self, pid: int, is_right: Callable[[], bool] = lambda: True) -> tuple[int, tuple[str, ...]]:
        """A process's network namespace, and the addresses in it. is_right tells whether pid is still that process."""
        try:
            namespace = os.open(self._proc / str(pid) / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return 0, ()
        try:
            started = _started(self._proc / str(pid))
            if not is_right():
                return 0, ()
            inode = os.fstat(namespace).st_ino
            return inode, self._remembered(inode, started, namespace, self._proc / str(pid))
        finally:
            os.close(namespace)

    def _remembered(self, inode: int, started: float, namespace: int, process: Path) -> tuple[str, ...]:
        with self._lock:
            network = self._networks.setdefault(inode, _Network())
            self._networks.move_to_end(inode)
            while len(self._networks) > MOST_NETWORKS:
                self._networks.popitem(last=False)
        if not network.lock.acquire(timeout=READ_SECONDS):  # another thread reads it just now
            return network.addresses
        try:
            # a process that began since is perhaps in another namespace: the kernel gives inodes again at once
            age, young = self._clock() - network.read, started + 1 / _TICK >= network.read
            if age < max(0.0 if young else AGAIN_SECONDS, network.seconds * AGAIN_TIMES):
                return network.addresses
            network.read = self._clock()
            try:
                network.addresses = self._read(namespace, process)
            except OSError as error:  # the addresses that were read before stay
                log.info("addresses of %s: %s", process, error.strerror or error)
            network.seconds = self._clock() - network.read
            return network.addresses
        finally:
            network.lock.release()

    def _read(self, namespace: int, process: Path) -> tuple[str, ...]:
        if not self._readers.acquire(blocking=False):
            raise OSError(f"{MOST_READERS} namespaces do not answer")
        return read_addresses(namespace, process, self._readers.release)


def read_addresses(namespace: int, process: Path, done: Callable[[], None] = lambda: None) -> tuple[str, ...]:
    """The addresses that others can reach in a network namespace, by its descriptor; process is one that is in it.

    OSError if they are not told in time. done is called when nothing waits for that namespace any more, perhaps later.
    """
    result: deque[tuple[str, ...] | OSError] = deque()
    copy = os.dup(namespace)

    def read() -> None:
        try:
            rtnetlink.enter(copy)  # the change is only of this thread, which ends
            result.append(rtnetlink.own_addresses(READ_SECONDS))
        except OSError as error:
            result.append(error)
        finally:
            os.close(copy)
            done()

    reader = threading.Thread(target=read, name="addresses", daemon=True)
    try:
        reader.start()
    except RuntimeError as error:  # no more threads may be made
        os.close(copy)
        done()
        raise OSError(str(error)) from None
    reader.join(READ_SECONDS)
    found = result.popleft() if result else OSError("not told in time")
    if isinstance(found, PermissionError):  # without CAP_SYS_ADMIN
        return tuple(sorted({each for each in _in_files(process) if rtnetlink.is_reachable(each)})[: rtnetlink.MOST])
    if isinstance(found, OSError):
        raise found
    return tuple(sorted(found))


def first_pid(cgroup: Path) -> int:
    """A process in a cgroup or below it; 0 if there is none, or it is hidden among a great many cgroups."""
    return _first(cgroup)[1]


def network_of(process: Path) -> str:
    """The network namespace of a process of /proc; empty if it cannot be told."""
    try:
        return os.readlink(process / "ns/net")
    except OSError:
        return ""


def addresses_of(process: Path) -> tuple[str, ...]:
    """The addresses that others can reach in the network namespace of a process of /proc, read anew."""
    try:
        namespace = os.open(process / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        with suppress(OSError):
            return read_addresses(namespace, process)
        return ()
    finally:
        os.close(namespace)


def _first(cgroup: Path) -> tuple[Path, int]:
    """A process in a cgroup or below it, and the cgroup that it is in."""
    return next(((folder, pid) for folder in _folders(cgroup) for pid in _pids(folder) if pid), (cgroup, 0))


def _folders(cgroup: Path) -> Iterator[Path]:
    """A cgroup and the cgroups below it, up to a bound."""
    waiting, given = deque([(cgroup, 0)]), 1
    while waiting:
        folder, depth = waiting.popleft()
        yield folder
        if depth == DEEPEST:
            continue
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if given == MOST_FOLDERS:
                    break
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), depth + 1))
                    given += 1


def _pids(folder: Path) -> list[int]:
    """The first processes of a cgroup."""
    with suppress(OSError):
        text = read_text(folder / "cgroup.procs")
        return [int(line) for line in text[: text.rfind("\n") + 1].split()]
    return []  # a threaded one


def _started(process: Path) -> float:
    """When a process began, in CLOCK_BOOTTIME, seconds; now if it cannot be told. Its name may hold anything."""
    try:
        return int(read_text(process / "stat").rpartition(")")[2].split()[19]) / _TICK
    except (OSError, IndexError, ValueError):
        return float("inf")


def _has_ended(process: int) -> bool:
    """Whether the process of a pidfd is over: then it can be read (pidfd_open(2))."""
    with closing(select.epoll()) as poll:
        poll.register(process, select.EPOLLIN)
        return bool(poll.poll(0))


def _in_files(process: Path) -> Iterator[str]:
    with suppress(OSError):
        yield from _OWN_IPV4.findall(read_text(process / "net/fib_trie", _FILE_BYTES))
    with suppress(OSError):
        text = read_text(process / "net/if_inet6", _FILE_BYTES)
        for line in text.split("\n"):  # not splitlines: other ends of lines may be in an interface's name
            with suppress(ValueError, IndexError):
                yield str(IPv6Address(bytes.fromhex(line.split()[0])))
