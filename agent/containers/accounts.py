"""Names of users and groups, as the programs of a container see them: from its own /etc/passwd and /etc/group.

A container decides what is in these files, how long they are, what kind of file system they are on, and whether that
ever answers. So they are read up to a limit, in a thread of their own that is waited for only so long. A container's
names count for itself alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from agent.containers.cgroups import processes_in
from agent.files import open_regular, read_bytes
from agent.processes import Process, held
from agent.threads import Bounded
from gadget.errors import Exhausted
from gadget.kinds.texts import decode_text

#: The text that rules know for a number that nobody has (m_fallback_user of libsinsp's user.cpp).
NOBODY = "<NA>"
#: The id of the cgroups outside containers, here.
HOST = 0
#: When files are looked at again; and those of a container whose processes still are in the host's root, as a runtime's
#: helpers are before they enter the container's.
AGAIN_SECONDS, SOON_SECONDS = 2.0, 0.05
#: How long the first look-up in a container waits, and a later one. One that was too slow is not waited for again.
FIRST_SECONDS, LATER_SECONDS = 0.1, 0.01
#: How much of a file is read, and how many names of it are kept; and of all containers together, at 150 bytes or so.
#: A container counts as so many names more.
FILE_BYTES, FILE_NAMES, ALL_NAMES, CONTAINER_NAMES = 256 << 10, 4096, 131_072, 32
#: Names have 256 bytes at most (LOGIN_NAME_MAX); longer ones are left out.
NAME_BYTES = 256
#: How many containers' files may be waited for at once, and how many of a container's processes are looked at.
_READERS, _PROCESSES = 8, 8
#: A map has 340 lines at most (user_namespaces(7)), of three numbers of 10 digits.
_MAP_BYTES = 340 * 33
_UNSET = 0xFFFFFFFF
_DIGITS = 10
_FILES = b"etc/passwd", b"etc/group"

#: Ranges of numbers: the first one inside, the first one outside, how many.
_Map = tuple[tuple[int, int, int], ...]
_EVERY: _Map = ((0, 0, _UNSET),)


class _Table(NamedTuple):
    """The names of a file by number, and which state of the file that is."""

    state: tuple[int, ...]
    names: dict[int, str]


@dataclass(frozen=True)
class _Known:
    """What is known of a container: of users and of groups the names, and the map to the host's numbers.

    From due on, by the clock, it is to be looked at again. slow is whether it did not answer in time.
    """

    tables: tuple[_Table, _Table] = (_Table((), {}), _Table((), {}))
    maps: tuple[_Map, _Map] = (_EVERY, _EVERY)
    due: float = float("-inf")
    slow: bool = False
    is_told: bool = False

    @property
    def size(self) -> int:
        """As how many names it counts."""
        return CONTAINER_NAMES + sum(len(table.names) for table in self.tables)


class Accounts:
    """Tells names, and remembers them by container. Its methods may be called by any thread."""

    def __init__(
        self,
        folder: Callable[[int], Path],
        proc: Path = Path("/proc"),
        host_root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        most_names: int = ALL_NAMES,
    ) -> None:
        """Look at the processes of proc. folder tells the directory of a container's cgroup by the cgroup's id."""
        self._folder, self._proc, self._host_root, self._clock = folder, proc, host_root, clock
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._size, self._most = 0, most_names
        self._lock = threading.Lock()
        self._readers = Bounded("accounts", _READERS)

    def user(self, cgroup_id: int, uid: int) -> str:
        """The name of a user in a container, by the id of the container's own cgroup; HOST is outside containers.

        uid is the number that the host knows. "<NA>" if nobody in the container has it, or it cannot be told; who is 0
        there and has no name is root (sinsp_filtercheck_user.cpp). A change of the files is seen within 2 s.
        """
        return self._name(cgroup_id, uid, 0)

    def group(self, cgroup_id: int, gid: int) -> str:
        """The name of a group, by the same rules."""
        return self._name(cgroup_id, gid, 1)

    def _name(self, cgroup_id: int, number: int, which: int) -> str:
        known = self._look(cgroup_id)
        inside = next((number - out + first for first, out, n in known.maps[which] if out <= number < out + n), None)
        if inside is None:
            return NOBODY
        return known.tables[which].names.get(inside) or ("root" if inside == 0 else NOBODY)

    def _look(self, cgroup_id: int) -> _Known:
        """What is known of a container, read again if it was read long ago."""
        with self._lock:
            known = self._known.get(cgroup_id, _Known())
        if self._clock() < known.due:
            return known
        if cgroup_id == HOST:
            return self._read(cgroup_id, known)
        try:
            reading = self._readers.start(cgroup_id, lambda: self._read(cgroup_id, known))
        except Exhausted:
            return known
        try:
            known = reading.result(0 if known.slow else LATER_SECONDS if known.is_told else FIRST_SECONDS)
        except TimeoutError:
            with self._lock:  # it may be told by now
                known = self._known.get(cgroup_id, known)
            self._keep(cgroup_id, replace(known, due=self._clock() + AGAIN_SECONDS, slow=True))
        return known

    def _keep(self, cgroup_id: int, known: _Known) -> _Known:
        with self._lock:
            before = self._known.pop(cgroup_id, None)
            self._known[cgroup_id] = known
            self._size += known.size - (before.size if before else 0)
            while self._size > self._most:
                self._size -= self._known.popitem(last=False)[1].size
        return known

    def _read(self, cgroup_id: int, before: _Known) -> _Known:
        """Look at the files, and keep what they say."""
        known = replace(before, due=self._clock() + AGAIN_SECONDS)
        with suppress(OSError):
            if cgroup_id == HOST:
                known = self._of_root(self._open_host(), known)
            else:
                known = self._of_container(cgroup_id, known)
        return self._keep(cgroup_id, known)

    def _of_container(self, cgroup_id: int, known: _Known) -> _Known:
        """What a container's files say, by its first process with a root of its own; without one, what is known."""
        folder = self._folder(cgroup_id)
        host = self._open_host()
        try:
            with held(lambda: processes_in(folder, _PROCESSES), self._proc, _PROCESSES) as processes:
                for process in processes:
                    maps = _map(process, "uid_map"), _map(process, "gid_map")
                    root = process.open("root", os.O_PATH | os.O_DIRECTORY)
                    if not os.path.sameopenfile(root, host):
                        return self._of_root(root, replace(known, maps=maps))
                    os.close(root)
            if known.is_told or not processes:
                return known
            return replace(self._of_root(os.dup(host), known), due=self._clock() + SOON_SECONDS, is_told=False)
        finally:
            os.close(host)

    def _of_root(self, root: int, known: _Known) -> _Known:
        """What the files below a root say. The root's descriptor is closed."""
        try:
            users, groups = (_table(root, path, table) for path, table in zip(_FILES, known.tables, strict=True))
            return replace(known, tables=(users, groups), is_told=True)
        finally:
            os.close(root)

    def _open_host(self) -> int:
        """The root of the host; the one of process 1 is whole, and the one that is mounted for us need not be."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        with suppress(OSError):
            if self._proc != Path("/proc") or os.getpid() != 1:
                return os.open(self._proc / "1/root", flags)
        return os.open(self._host_root, flags)


def _map(process: Process, name: str) -> _Map:
    """A user namespace's map, relative to our own namespace (user_namespaces(7)). OSError if the process is over."""
    lines = [line.split() for line in process.read(name, _MAP_BYTES).split("\n")]
    return tuple((int(line[0]), int(line[1]), int(line[2])) for line in lines if len(line) == 3)


def _table(root: int, path: bytes, before: _Table) -> _Table:
    """The names of a file below a root; those of before if it is in the same state, and none if it cannot be read."""
    try:
        found = open_regular(root, path)
    except OSError:
        return _Table((), {})
    try:
        about = os.fstat(found)
        state = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
        return before if state == before.state else _Table(state, parse(read_bytes(found, FILE_BYTES)))
    finally:
        os.close(found)


def parse(data: bytes) -> dict[int, str]:
    """The names in a passwd(5) or group(5), by number. The first one counts, as with getpwuid(3).

    Lines without name or number are left out, as are those that refer to other lists (+, -).
    """
    names: dict[int, str] = {}
    for line in data.split(b"\n"):
        name, *parts = line.split(b":", 3)
        if len(parts) < 3 or not 0 < len(name) <= NAME_BYTES or name[:1] in b"+-":
            continue
        if parts[1].isdigit() and len(parts[1]) <= _DIGITS:
            names.setdefault(int(parts[1]), decode_text(name))
        if len(names) == FILE_NAMES:
            break
    return names
