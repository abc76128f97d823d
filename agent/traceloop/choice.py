"""Chooses the records that may tell why a container ended. A command asks many recordings for them at once.

A recording of 4,096 slots takes a command line some 20 ms to read, the records that are chosen a fifth of that. Every
number here bounds what a container can make of it: at most some 1,500 records are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agent.traceloop.rings import About, Records, Snapshot, as_bytes
from gadget import syscalls

#: How many of the last records of any kind are kept: they tell most, and are shown.
LAST = 150
#: How many of a process's last records are kept, to tell what it did after a failure; and of how many processes.
OF_A_PROCESS, PROCESSES = 32, 8
#: How many failed calls are kept: with the same number and error, as of a program that tries again, and in all.
ALIKE, FAILED = 64, 180
#: Records that are no calls.
OTHERS = {
    "KIND_THREAD_EXIT": 40,
    "KIND_PROCESS_EXIT": 80,
    "KIND_NO_RETURN": 40,
    "KIND_SIGNAL": 60,
    "KIND_SENT": 60,
    "KIND_EXEC": 60,
}
#: Programs that something outside the container began: the first is its own.
BEGUN = 8
#: Calls with an error that comes and goes in every program.
_IDLE = ("EAGAIN", "EINTR", "EINPROGRESS", "EALREADY", "ENOTTY", "ESPIPE", "ECHILD", "ERESTARTSYS", "ERESTARTNOINTR",
         "ERESTARTNOHAND", "ERESTART_RESTARTBLOCK")  # fmt: skip
#: Calls whose EAGAIN says that there is no more of something.
_GETS = ("clone", "clone3", "fork", "vfork", "mmap", "brk", "mremap", "mprotect", "mlock", "mlockall", "shmget",
         "shmat")  # fmt: skip
_STANDARD = 3  # descriptors
_SOL_SOCKET, _SO_ERROR = 1, 4
_MAX_ERROR, _ARGUMENTS = 4095, 3
#: Beyond all numbers that a record has.
_NOTHING = 1 << 16

#: What was written to standard output and error, without the frames of stacks that Java and Node write line by line.
OUTPUT = 80
#: The beginnings of what was written at once: Go writes a stack with ten calls a line, and before it what happened.
BEGINNINGS, BEGINNING = 40, 20
_FRAMES = (b"\tat ", b"    ")
#: poll by which a program waited in vain.
POLLED = 20
#: Calls that say what a descriptor, a folder or a child is: so many of each.
FOLLOWED = (
    (60, ("open", "openat", "openat2", "creat")),
    (60, ("close",)),
    (20, ("dup", "dup2", "dup3", "fcntl", "pipe", "pipe2")),
    (40, ("connect",)),
    (20, ("socket",)),
    (20, ("bind", "listen")),
    (10, ("accept", "accept4")),
    (20, ("getsockopt",)),
    (40, ("sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg")),
    (40, ("wait4", "waitid")),
    (20, ("chdir", "mkdir", "mkdirat")),
    (20, ("kill", "tkill", "tgkill")),
)
#: What a server is bound to it says as it starts; resolvers of names call bind again and again.
FIRST = 20, ("bind", "listen")
_WRITES, _POLLS = ("write", "writev"), ("poll", "ppoll")
_RECEIVES = ("read", "readv", "recvfrom", "recvmsg")
#: Calls that tell how a connect ended that was under way.
_RESOLVES = (*_RECEIVES, "close", "write", "writev", "sendto", "sendmsg")
#: Calls whose duration counts: the thread's record before goes with them.
_TIMED = (*_RECEIVES, *_POLLS, "connect")

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

#: Without these fields of a call nothing can be chosen: rings of older agents may lack some.
_NEEDED = ("sequence", "time", "pid", "tid", "result", "count", "number", "shape", "length")


class ChosenRecords(NamedTuple):
    """What was chosen of a snapshot. failures are calls that failed and were left out.

    alone has a bit for each call: whether the record before it of its thread was left out.
    """

    snapshot: Snapshot
    left_out: int
    failures: int
    alone: bytes


def choose(about: About, snapshot: Snapshot) -> ChosenRecords | None:
    """The records of a snapshot that may tell why it ended, with their text.

    None if these are all, or if it is not known.
    """
    calls = snapshot.calls
    if len(calls) <= LAST or about.machine not in syscalls.MACHINES or not _is_readable(calls):
        return None
    fields = about.layout.get("names", ())
    names: dict[str, str] = next((field["values"] for field in fields if field["name"] == "kind"), {})
    kinds = {name: int(number) for number, name in names.items()}
    kind = (calls["shape"] & 7).astype(np.int64)
    found = _Calls(
        number=np.where(kind == kinds.get("KIND_CALL"), calls["number"], _NOTHING).astype(np.int64),
        result=calls["result"].astype(np.int64),
        args=calls["args"],
        pid=calls["pid"].astype(np.int64),
        tid=calls["tid"].astype(np.int64),
        time=calls["time"].astype(np.int64),
        before=_before(calls["tid"].astype(np.int64)),
        machine=about.machine,
    )
    chosen = np.zeros(len(calls), np.bool_)
    chosen[-LAST:] = True
    chosen[calls["count"].argmin()] = True  # if it is the very first the recording is complete
    chosen |= _last_of_processes(found.pid)
    chosen |= _ends(kind, kinds, found.result)
    failed, waited = found.failed(), found.waited() >= syscalls.WAITED_NS
    telling = failed & (found.tells() | (found.are(_RECEIVES) & waited))
    alike = _from_end(np.where(telling, found.number << 16 | -found.result, -1)) < ALIKE
    chosen |= _newest(telling & alike, FAILED)
    said = found.are(_WRITES) & (found.argument(0) < _STANDARD)
    frames, ends_of_lines = _frames(calls)
    chosen |= _newest(said & ~frames & ~ends_of_lines, OUTPUT)
    chosen |= _newest(said & (found.in_a_row(said) < BEGINNING), BEGINNINGS)
    chosen |= said & ends_of_lines & (found.before >= 0) & chosen[found.before]
    chosen |= _newest(found.are(_POLLS) & (found.result == 0) & waited, POLLED)
    for most, followed in FOLLOWED:
        chosen |= _newest(found.are(followed), most)
    chosen |= _newest(found.are(FIRST[1])[::-1], FIRST[0])[::-1]
    # a connect that is under way counts for one without an answer where nothing tells how it ended
    chosen |= _at(len(calls), found.resolved()[chosen & found.are(("connect",))])
    chosen |= _at(len(calls), found.before[chosen & found.are(_TIMED)])
    left_out = len(calls) - int(chosen.sum())
    if not left_out:
        return None
    kept = calls[chosen]
    more = snapshot.more[np.isin(snapshot.more["owner"], kept["sequence"])]
    alone = (found.before >= 0) & ~chosen[found.before]
    bits = np.packbits(alone[chosen], bitorder="little").tobytes()
    return ChosenRecords(snapshot._replace(calls=kept, more=more), left_out, int((telling & ~chosen).sum()), bits)


def _is_readable(calls: Records) -> bool:
    kind = calls.dtype
    numbers = all(name in (kind.names or ()) and kind[name].kind in "iu" for name in _NEEDED)
    return numbers and kind["args"].shape >= (_ARGUMENTS,) and kind["args"].base.kind in "iu"


def _frames(calls: Records) -> tuple[Mask, Mask]:
    """Which records have a frame of a stack as their text beside three arguments, and which only the end of a line."""
    assert calls.dtype.fields
    begin = calls.dtype.fields["args"][1] + 3 * calls.dtype["args"].base.itemsize
    text = as_bytes(calls)[:, begin : begin + 4]
    length = calls["length"]
    frames = [(text == np.frombuffer(frame, np.uint8)).all(axis=1) for frame in _FRAMES]
    return (length >= len(_FRAMES[0])) & np.logical_or(*frames), (length == 1) & (text[:, 0] == ord("\n"))


def _ends(kind: Numbers, kinds: Mapping[str, int], result: Numbers) -> Mask:
    """Records of other things than calls."""
    found = np.zeros(len(kind), np.bool_)
    for name, most in OTHERS.items():
        found |= _newest(kind == kinds.get(name), most)
    begun = np.flatnonzero((kind == kinds.get("KIND_EXEC")) & (result != 0))
    found[begun[:BEGUN]] = True
    return found


class _Calls(NamedTuple):
    """Records in their order. number is _NOTHING if one is no call, before which one its thread made before, or -1."""

    number: Numbers
    result: Numbers
    args: npt.NDArray[np.uint64]
    pid: Numbers
    tid: Numbers
    time: Numbers
    before: Numbers
    machine: str

    def are(self, names: Sequence[str]) -> Mask:
        """Which are calls of these names."""
        return _numbers_of(self.machine, tuple(names))[self.number]

    def waited(self) -> Numbers:
        """How long after the one before of its thread each was."""
        return np.where(self.before >= 0, self.time - self.time[self.before], 0)

    def argument(self, index: int) -> npt.NDArray[np.uint32]:
        """An argument of each that is an int."""
        return self.args[:, index].astype(np.uint32)

    def in_a_row(self, mask: Mask) -> Numbers:
        """How many of mask, without another between them, its thread made before each."""
        order = np.argsort(self.tid, kind="stable")
        places = np.arange(len(order))
        first = mask[order] & ~(mask[self.before] & (self.before >= 0))[order]
        found = np.empty(len(order), np.int64)
        found[order] = places - np.maximum.accumulate(np.where(first, places, 0))
        return found

    def failed(self) -> Mask:
        """Which are calls that returned an error."""
        found: Mask = (self.number != _NOTHING) & (self.result < 0) & (self.result >= -_MAX_ERROR)
        return found

    def tells(self) -> Mask:
        """Which calls have an error that is not a matter of course."""
        found: Mask = ~_idle_errors()[np.clip(-self.result, 0, _MAX_ERROR)] | self.are(_GETS)
        return found

    def resolved(self) -> Numbers:
        """Which record tells how a connect ended: the first that succeeded with its descriptor; -1 for none."""
        status = (self.argument(1) == _SOL_SOCKET) & (self.argument(2) == _SO_ERROR)
        tells = (self.are(_RESOLVES) | (self.are(("getsockopt",)) & status)) & (self.result >= 0)
        wanted = np.flatnonzero(tells | self.are(("connect",)))
        keys = self.pid[wanted] << 32 | self.argument(0)[wanted]
        order = wanted[np.argsort(keys, kind="stable")]
        places = np.where(tells[order], np.arange(len(order)), len(order))
        following = np.append(np.minimum.accumulate(places[::-1])[::-1], len(order))[1:]
        there = following < len(order)
        after = order[following[there]]
        same = (self.pid[order[there]] == self.pid[after]) & (self.argument(0)[order[there]] == self.argument(0)[after])
        found = np.full(len(self.number), -1)
        found[order[there][same]] = after[same]
        return found


@cache
def _idle_errors() -> Mask:
    idle = np.zeros(_MAX_ERROR + 1, np.bool_)
    idle[[number for number, (name, _) in syscalls.errors().items() if name in _IDLE]] = True
    return idle


@cache
def _numbers_of(machine: str, names: tuple[str, ...]) -> Mask:
    """Which numbers have these names. 32-bit calls are taken for those of their number, which leaves out too little."""
    found = np.zeros(_NOTHING + 1, np.bool_)
    own = syscalls.numbers(machine)
    found[[own[name] for name in names if name in own]] = True
    return found


def _newest(mask: Mask, most: int) -> Mask:
    """The last records that mask has."""
    found = np.zeros(len(mask), np.bool_)
    found[np.flatnonzero(mask)[-most:]] = True
    return found


def _from_end(keys: Numbers) -> Numbers:
    """How many with the same key follow each."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    found = np.empty(len(keys), np.int64)
    found[order] = np.searchsorted(ordered, ordered, side="right") - 1 - np.arange(len(keys))
    return found


def _before(threads: Numbers) -> Numbers:
    """Which record with the same number is the one before each; -1 for none."""
    order = np.argsort(threads, kind="stable")
    same = threads[order[1:]] == threads[order[:-1]]
    found = np.full(len(threads), -1)
    found[order[1:][same]] = order[:-1][same]
    return found


def _last_of_processes(pids: Numbers) -> Mask:
    """The last records of the processes that were busy last."""
    last = _from_end(pids)
    busy = pids[np.flatnonzero(last == 0)[-PROCESSES:]]
    return np.isin(pids, busy) & (last < OF_A_PROCESS)


def _at(size: int, places: Numbers) -> Mask:
    """Those that are named; -1 is none."""
    found = np.zeros(size, np.bool_)
    found[places[places >= 0]] = True
    return found
