"""The processes that events are of, and their ancestors, as rules ask about them.

A program of a process is known by the process's id, when it began and how many programs it has run. What events tell of
forks, execs and changes is kept for each; what each event carries itself (ids of users, terminal, capabilities) makes
a row of its own.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from gadget.rules import words
from gadget.rules.checks import Event

#: Programs that are remembered, and the bytes that they take; of those that have ended the first to end goes first.
MOST, MOST_BYTES = 65_536, 64 << 20
#: About what a program takes beside its texts, and an argument beside its own, in bytes.
_PROGRAM_BYTES, _TEXT_BYTES = 600, 80
#: How long a process that has ended is remembered, in seconds: events of it may still come.
KEPT_SECONDS = 30
#: Ancestors of a process that are known: rules ask for up to 7.
ANCESTORS = 16
NO_LOGIN = 0xFFFF_FFFF
#: In /proc times have this unit (clock ticks, in nanoseconds), in the kernel nanoseconds.
TICK_NS = 10_000_000


class Key(NamedTuple):
    """Which program of which process: start in nanoseconds since boot, number grows with each exec."""

    pid: int
    start: int
    number: int


class Program(NamedTuple):
    """What an alert tells of a process: command is its name and arguments. Empty is what is not known."""

    pid: int
    name: str
    command: str
    path: str


@dataclass(frozen=True)
class Ancestor:
    """What is remembered of an ancestor, as of the last exec or fork below it. The name is empty if it is not known."""

    key: Key
    name: str
    arguments: tuple[str, ...] | None
    path: str | None
    vpid: int
    #: about the bytes of its texts
    size: int = 0

    @property
    def command(self) -> str | None:
        """Name and arguments."""
        return command(self.name, self.arguments)

    @property
    def is_inside(self) -> bool:
        """Whether it is in a pid namespace of its own, as nearly all containers are."""
        return self.vpid not in (0, self.key.pid)

    @property
    def exe(self) -> str | None:
        """The program's name for itself."""
        return self.arguments[0] if self.arguments else None


@dataclass
class KnownProcess:
    """A program of a process. None stands for what is not known of it."""

    key: Key
    name: str
    ancestors: tuple[Ancestor, ...] = ()
    arguments: tuple[str, ...] | None = None
    path: str | None = None
    cwd: str | None = None
    vpid: int = 0
    pgid: int = 0
    sid: int = 0
    vpgid: int = 0
    upper_layer: bool | None = None
    memfd: bool | None = None
    writable: bool | None = None
    inode: int | None = None
    ctime: int | None = None
    mtime: int | None = None
    environment: str | None = None
    #: the ids of its rows, which are made anew when it changes
    rows: set[int] = field(default_factory=set)

    @property
    def is_known(self) -> bool:
        """Whether its program is known. Of some processes only their existence is."""
        return self.arguments is not None

    def as_ancestor(self) -> Ancestor:
        """The part of it that is kept for its descendants."""
        return Ancestor(self.key, self.name, self.arguments, self.path, self.vpid, self._texts_size)

    @cached_property
    def ancestry(self) -> tuple[Program, ...]:
        """It and its ancestors, as alerts tell of them.

        Of ancestors in the node's pid namespace the arguments are left out: they are of others, and may be secret.
        """
        return tuple(
            Program(each.key.pid, each.name, (each.command or "") if each.is_inside or not at else "", each.path or "")
            for at, each in enumerate((self.as_ancestor(), *self.ancestors))
        )

    def below(self) -> tuple[Ancestor, ...]:
        """The ancestors of its children."""
        return (self.as_ancestor(), *self.ancestors[: ANCESTORS - 1])

    @property
    def size(self) -> int:
        """About the bytes that it takes. What its ancestors take is counted, as it may be all that keeps it."""
        own = self._texts_size + 2 * (len(self.cwd or "") + len(self.environment or ""))
        return _PROGRAM_BYTES + own + sum(each.size for each in self.ancestors)

    @property
    def _texts_size(self) -> int:
        """Of path and arguments. A character takes 2 bytes in a text that is no UTF-8."""
        given = self.arguments or ()
        return 2 * (len(self.path or "") + sum(map(len, given))) + _TEXT_BYTES * len(given)


class ProcessSurroundings(Protocol):
    """What is known of a process beside what events tell. None: not known, or none."""

    def container(self, cgroup_id: int) -> Event | None:
        """The fields container.… and k8s.… of the container of a cgroup; None outside containers."""

    def user(self, cgroup_id: int, pid: int, uid: int) -> str | None:
        """The name of a user, as the container of the process has it."""

    def group(self, cgroup_id: int, pid: int, gid: int) -> str | None:
        """The name of a group, likewise."""

    def domains(self, cgroup_id: int, address: bytes) -> tuple[str, ...]:
        """The names for which the container got an address (4 or 16 bytes) as an answer of DNS."""

    def process(self, pid: int) -> KnownProcess | None:
        """A process as it is now, its start in ticks."""

    def running(self) -> Iterable[KnownProcess]:
        """All that run, likewise."""


class Processes:
    """The programs that are known."""

    def __init__(
        self, find: Callable[[int], KnownProcess | None], most: int = MOST, most_bytes: int = MOST_BYTES
    ) -> None:
        """Find tells of a process that runs now and began unseen."""
        self._find, self._most, self._most_bytes = find, most, most_bytes
        self._known: dict[Key, KnownProcess] = {}
        self._sizes: dict[Key, int] = {}  # of those that are known
        self._running: dict[tuple[int, int], Key] = {}  # by id and start, the program that it runs now
        #: by id and start in ticks, those that nothing has told of
        self._before: dict[tuple[int, int], KnownProcess] = {}
        self._ended: deque[tuple[int, Key]] = deque()
        self._now_ns = 0
        #: about the bytes that all take
        self.size = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key, name: str) -> KnownProcess:
        """The program of an event. One that is not known yet is looked for, and has this name if it is nowhere."""
        return self._known.get(key) or self._learn(key, name)

    def running(self, pid: int, start: int) -> KnownProcess | None:
        """The program that a process runs."""
        key = self._running.get((pid, start))
        return self._known.get(key) if key else None

    def add(self, process: KnownProcess, now_ns: int) -> None:
        """Take in a program that has begun."""
        self._now_ns = max(self._now_ns, now_ns)
        self._keep(process)
        key = process.key
        before = self._running.get((key.pid, key.start))
        if before and before != key:  # events of it may still come
            self._ended.append((self._now_ns, before))
        self._running[key.pid, key.start] = key

    def weigh(self, process: KnownProcess) -> None:
        """Something of a program has changed that takes room."""
        if process.key in self._sizes:
            self._drop(process.key)
            self._keep(process)

    def end(self, key: Key, now_ns: int) -> None:
        """The process has ended."""
        self._now_ns = max(self._now_ns, now_ns)
        self._before.pop((key.pid, key.start // TICK_NS), None)
        self._ended.append((self._now_ns, key))
        self._running.pop((key.pid, key.start), None)

    def forget(self, now_ns: int) -> None:
        """Forget what ended a while ago."""
        while self._ended and self._ended[0][0] < now_ns - KEPT_SECONDS * 1_000_000_000:
            self._drop(self._ended.popleft()[1])

    def know(self, processes: Iterable[KnownProcess]) -> None:
        """Take in the processes that run already, their starts in ticks."""
        self._before = {(each.key.pid, each.key.start): each for each in processes}

    def _learn(self, key: Key, name: str) -> KnownProcess:
        ticks = key.start // TICK_NS
        running = self._running.get((key.pid, key.start))
        is_over = running is not None and _is_later(running.number, key.number)
        found = self._before.pop((key.pid, ticks), None)
        if running is not None and not is_over:
            found = None  # it ran before that one, too
        if found is None and not is_over:  # else /proc has another program of the process by now
            found = self._find(key.pid)
        is_over = is_over or found is None
        if found is None or found.key.start != ticks:
            found, is_over = KnownProcess(key, name), True
        found.key = key
        if not is_over:
            self.add(found, self._now_ns)
            return found
        self._keep(found)
        self._ended.append((self._now_ns, key))
        return found

    def _keep(self, process: KnownProcess) -> None:
        while self._known and (len(self._known) >= self._most or self.size >= self._most_bytes):
            self._make_room()
        self._drop(process.key)
        self._known[process.key] = process
        size = self._sizes[process.key] = process.size
        self.size += size

    def _drop(self, key: Key) -> None:
        self._known.pop(key, None)
        self.size -= self._sizes.pop(key, 0)

    def _make_room(self) -> None:
        if self._ended:
            self._drop(self._ended.popleft()[1])
            return
        key = next(iter(self._known))
        self._drop(key)
        self._running.pop((key.pid, key.start), None)


def _is_later(number: int, other: int) -> bool:
    """Whether a count of 32 bits that goes around has gone on."""
    return 0 < (number - other & 0xFFFF_FFFF) < 1 << 31


class Now(NamedTuple):
    """What an event tells of its process beside its program. login is NO_LOGIN if nobody has logged in."""

    cgroup_id: int
    uid: int
    gid: int
    login: int
    tty: int
    effective: int
    permitted: int


class ProcessRow:
    """A process at an event: its fields as rules name them."""

    def __init__(self, process: KnownProcess, now: Now, surroundings: ProcessSurroundings) -> None:
        self.process, self.now = process, now
        self._surroundings = surroundings

    def get(self, key: str, /) -> Any:
        """The value of a field; None if it is missing."""
        if made := _FIELDS.get(key):
            return made(self)
        name, bracket, rest = key.partition("[")
        if name.startswith(("container.", "k8s.")):
            return self._of_container(key)
        if bracket and (with_argument := _WITH_ARGUMENT.get(name)):
            return with_argument(self, rest.removesuffix("]"))
        return None

    def _of_container(self, key: str) -> Any:
        container = self._surroundings.container(self.now.cgroup_id)
        if container is None:
            return "host" if key in ("container.id", "container.name") else None
        return container.get(key)

    def lacks(self, key: str) -> bool:
        """Whether an ancestor that a field asks for is not known. The first that is not is the last that is there."""
        name, bracket, _ = key.partition("[")
        of = self.inner if name in _OF_INNER else self.process.ancestors
        if not of or of[-1].name:
            return False
        if name in _OF_ANCESTORS:
            return not bracket or self.get(key) is None
        return name in _OF_ONE_ANCESTOR and self.get(key) is None

    @property
    def inner(self) -> Sequence[Ancestor]:
        """Its ancestors in its container, of a container without a pid namespace of its own all of them.

        Who started the container or entered it is none: what runs on the node is no part of what a pod does.
        """
        own, ancestors = self.process, self.process.ancestors
        if own.vpid in (0, own.key.pid):
            return ancestors
        for at, each in enumerate(ancestors):
            if each.vpid == 1:
                return ancestors[: at + 1]
            if each.vpid == each.key.pid:
                return ancestors[:at]
        return ancestors

    @property
    def parent(self) -> Ancestor | None:
        """Its parent, if that is known."""
        return self.process.ancestors[0] if self.process.ancestors else None

    def user(self, uid: int) -> str | None:
        """The name of a user."""
        return self._surroundings.user(self.now.cgroup_id, self.process.key.pid, uid)

    def group(self, gid: int) -> str | None:
        """The name of a group."""
        return self._surroundings.group(self.now.cgroup_id, self.process.key.pid, gid)

    def domains(self, address: bytes) -> tuple[str, ...]:
        """The names for which its container got an address."""
        return self._surroundings.domains(self.now.cgroup_id, address)

    def leader(self, pid: int) -> Ancestor | None:
        """The leader of its session or group, if that is the process itself or an ancestor."""
        if pid == self.process.key.pid:
            return self.process.as_ancestor()
        return next((each for each in self.process.ancestors if each.key.pid == pid), None)


def command(name: str, arguments: Sequence[str] | None) -> str | None:
    """proc.cmdline: the name, and the arguments behind the first."""
    return None if arguments is None else " ".join([name, *arguments[1:]])


def _own(attribute: str) -> Callable[[ProcessRow], Any]:
    return lambda row: getattr(row.process, attribute)


def _parents(attribute: str) -> Callable[[ProcessRow], Any]:
    return lambda row: (getattr(row.parent, attribute) if row.parent else None) or None


def _known(ancestors: Sequence[Ancestor], attribute: str) -> tuple[Any, ...] | None:
    values = (getattr(each, attribute) for each in ancestors)
    return tuple(each for each in values if each not in (None, "")) or None


def _all(attribute: str) -> Callable[[ProcessRow], Any]:
    """Of all ancestors, as far as it is known of each."""
    return lambda row: _known(row.process.ancestors, attribute)


def _all_inner(attribute: str) -> Callable[[ProcessRow], Any]:
    """Of those in its container, likewise."""
    return lambda row: _known(row.inner, attribute)


def _of_ancestor(attribute: str) -> Callable[[ProcessRow, str], Any]:
    """0 is the process itself."""

    def found(row: ProcessRow, text: str) -> Any:
        number = int(text) if text.isascii() and text.isdecimal() else ANCESTORS + 1
        if number > len(row.process.ancestors):
            return None
        of = row.process.ancestors[number - 1] if number else row.process.as_ancestor()
        return getattr(of, attribute) or None

    return found


def _of_leader(which: str, attribute: str) -> Callable[[ProcessRow], Any]:
    def found(row: ProcessRow) -> Any:
        leader = row.leader(getattr(row.process, which))
        return getattr(leader, attribute) if leader else None

    return found


def _arguments(row: ProcessRow) -> str | None:
    return None if row.process.arguments is None else " ".join(row.process.arguments[1:])


def _argument(row: ProcessRow, text: str) -> str | None:
    given = row.process.arguments
    number = int(text) + 1 if text.isascii() and text.isdecimal() else 0
    return given[number] if given and 0 < number < len(given) else None


def _variable(row: ProcessRow, name: str) -> str | None:
    for each in (row.process.environment or "").split("\0"):
        if each.startswith(f"{name}="):
            return each.partition("=")[2]
    return None


def _exe_line(row: ProcessRow) -> str | None:
    return None if row.process.arguments is None else " ".join(row.process.arguments)


def _cwd(row: ProcessRow) -> str | None:
    """With a slash at its end, as in Falco."""
    return None if row.process.cwd is None else posixpath.join(row.process.cwd, "")


_ANCESTRAL = {"name": "name", "exe": "exe", "exepath": "path", "cmdline": "command"}
_OF_ONE_ANCESTOR: Mapping[str, Callable[[ProcessRow], Any]] = {
    **{f"proc.p{field}": _parents(attribute) for field, attribute in _ANCESTRAL.items()},
    "proc.pvpid": _parents("vpid"),
    "proc.sname": _of_leader("sid", "name"),
    "proc.sid.exe": _of_leader("sid", "exe"),
    "proc.sid.exepath": _of_leader("sid", "path"),
    "proc.pgid.name": _of_leader("pgid", "name"),
    "proc.pgid.exe": _of_leader("pgid", "exe"),
    "proc.pgid.exepath": _of_leader("pgid", "path"),
}
_OF_INNER: Mapping[str, Callable[[ProcessRow], Any]] = {
    "proc.container.aname": _all_inner("name"),
    "proc.container.aexepath": _all_inner("path"),
}
_OF_ANCESTORS: Mapping[str, Callable[[ProcessRow], Any]] = {
    **_OF_INNER,
    **{f"proc.a{field}": _all(attribute) for field, attribute in _ANCESTRAL.items()},
    "proc.apid": lambda row: tuple(each.key.pid for each in row.process.ancestors) or None,
}
_FIELDS: Mapping[str, Callable[[ProcessRow], Any]] = {
    "proc.name": _own("name"),
    "proc.exe": lambda row: row.process.arguments[0] if row.process.arguments else None,
    "proc.exepath": _own("path"),
    "proc.args": _arguments,
    "proc.cmdline": lambda row: command(row.process.name, row.process.arguments),
    "proc.exeline": _exe_line,
    "proc.cmdnargs": lambda row: None if row.process.arguments is None else len(row.process.arguments[1:]),
    "proc.cmdlenargs": lambda row: None if row.process.arguments is None else sum(map(len, row.process.arguments[1:])),
    "proc.cwd": _cwd,
    "proc.env": lambda row: row.process.environment and row.process.environment.rstrip("\0").replace("\0", " "),
    "proc.tty": lambda row: row.now.tty,
    "proc.pid": lambda row: row.process.key.pid,
    "proc.ppid": lambda row: row.parent.key.pid if row.parent else None,
    "proc.vpid": _own("vpid"),
    "proc.sid": _own("sid"),
    "proc.pgid": _own("pgid"),
    "proc.vpgid": _own("vpgid"),
    "proc.is_vpgid_leader": lambda row: row.process.vpgid == row.process.vpid,
    "proc.is_pgid_leader": lambda row: row.process.pgid == row.process.key.pid,
    "proc.is_sid_leader": lambda row: row.process.sid == row.process.key.pid,
    "proc.is_exe_upper_layer": _own("upper_layer"),
    "proc.is_exe_from_memfd": _own("memfd"),
    "proc.is_exe_writable": _own("writable"),
    "proc.exe_ino": _own("inode"),
    "proc.exe_ino.ctime": _own("ctime"),
    "proc.exe_ino.mtime": _own("mtime"),
    **_OF_ONE_ANCESTOR,
    **_OF_ANCESTORS,
    "user.uid": lambda row: row.now.uid,
    "user.name": lambda row: row.user(row.now.uid),
    "user.loginuid": lambda row: -1 if row.now.login == NO_LOGIN else row.now.login,
    "user.loginname": lambda row: "<NA>" if row.now.login == NO_LOGIN else row.user(row.now.login),
    "group.gid": lambda row: row.now.gid,
    "group.name": lambda row: row.group(row.now.gid),
    "thread.cap_effective": lambda row: words.capabilities(row.now.effective),
    "thread.cap_permitted": lambda row: words.capabilities(row.now.permitted),
}
_WITH_ARGUMENT: Mapping[str, Callable[[ProcessRow, str], Any]] = {
    **{f"proc.a{field}": _of_ancestor(attribute) for field, attribute in _ANCESTRAL.items()},
    "proc.args": _argument,
    "proc.env": _variable,
    "proc.apid": lambda row, text: (_of_ancestor("key")(row, text) or (None,))[0],
}
