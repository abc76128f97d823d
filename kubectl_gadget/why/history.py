"""What a recording tells of a container's processes: what they opened, said and waited for, and whose end was whose."""

from __future__ import annotations

import re
import signal
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from ipaddress import ip_address
from itertools import islice, takewhile
from typing import NamedTuple

from gadget import syscalls
from gadget.kinds.texts import decode_text
from gadget.syscalls import How
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import DeliveredSignal, Entry, MissingCalls, SentSignal, ThreadEnd

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOL_SOCKET, _SO_ERROR, _EINPROGRESS, _EISCONN = 1, 4, 115, 106
_AT_FDCWD = -100
_F_DUPFD = (0, 1030)
_SELF = "/proc/self/exe"
_RESTARTS = 512  # linux/errno.h: ERESTARTSYS and its like
#: What wait4 adds to the status of a process whose core was dumped, and waitid does not.
_DUMPED = 0x80
#: Signals of a program that did something wrong.
_FATAL = (4, 6, 7, 8, 11, 31)
#: Signals by which a program ends itself, or is ended for what it did just then; and those that ask it to end.
_OWN = (signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGSYS)
_ASKS = (signal.SIGINT, signal.SIGTERM)
#: Who worked on for so long after one of them did not end by it, nanoseconds: most pods have 30 s.
_HEARD_NS = 60_000_000_000
#: For how long Go's runtime rests at most before it looks again what there is to do, nanoseconds (proc.go, sysmon).
_SHORT_NS = 20_000_000
#: What scripts run as they end, whether there is something to clean or not.
_CLEANERS = ("rm", "rmdir", "unlink", "umount", "kill", "killall", "pkill")
#: How soon programs try the next address of a peer, nanoseconds.
_OTHER_ADDRESS_NS = 1_000_000_000
_O_CREAT, _MAP_ANONYMOUS = 0o100, 0x20
#: Calls that open a file, and which argument is its path; flags are behind it.
OPENS = {"open": 0, "openat": 1, "openat2": 1, "creat": 0}
#: Calls by which a program ends or says why: they are no work of its own.
_WORDS = frozenset(("write", "writev", "exit", "exit_group", "close", "munmap", "rt_sigaction", "rt_sigprocmask",
                    "rt_sigreturn", "futex", "madvise", "brk", "getpid", "gettid", "tgkill", "kill", "fstat", "lseek",
                    "ioctl", "sigaltstack", "sched_yield", "mmap", "mprotect", "clock_gettime", "getrandom", "fsync",
                    "restart_syscall", "poll", "set_robust_list", "unlink", "rmdir", "wait4", "dup2"))  # fmt: skip


#: Lines of stacks, as Java and Node, Python, and Go write them.
_FRAME = re.compile(
    r"^(?:(?:\t| {4,})(?:at |\.\.\. \d+ (?:more|common)|\^+$)[^\n]*|"
    r"\t/[^\n]*:\d+(?: \+0x[0-9a-f]+)?(?: fp=0x[0-9a-f]+ sp=0x[0-9a-f]+ pc=0x[0-9a-f]+)?|"
    r"created by [^\n]*|goroutine \d+ [^\n]*:|\.\.\.(?:additional|\d+) frames[^\n]*|"
    r"[\w./]+(?:\(\*\w+\)[\w.]*)?\([^\n]*\))\n",
    re.MULTILINE,
)
_BLANK = re.compile(r"\n\s*\n")
#: Letters of what was said that are looked at, its last.
_MOST_WORDS = 4000
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


def call_name(call: Call) -> str:
    """What a call is called."""
    return syscalls.find(call.machine, call.number).name


def error_name(number: int) -> str:
    """The name of an errno."""
    return syscalls.errors().get(number, (f"errno {number}", ""))[0]


@cache
def meaning(error: str) -> str:
    """strerror(3)'s text for an error's name."""
    return next((text for name, text in syscalls.errors().values() if name == error), error)


def endpoint(data: bytes) -> str:
    """The address in a struct sockaddr: ADDRESS:PORT or a path; empty if it is of another family."""
    if len(data) < 2:
        return ""
    family = int.from_bytes(data[:2], "little")
    if family == _AF_INET and len(data) >= 8:
        return f"{ip_address(data[4:8])}:{int.from_bytes(data[2:4], 'big')}"
    if family == _AF_INET6 and len(data) >= 24:
        address = ip_address(data[8:24])
        mapped = getattr(address, "ipv4_mapped", None)
        return f"{mapped or f'[{address}]'}:{int.from_bytes(data[2:4], 'big')}"
    if family == _AF_UNIX:
        path = data[2:]
        return f"@{decode_text(path[1:].rstrip(bytes(1)))}" if path[:1] == b"\0" else decode_text(path.split(b"\0")[0])
    return ""


def _tail(name: str) -> str:
    """What another path to a file, or another address of a peer, has in common with this one."""
    before, colon, port = name.rpartition(":")
    if colon and port.isdecimal() and "/" not in before:
        return colon + port
    return name.rstrip("/").rpartition("/")[2]


def _as_shell(status: int) -> int:
    """The exit code of a shell whose command ended with this status."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _text(call: Call, argument: int) -> str:
    found = call.captured.get(argument)
    return decode_text(found.data) if found else ""


def _bytes(call: Call, argument: int) -> bytes:
    found = call.captured.get(argument)
    return found.data if found else b""


def _strings(call: Call, argument: int) -> tuple[str, ...]:
    data = _bytes(call, argument)
    return tuple(decode_text(item) for item in data.removesuffix(b"\0").split(b"\0")) if data else ()


class CallHistory:
    """The entries of a recording in the order of time, and what follows from them."""

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
        self._words: dict[tuple[frozenset[int], int], str] = {}
        for at, entry in enumerate(self.entries):
            if isinstance(entry, Call):
                self._note(at, entry)
            elif isinstance(entry, DeliveredSignal):
                self.signals.append(entry)
            elif entry.last:
                self.ends.setdefault(entry.pid, []).append(entry)
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

    @cached_property
    def chain(self) -> list[int]:
        """The container's first process, then the child whose end it took over, then that one's, and so on."""
        found, pid = [self.main], self.main
        while pid and (child := self._culprit(pid)) and child not in found:
            found.append(child)
            pid = child
        return found

    @cached_property
    def interrupted(self) -> bool:
        """Whether a signal ended it, or asked it to, that came of nothing it said before."""
        ends = [self.ends[pid][-1] for pid in self.chain if pid in self.ends]
        ended = [(self.main, self._status or 0), *((end.pid, end.status) for end in ends)]
        numbers = [status & 0x7F for pid, status in ended if not self._aborts(pid)]
        over = max((self.ends[pid][-1].time_ns for pid in self.chain if pid in self.ends), default=0)
        heard = any(
            each.pid in self.chain and each.number in _ASKS and over - each.time_ns < _HEARD_NS for each in self.signals
        )
        return heard or any(number and number not in _OWN for number in numbers)

    def _aborts(self, pid: int) -> bool:
        """Whether a process sent itself SIGABRT last: that ends the first of a pid namespace by SIGSEGV.

        What it then sends again is what its handler of that heard: Node's does so.
        """
        sent = [
            call.args[2 if call_name(call) == "tgkill" else 1] & 0xFFFFFFFF
            for call in self.calls("tgkill", "tkill")
            if call.pid == pid
        ]
        return [number for number in sent if number != signal.SIGSEGV][-1:] == [signal.SIGABRT]

    def _culprit(self, pid: int) -> int:
        """The process whose end a process took for its own: 0 if there is none.

        It waited for that one and then ended alike, or ended at once, badly too.
        """
        own, waits = self.ends.get(pid, []), self.waits.get(pid, [])
        if not own or not waits or own[-1].status & 0x7F or not own[-1].status:
            return 0
        code = own[-1].status >> 8 & 0xFF
        if alike := self._alike(pid):
            # what cleans up behind a failure fails as well
            return ([child for child in alike if self.program(child) not in _CLEANERS] or alike)[-1]
        last = waits[-1]
        if any(_as_shell(wait.status) == code for wait in waits):
            return 0
        at_once = last.status and (not self._work_since(last.time_ns, pid) or last.status & 0x7F in _FATAL)
        return self.child(pid, last) if at_once else 0

    def _alike(self, pid: int) -> list[int]:
        """The children of a process that ended as it did, by when it learnt of that."""
        own = self.ends.get(pid, [])
        code = own[-1].status >> 8 & 0xFF if own else 0
        found = [self.child(pid, wait) for wait in self.waits.get(pid, []) if _as_shell(wait.status) == code]
        return [child for child in found if child] if code else []

    @cached_property
    def ambiguous(self) -> bool:
        """Whether one of those processes had children of several programs that ended as it did."""
        programs = ({self.program(child) for child in self._alike(pid)} - set(_CLEANERS) for pid in self.chain)
        return any(len(each) > 1 for each in programs)

    def child(self, pid: int, wait: Waited) -> int:
        """The process whose end another one learnt of, as the node numbers it; 0 if its end is not recorded."""
        ended = self._by_status.get(wait.status & ~_DUMPED, [])
        until = bisect_right(ended, wait.time_ns, key=lambda end: end.time_ns)
        return next((ended[at].pid for at in range(until - 1, -1, -1) if ended[at].pid != pid), 0)

    @cached_property
    def _by_status(self) -> dict[int, list[ThreadEnd]]:
        """The ends of processes by their status, the newest last."""
        found: dict[int, list[ThreadEnd]] = {}
        for end in sorted((end for ends in self.ends.values() for end in ends), key=lambda end: end.time_ns):
            found.setdefault(end.status & ~_DUMPED, []).append(end)
        return found

    def _work_since(self, time_ns: int, pid: int) -> int:
        """How many calls a process made since, beside words and its end."""
        return sum(
            1
            for entry in self.entries
            if isinstance(entry, Call)
            and entry.pid == pid
            and entry.time_ns > time_ns
            and not entry.failed
            and call_name(entry) not in _WORDS
            and not (call_name(entry) == "nanosleep" and (entry.duration_ns or 0) < _SHORT_NS)
        )

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
            if peer := endpoint(_bytes(call, 1)):
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

    def program(self, pid: int) -> str:
        """The name of what a process ran last."""
        programs = self.programs.get(pid)
        if not programs:
            return self._comms.get(pid, "")
        last = programs[-1]
        name = last.path if last.path != _SELF else (*last.arguments, "")[0]  # busybox runs itself
        return name.rpartition("/")[2]

    @cached_property
    def _comms(self) -> dict[int, str]:
        """What each process called itself last."""
        return {entry.pid: entry.comm for entry in self.entries}

    def work_after(self, at: int, pid: int) -> int:
        """How many calls a process made after an entry that are neither words nor part of its end."""
        work = self._work.get(pid, ())
        return len(work) - bisect_right(work, at)

    @cached_property
    def _work(self) -> dict[int, list[int]]:
        """Which entries of each process are calls that are neither words nor part of its end."""
        found: dict[int, list[int]] = {}
        for at, entry in enumerate(self.entries):
            if isinstance(entry, Call) and call_name(entry) not in _WORDS:
                found.setdefault(entry.pid, []).append(at)
        return found

    def last_words(self, pids: Sequence[int] = ()) -> str:
        """The end of what processes said, all if none are named, on standard error and standard output together.

        Without the frames of stacks and empty lines, of which there may be thousands between an error and the end.
        """
        return self.words_after(0, pids)

    def words_after(self, time_ns: int, pids: Sequence[int] = ()) -> str:
        """Likewise what was said from a time on."""
        first = bisect_left(self.said, time_ns, key=lambda said: said.time_ns)
        key = frozenset(pids), first
        if key not in self._words:
            text = "".join(said.text for said in self.said[first:] if not pids or said.pid in key[0])
            self._words[key] = _BLANK.sub("\n\n", _FRAME.sub("", text))[-_MOST_WORDS:]
        return self._words[key]

    def worked(self, tid: int, since_ns: int, until_ns: int) -> int:
        """How many calls a thread made between two times that are neither words nor part of its end."""
        first = bisect_right(self.entries, since_ns, key=lambda entry: entry.time_ns)
        return sum(
            1
            for entry in takewhile(lambda entry: entry.time_ns < until_ns, islice(self.entries, first, None))
            if isinstance(entry, Call) and entry.tid == tid and not entry.failed and call_name(entry) not in _WORDS
        )

    def calls(self, *names: str) -> Iterator[Call]:
        """The calls of these names."""
        places = [at for name in names for at in self._by_name.get(name, ())]
        for at in sorted(places):
            entry = self.entries[at]
            if isinstance(entry, Call):
                yield entry

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Which entries are calls of each name."""
        found: dict[str, list[int]] = {}
        for at, entry in enumerate(self.entries):
            if isinstance(entry, Call):
                found.setdefault(call_name(entry), []).append(at)
        return found

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
        elif (index := _path_argument(call)) is not None:
            self._reach(pid, self._path(call, index), call.time_ns)

    def _talked(self, call: Call, name: str) -> None:
        key = (call.pid, _signed(call.args[0]))
        thing = self.thing(*key)
        peer = endpoint(_bytes(call, 4)) if name == "sendto" else ""
        if peer.endswith(NAME_SERVER) and not (thing and thing.name):
            thing = self._things[key] = Thing("socket", peer)  # not connected: what is read from it has no address
        if thing and thing.name.endswith(NAME_SERVER):
            self.about_names.append(call)

    def _failed(self, at: int, call: Call, name: str, error: str) -> None:
        if name == "connect":
            peer = endpoint(_bytes(call, 1))
            key = (call.pid, _signed(call.args[0]))
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
            self.failures.append(Failure(call, "connect", NO_ANSWER, endpoint(_bytes(call, 1)), at))

    def _subject(self, call: Call, name: str) -> str:
        if name in ("connect", "bind"):
            return endpoint(_bytes(call, 1))
        if name == "sendto" and (peer := endpoint(_bytes(call, 4))):
            return peer
        if (index := _path_argument(call)) is not None:
            return self._path(call, index)
        if name.startswith(("inotify_", "epoll_", "io_uring", "timerfd", "eventfd", "memfd", "clone", "fork", "vfork",
                            "mmap", "brk", "socket", "pipe", "set", "cap")):  # fmt: skip
            return ""
        thing = self.thing(call.pid, _signed(call.args[0]))
        return thing.name if thing else ""

    def _path(self, call: Call, index: int) -> str:
        """A path as its program wrote it; below a folder that it was opened in, or its working directory, if known."""
        path = _text(call, index)
        if path.startswith("/"):
            return path
        before = syscalls.find(call.machine, call.number).arguments[index - 1].name if index else ""
        folder = self._folders.get(call.pid, "")
        if "fd" in before and (number := _signed(call.args[index - 1])) != _AT_FDCWD:
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
        peer = endpoint(_bytes(call, 1))
        self._things[call.pid, _signed(call.args[0])] = Thing("socket", peer)
        self._reach(call.pid, peer, call.time_ns)

    def _accepted(self, at: int, call: Call) -> None:
        self._things[call.pid, call.result or 0] = Thing("client", endpoint(_bytes(call, 1)))

    def _mapped(self, at: int, call: Call) -> None:
        thing = self.thing(call.pid, _signed(call.args[4])) if not call.args[3] & _MAP_ANONYMOUS else None
        start = (call.result or 0) & (1 << 64) - 1
        self._maps.append((call.pid, start, call.args[1], thing.name if thing else "", call.args[5]))

    def _bound(self, at: int, call: Call) -> None:
        self._things[call.pid, _signed(call.args[0])] = Thing("socket", endpoint(_bytes(call, 1)))

    def _listens(self, at: int, call: Call) -> None:
        key = (call.pid, _signed(call.args[0]))
        self._things[key] = Thing("listener", self._things.get(key, Thing("", "")).name)

    def _watches(self, at: int, call: Call) -> None:
        self._things[call.pid, call.result or 0] = Thing("inotify", "")

    def _sockets(self, at: int, call: Call) -> None:
        self._things[call.pid, call.result or 0] = Thing("socket", "")

    def _pipes(self, at: int, call: Call) -> None:
        data = _bytes(call, 0)
        if len(data) >= 8:
            for descriptor in struct.unpack_from("<ii", data):
                self._things[call.pid, descriptor] = Thing("pipe", "")

    def _copied(self, at: int, call: Call) -> None:
        if call_name(call) == "fcntl" and call.args[1] & 0xFFFFFFFF not in _F_DUPFD:
            return
        # what was before the recording has no name, and is not what its number was meanwhile
        self._things[call.pid, call.result or 0] = self.thing(call.pid, _signed(call.args[0])) or Thing("", "")

    def _closed(self, at: int, call: Call) -> None:
        key = (call.pid, _signed(call.args[0]))
        if key in self._pending:
            self._gave_up(key, call.time_ns)
        thing, asked_ns = self._things.get(key), self._asked_at.get(key)
        if asked_ns and thing and thing.kind == "socket" and call.time_ns - asked_ns >= syscalls.WAITED_NS:
            self._silent.append((thing.name, asked_ns))
        self._things[key] = _CLOSED  # not forgotten: it is not what the first process has under its number
        self._asked_at.pop(key, None)

    def _made(self, at: int, call: Call) -> None:
        index = _path_argument(call)
        if index is not None:
            self.made.add((call.pid, self._path(call, index)))

    def _moved(self, at: int, call: Call) -> None:
        self._folders[call.pid] = self._path(call, 0)

    def _began(self, at: int, call: Call) -> None:
        first = 0 if call_name(call) == "execve" else 1
        path = self._path(call, first)
        self.programs.setdefault(call.pid, []).append(BegunProgram(call.time_ns, path, _strings(call, first + 1)))
        self._reach(call.pid, path, call.time_ns)

    def _wrote(self, at: int, call: Call) -> None:
        descriptor = _signed(call.args[0])
        thing = self.thing(call.pid, descriptor)
        if descriptor > 2:
            self._sent(at, call)
        if descriptor in (1, 2) and not (thing and thing.name == "/dev/null"):
            buffers = sorted(which for argument, which in call.beyond if argument == 1 and isinstance(which, int))
            text = _text(call, 1) + "".join(decode_text(call.beyond[1, which].data) for which in buffers)
            self.said.append(SpokenText(call.time_ns, call.pid, descriptor, text, call.tid))

    def _answered(self, at: int, call: Call) -> None:
        key = (call.pid, _signed(call.args[0]))
        self._pending.pop(key, None)
        self._asked_at.pop(key, None)

    def _sent(self, at: int, call: Call) -> None:
        key = (call.pid, _signed(call.args[0]))
        self._pending.pop(key, None)
        self._asked_at.setdefault(key, call.time_ns)

    def _polled(self, at: int, call: Call) -> None:
        """poll: a program that waited for one socket, in vain."""
        data = _bytes(call, 0)
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
            data = _bytes(call, 1)
            if call.result and len(data) >= 4:
                status = int.from_bytes(data[:4], "little")
                self.waits.setdefault(call.pid, []).append(Waited(call.time_ns, call.result, status))
            return
        data = _bytes(call, 2)
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
        key = (call.pid, _signed(call.args[0]))
        thing = self.thing(*key)
        self._pending.pop(key, None)
        if thing is None or not thing.name:
            return
        if number := int.from_bytes(_bytes(call, 3)[:4], "little"):
            self.failures.append(Failure(call, "connect", error_name(number), thing.name, at))
        else:
            self._reach(call.pid, thing.name, call.time_ns)


_NOTES = {
    **dict.fromkeys(OPENS, CallHistory._opened),
    "connect": CallHistory._connected,
    "accept": CallHistory._accepted,
    "accept4": CallHistory._accepted,
    "bind": CallHistory._bound,
    "mmap": CallHistory._mapped,
    "listen": CallHistory._listens,
    "socket": CallHistory._sockets,
    "inotify_init": CallHistory._watches,
    "inotify_init1": CallHistory._watches,
    "pipe": CallHistory._pipes,
    "pipe2": CallHistory._pipes,
    "dup": CallHistory._copied,
    "dup2": CallHistory._copied,
    "dup3": CallHistory._copied,
    "fcntl": CallHistory._copied,
    "close": CallHistory._closed,
    "chdir": CallHistory._moved,
    "mkdir": CallHistory._made,
    "mkdirat": CallHistory._made,
    **dict.fromkeys(("read", "recvfrom", "recvmsg", "readv"), CallHistory._answered),
    **dict.fromkeys(("sendto", "sendmsg"), CallHistory._sent),
    "execve": CallHistory._began,
    "execveat": CallHistory._began,
    "write": CallHistory._wrote,
    "writev": CallHistory._wrote,
    "poll": CallHistory._polled,
    "ppoll": CallHistory._polled,
    "wait4": CallHistory._waited,
    "waitid": CallHistory._waited,
    "getsockopt": CallHistory._asked,
}


#: What the kernel calls an argument that is a path.
_PATHS = frozenset(("filename", "path", "pathname", "oldname", "dir_name", "library", "old"))


@lru_cache(4096)
def _path_index(machine: str, number: int) -> int | None:
    names = syscalls.find(machine, number).arguments
    plan = syscalls.pointed(machine, number)
    paths = (index for index, each in plan.items() if each.how == How.STRING and names[index].name in _PATHS)
    return next(paths, None)


def _path_argument(call: Call) -> int | None:
    """Which of a call's arguments is a path, the first if there are two; None if none is."""
    return _path_index(call.machine, call.number)
