"""What each recorded call changes: what processes have open, what they said, whom they asked and waited for."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from gadget import syscalls
from gadget.kinds.texts import decode_text
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import DeliveredSignal, Entry, MissingCalls, SentSignal, ThreadEnd
from kubectl_gadget.why.arguments import (
    OPENS,
    call_name,
    data_of,
    endpoint,
    error_name,
    path_argument,
    signed,
    strings_of,
    text_of,
)

_SOL_SOCKET, _SO_ERROR, _EINPROGRESS, _EISCONN = 1, 4, 115, 106
_AT_FDCWD = -100
_F_DUPFD = (0, 1030)
_RESTARTS = 512  # linux/errno.h: ERESTARTSYS and its like
_O_CREAT, _MAP_ANONYMOUS = 0o100, 0x20
#: How soon programs try the next address of a peer, nanoseconds.
_OTHER_ADDRESS_NS = 1_000_000_000
NO_ANSWER, NO_REPLY = "no answer", "no reply"
#: How the address of a name server ends, and the calls by which it is asked.
NAME_SERVER = ":53"
_TALKS = frozenset(("sendto", "sendmmsg", "sendmsg", "write", "recvfrom", "recvmsg", "read"))
_RECEIVES = ("read", "recvfrom", "recvmsg", "readv")


class Thing(NamedTuple):
    """What a file descriptor is: a file, socket, listener, client, pipe or closed, and its path or peer's address."""

    kind: str
    name: str


_CLOSED = Thing("closed", "")


class SpokenText(NamedTuple):
    """A piece of output."""

    time_ns: int
    pid: int
    descriptor: int
    text: str
    tid: int = 0


class BegunProgram(NamedTuple):
    """A program that a process began to run."""

    time_ns: int
    path: str
    arguments: tuple[str, ...]


class Waited(NamedTuple):
    """That a process learnt of the end of a child, by the number that it has in the container."""

    time_ns: int
    child: int
    status: int


class Failure(NamedTuple):
    """A call that failed: subject is the path, the address or the like that it was about, by the words of its program.

    error is its name, or NO_ANSWER or NO_REPLY where a program gave up waiting. A connect whose end is told later, by
    SO_ERROR, is one too.
    """

    call: Call
    name: str
    error: str
    subject: str
    at: int


def _tail(name: str) -> str:
    """What another path to a file, or another address of a peer, has in common with this one."""
    before, colon, port = name.rpartition(":")
    if colon and port.isdecimal() and "/" not in before:
        return colon + port
    return name.rstrip("/").rpartition("/")[2]


class NotedCalls:
    """The entries of a recording in the order of time, and what the calls among them changed."""

    def __init__(
        self,
        entries: Sequence[Entry] = (),
        started: Mapping[int, tuple[int, int]] | None = None,
        *,
        complete: bool = False,
        blocked: Sequence[tuple[Call, int | None]] = (),
        status: int | None = None,
        kept: int = 0,
        sent: Sequence[SentSignal] = (),
        read_ns: int = 0,
        failures_left_out: int = 0,
    ) -> None:
        """Those of a container whose first program ended with status, None if it runs or that is not known.

        started has the processes that something outside began, and when, as a Reader has it; blocked the calls that
        have not returned, with nanoseconds; sent the signals that were sent. complete: it was recorded from its start,
        and the first calls are among them. kept are all calls that there are. failures_left_out: calls that failed and
        are not here.
        """
        self.entries = [entry for entry in entries if not isinstance(entry, MissingCalls)]
        #: when it was read, by the node's clock
        self.read_ns = read_ns
        self.failures_left_out = failures_left_out
        self.missing = sum(entry.missing for entry in entries if isinstance(entry, MissingCalls))
        self.complete, self.blocked, self.kept, self.sent = complete, blocked, kept, sent
        self._started = started or {}
        self._status = status
        self.said: list[SpokenText] = []
        self.programs: dict[int, list[BegunProgram]] = {}
        self.ends: dict[int, list[ThreadEnd]] = {}
        self.signals: list[DeliveredSignal] = []
        self.failures: list[Failure] = []
        self.waits: dict[int, list[Waited]] = {}
        #: when a process reached a path or a peer, by that and by what _tail leaves of it
        self._reached: dict[tuple[int, str], list[int]] = {}
        #: paths that a process made itself
        self.made: set[tuple[int, str]] = set()
        #: what was sent to name servers, and read from them
        self.about_names: list[Call] = []
        self._things: dict[tuple[int, int], Thing] = {}
        #: connects that are under way, by process and descriptor: which entry, and which call
        self._pending: dict[tuple[int, int], tuple[int, Call]] = {}
        #: peers that had not answered for a while when their sockets were closed, and when they were asked
        self._silent: list[tuple[str, int]] = []
        #: process, address, length, file and offset of what was mapped, the newest last
        self._maps: list[tuple[int, int, int, str, int]] = []
        #: when something was sent that nobody has answered yet, likewise
        self._asked_at: dict[tuple[int, int], int] = {}
        self._folders: dict[int, str] = {}
        for entry in self.entries:
            if isinstance(entry, DeliveredSignal):
                self.signals.append(entry)
            elif isinstance(entry, ThreadEnd) and entry.last:
                self.ends.setdefault(entry.pid, []).append(entry)
        for at, entry in enumerate(self.entries):  # after the ends, which tell what main is
            if isinstance(entry, Call):
                self._note(at, entry)
        last_ns = max((entry.time_ns for entry in self.entries), default=0)
        if status is not None:
            for key in list(self._pending):
                self._gave_up(key, last_ns)
        self.failures.sort(key=lambda failure: failure.at)

    @cached_property
    def main(self) -> int:
        """The process of the container's first program, as the node numbers it; 0 if that cannot be told."""
        ended = [end for ends in self.ends.values() for end in ends if end.status == self._status]
        begun = sorted(self._started, key=lambda pid: self._started[pid][0])
        if self.complete and begun:
            return begun[0]
        if self._status is not None and ended:
            of_old = [end for end in ended if end.pid not in self._started]
            return (of_old or ended)[-1].pid
        if begun:
            return begun[0]
        return min((entry.pid for entry in self.entries), default=0)

    def thing(self, pid: int, descriptor: int) -> Thing | None:
        """What a file descriptor of a process is, as far as its opening is recorded."""
        found = self._things.get((pid, descriptor)) or self._things.get((self.main, descriptor))
        return found if found != _CLOSED else None

    def mapped(self, pid: int, address: int) -> tuple[str, int] | None:
        """The file that a process has mapped at an address, and which offset in it lies there."""
        for owner, start, length, file, offset in reversed(self._maps):
            if owner == pid and start <= address < start + length:
                return (file, offset + address - start) if file else None
        return None

    def reached(self, failure: Failure) -> bool:
        """Whether its process came to what it wanted afterwards: a peer by another address, a file in another folder.

        Another address is of that peer if it answered at once: it may be anybody's that has the same port.
        """
        pid, subject, since = failure.call.pid, failure.subject, failure.call.time_ns
        if not subject:
            return False
        times = self._reached.get((pid, subject), [])
        if times and times[-1] > since:
            return True
        times = self._reached.get((pid, _tail(subject)), [])
        next_at = bisect_right(times, since)
        within = _OTHER_ADDRESS_NS if failure.name == "connect" else 1 << 63
        return next_at < len(times) and times[next_at] - since <= within

    def listens(self) -> bool:
        """Whether a process of it listens for connections."""
        return any(thing.kind == "listener" for thing in self._things.values())

    def unanswered(self) -> Iterator[tuple[str, int, bool]]:
        """Peers that were sent something, or asked for a connection, and have not answered: since when, and which."""
        for _, call in self._pending.values():
            if peer := endpoint(data_of(call, 1)):
                yield peer, call.time_ns, True
        for key, time_ns in self._asked_at.items():
            thing = self._things.get(key)
            if thing and thing.kind == "socket" and thing.name and key not in self._pending:
                yield thing.name, time_ns, False

    def silent(self) -> list[str]:
        """Peers that did not answer as long as they were waited for, as far as that was a while; the last one last."""
        over = max((end.time_ns for end in self.ends.get(self.main, ())), default=self.read_ns)
        asked = [(peer, since_ns) for peer, since_ns, _ in self.unanswered() if over - since_ns >= syscalls.WAITED_NS]
        return [peer for peer, _ in sorted((*self._silent, *asked), key=lambda each: each[1]) if peer]

    def _note(self, at: int, call: Call) -> None:
        name, pid, result = call_name(call), call.pid, call.result
        if call.failed:
            error = error_name(-(result or 0))
            self._failed(at, call, name, error)
            return
        if result is None:
            return
        if name in _TALKS:
            self._talked(call, name)
        note = _NOTES.get(name)
        if note:
            note(self, at, call)
        elif (index := path_argument(call)) is not None:
            self._reach(pid, self._path(call, index), call.time_ns)

    def _talked(self, call: Call, name: str) -> None:
        key = (call.pid, signed(call.args[0]))
        thing = self.thing(*key)
        peer = endpoint(data_of(call, 4)) if name == "sendto" else ""
        if peer.endswith(NAME_SERVER) and not (thing and thing.name):
            thing = self._things[key] = Thing("socket", peer)  # not connected: what is read from it has no address
        if thing and thing.name.endswith(NAME_SERVER):
            self.about_names.append(call)

    def _failed(self, at: int, call: Call, name: str, error: str) -> None:
        if name == "connect":
            peer = endpoint(data_of(call, 1))
            key = (call.pid, signed(call.args[0]))
            if error == error_name(_EINPROGRESS):
                self._things[key] = Thing("socket", peer)
                if (call.duration_ns or 0) >= syscalls.WAITED_NS:  # SO_SNDTIMEO
                    self.failures.append(Failure(call, name, NO_ANSWER, peer, at))
                else:
                    self._pending[key] = at, call
                return
            if error == error_name(_EISCONN):
                return
            waited = (call.duration_ns or 0) >= syscalls.WAITED_NS
            if waited and (error == "EINTR" or -(call.result or 0) >= _RESTARTS):  # an alarm of its own
                error = NO_ANSWER
        if name in _RECEIVES and error == "EAGAIN" and (call.duration_ns or 0) >= syscalls.WAITED_NS:  # SO_RCVTIMEO
            error = NO_REPLY
        self.failures.append(Failure(call, name, error, self._subject(call, name), at))

    def _gave_up(self, key: tuple[int, int], time_ns: int) -> None:
        """A connect whose socket is closed, or whose process ends: nobody answered if that took a while."""
        at, call = self._pending.pop(key)
        if time_ns - call.time_ns >= syscalls.WAITED_NS:
            self.failures.append(Failure(call, "connect", NO_ANSWER, endpoint(data_of(call, 1)), at))

    def _subject(self, call: Call, name: str) -> str:
        if name in ("connect", "bind"):
            return endpoint(data_of(call, 1))
        if name == "sendto" and (peer := endpoint(data_of(call, 4))):
            return peer
        if (index := path_argument(call)) is not None:
            return self._path(call, index)
        if name.startswith(("inotify_", "epoll_", "io_uring", "timerfd", "eventfd", "memfd", "clone", "fork", "vfork",
                            "mmap", "brk", "socket", "pipe", "set", "cap")):  # fmt: skip
            return ""
        thing = self.thing(call.pid, signed(call.args[0]))
        return thing.name if thing else ""

    def _path(self, call: Call, index: int) -> str:
        """A path as its program wrote it; below a folder that it was opened in, or its working directory, if known."""
        path = text_of(call, index)
        if path.startswith("/"):
            return path
        before = syscalls.find(call.machine, call.number).arguments[index - 1].name if index else ""
        folder = self._folders.get(call.pid, "")
        if "fd" in before and (number := signed(call.args[index - 1])) != _AT_FDCWD:
            thing = self.thing(call.pid, number)
            folder = thing.name if thing and thing.kind == "file" else ""
        if not path:
            return folder
        return f"{folder.rstrip('/')}/{path}" if folder and not path.startswith("./") else path

    def _reach(self, pid: int, name: str, time_ns: int) -> None:
        if name:
            for each in {name, _tail(name)}:
                self._reached.setdefault((pid, each), []).append(time_ns)

    def _opened(self, at: int, call: Call) -> None:
        index = OPENS[call_name(call)]
        path = self._path(call, index)
        if call_name(call) == "creat" or (call_name(call) != "openat2" and call.args[index + 1] & _O_CREAT):
            self.made.add((call.pid, path))
        self._things[call.pid, call.result or 0] = Thing("file", path)
        self._reach(call.pid, path, call.time_ns)

    def _connected(self, at: int, call: Call) -> None:
        peer = endpoint(data_of(call, 1))
        self._things[call.pid, signed(call.args[0])] = Thing("socket", peer)
        self._reach(call.pid, peer, call.time_ns)

    def _accepted(self, at: int, call: Call) -> None:
        self._things[call.pid, call.result or 0] = Thing("client", endpoint(data_of(call, 1)))

    def _mapped(self, at: int, call: Call) -> None:
        thing = self.thing(call.pid, signed(call.args[4])) if not call.args[3] & _MAP_ANONYMOUS else None
        start = (call.result or 0) & (1 << 64) - 1
        self._maps.append((call.pid, start, call.args[1], thing.name if thing else "", call.args[5]))

    def _bound(self, at: int, call: Call) -> None:
        self._things[call.pid, signed(call.args[0])] = Thing("socket", endpoint(data_of(call, 1)))

    def _listens(self, at: int, call: Call) -> None:
        key = (call.pid, signed(call.args[0]))
        self._things[key] = Thing("listener", self._things.get(key, Thing("", "")).name)

    def _watches(self, at: int, call: Call) -> None:
        self._things[call.pid, call.result or 0] = Thing("inotify", "")

    def _sockets(self, at: int, call: Call) -> None:
        self._things[call.pid, call.result or 0] = Thing("socket", "")

    def _pipes(self, at: int, call: Call) -> None:
        data = data_of(call, 0)
        if len(data) >= 8:
            for descriptor in struct.unpack_from("<ii", data):
                self._things[call.pid, descriptor] = Thing("pipe", "")

    def _copied(self, at: int, call: Call) -> None:
        if call_name(call) == "fcntl" and call.args[1] & 0xFFFFFFFF not in _F_DUPFD:
            return
        # what was before the recording has no name, and is not what its number was meanwhile
        self._things[call.pid, call.result or 0] = self.thing(call.pid, signed(call.args[0])) or Thing("", "")

    def _closed(self, at: int, call: Call) -> None:
        key = (call.pid, signed(call.args[0]))
        if key in self._pending:
            self._gave_up(key, call.time_ns)
        thing, asked_ns = self._things.get(key), self._asked_at.get(key)
        if asked_ns and thing and thing.kind == "socket" and call.time_ns - asked_ns >= syscalls.WAITED_NS:
            self._silent.append((thing.name, asked_ns))
        self._things[key] = _CLOSED  # not forgotten: it is not what the first process has under its number
        self._asked_at.pop(key, None)

    def _made(self, at: int, call: Call) -> None:
        index = path_argument(call)
        if index is not None:
            self.made.add((call.pid, self._path(call, index)))

    def _moved(self, at: int, call: Call) -> None:
        self._folders[call.pid] = self._path(call, 0)

    def _began(self, at: int, call: Call) -> None:
        first = 0 if call_name(call) == "execve" else 1
        path = self._path(call, first)
        self.programs.setdefault(call.pid, []).append(BegunProgram(call.time_ns, path, strings_of(call, first + 1)))
        self._reach(call.pid, path, call.time_ns)

    def _wrote(self, at: int, call: Call) -> None:
        descriptor = signed(call.args[0])
        thing = self.thing(call.pid, descriptor)
        if descriptor > 2:
            self._sent(at, call)
        if descriptor in (1, 2) and not (thing and thing.name == "/dev/null"):
            buffers = sorted(which for argument, which in call.beyond if argument == 1 and isinstance(which, int))
            text = text_of(call, 1) + "".join(decode_text(call.beyond[1, which].data) for which in buffers)
            self.said.append(SpokenText(call.time_ns, call.pid, descriptor, text, call.tid))

    def _answered(self, at: int, call: Call) -> None:
        key = (call.pid, signed(call.args[0]))
        self._pending.pop(key, None)
        self._asked_at.pop(key, None)

    def _sent(self, at: int, call: Call) -> None:
        key = (call.pid, signed(call.args[0]))
        self._pending.pop(key, None)
        self._asked_at.setdefault(key, call.time_ns)

    def _polled(self, at: int, call: Call) -> None:
        """poll: a program that waited for one socket, in vain."""
        data = data_of(call, 0)
        waited = (call.duration_ns or 0) >= syscalls.WAITED_NS
        if call.result or call.args[1] & 0xFFFFFFFF != 1 or len(data) < 4 or not waited:
            return
        key = (call.pid, int.from_bytes(data[:4], "little"))
        thing = self.thing(*key)
        if thing and thing.kind == "socket" and thing.name:
            name, error = ("connect", NO_ANSWER) if key in self._pending else ("read", NO_REPLY)
            self._pending.pop(key, None)
            self.failures.append(Failure(call, name, error, thing.name, at))

    def _waited(self, at: int, call: Call) -> None:
        if call_name(call) == "wait4":
            data = data_of(call, 1)
            if call.result and len(data) >= 4:
                status = int.from_bytes(data[:4], "little")
                self.waits.setdefault(call.pid, []).append(Waited(call.time_ns, call.result, status))
            return
        data = data_of(call, 2)
        if len(data) >= 28:
            code = struct.unpack_from("<i", data, 8)[0]
            child, _, status = struct.unpack_from("<iii", data, 16)
            if child:
                status = status << 8 if code == 1 else status  # CLD_EXITED
                self.waits.setdefault(call.pid, []).append(Waited(call.time_ns, child, status))

    def _asked(self, at: int, call: Call) -> None:
        """getsockopt: how a connect that was under way ended."""
        if (call.args[1] & 0xFFFFFFFF, call.args[2] & 0xFFFFFFFF) != (_SOL_SOCKET, _SO_ERROR):
            return
        key = (call.pid, signed(call.args[0]))
        thing = self.thing(*key)
        self._pending.pop(key, None)
        if thing is None or not thing.name:
            return
        if number := int.from_bytes(data_of(call, 3)[:4], "little"):
            self.failures.append(Failure(call, "connect", error_name(number), thing.name, at))
        else:
            self._reach(call.pid, thing.name, call.time_ns)


_NOTES = {
    **dict.fromkeys(OPENS, NotedCalls._opened),
    "connect": NotedCalls._connected,
    "accept": NotedCalls._accepted,
    "accept4": NotedCalls._accepted,
    "bind": NotedCalls._bound,
    "mmap": NotedCalls._mapped,
    "listen": NotedCalls._listens,
    "socket": NotedCalls._sockets,
    "inotify_init": NotedCalls._watches,
    "inotify_init1": NotedCalls._watches,
    "pipe": NotedCalls._pipes,
    "pipe2": NotedCalls._pipes,
    "dup": NotedCalls._copied,
    "dup2": NotedCalls._copied,
    "dup3": NotedCalls._copied,
    "fcntl": NotedCalls._copied,
    "close": NotedCalls._closed,
    "chdir": NotedCalls._moved,
    "mkdir": NotedCalls._made,
    "mkdirat": NotedCalls._made,
    **dict.fromkeys(("read", "recvfrom", "recvmsg", "readv"), NotedCalls._answered),
    **dict.fromkeys(("sendto", "sendmsg"), NotedCalls._sent),
    "execve": NotedCalls._began,
    "execveat": NotedCalls._began,
    "write": NotedCalls._wrote,
    "writev": NotedCalls._wrote,
    "poll": NotedCalls._polled,
    "ppoll": NotedCalls._polled,
    "wait4": NotedCalls._waited,
    "waitid": NotedCalls._waited,
    "getsockopt": NotedCalls._asked,
}
