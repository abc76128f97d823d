"""A recording's packed records as calls, signals, ends and gaps, in the order of time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from gadget.kinds.texts import decode_text
from kubectl_gadget.strace import Call, Captured
from kubectl_gadget.traceloop.rows import CallRow, Layout, find_layout, rows_of
from kubectl_gadget.traceloop.texts import SlotText, beside, captured, further, joined


class ThreadEnd(NamedTuple):
    """A thread that ended; the last of its process if last says so. status as wait(2) gives it."""

    time_ns: int
    pid: int
    tid: int
    comm: str
    status: int
    last: bool
    oom: bool


class Sender(NamedTuple):
    """Who sent a signal: a process as the machine numbers it; inside if it is of the container itself."""

    pid: int
    comm: str
    inside: bool


class SentSignal(NamedTuple):
    """That a signal was sent to a process, which may ignore it."""

    time_ns: int
    pid: int
    number: int
    sender: Sender


class DeliveredSignal(NamedTuple):
    """A signal as it was delivered. words are of siginfo_t: the address of a fault, or who sent it and what about.

    An older recording has the first word alone. sender is None if nobody saw it being sent, as to itself.
    """

    time_ns: int
    pid: int
    tid: int
    comm: str
    number: int
    code: int
    words: tuple[int, ...]
    machine: str
    sender: Sender | None = None


class MissingCalls(NamedTuple):
    """Calls that are not there: overwritten while they were read, or never written."""

    missing: int


Entry = Call | ThreadEnd | DeliveredSignal | MissingCalls

#: Records in a reply, many times what there is: rings have 4,096 slots.
MOST_RECORDS = 1 << 17
#: Beyond this a thread's wait is told by the clock alone, nanoseconds: the counts wrap after an hour.
_LONG = 1_000_000_000
#: Threads whose last record is remembered; more than a machine has at a time, and their ends may be missing.
_THREADS = 1 << 16
_DESCRIPTOR = re.compile(rb"/dev/fd/(\d{1,9})(?:/(.*))?", re.DOTALL)


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_SIGKILL = 9
_SI_KERNEL = 0x80  # asm-generic/siginfo.h
#: Arguments have numbers below it.
_BEYOND = 8


class _Reply(NamedTuple):
    """What the records of a reply have in common. alone: records whose thread's record before is left out."""

    machine: str
    clock_offset_ns: int
    layout: Layout
    calls: bytes
    alone: bytes


class ReplyReader:
    """Reads the replies about one recording, in their order."""

    def __init__(self, most_threads: int = _THREADS) -> None:
        """Nothing has been read."""
        self._most_threads = most_threads
        #: of each thread its last record
        self._before: dict[int, CallRow] = {}
        self._ended: dict[int, None] = {}
        self._senders: dict[tuple[int, int], Sender] = {}
        #: signals as they were sent, also those that their receiver ignores: receiver, number and sender
        self.sent: list[SentSignal] = []
        self._next = -1
        #: when processes that something outside the container started began to run its program, and when they began
        self.started: dict[int, tuple[int, int]] = {}
        #: records of the last reply, and whether the recording's first are among them, which may be younger than its
        #: container
        self.kept, self.complete = 0, False
        #: calls that failed and are not here, as the agent has chosen what it sent
        self.failures = 0
        self._reply: _Reply

    def last_ns(self, tid: int, clock_offset_ns: int) -> int:
        """When a thread had its last record; 0 if it has none here."""
        found = self._before.get(tid)
        return found.time + clock_offset_ns if found else 0

    def blocked(self, reply: pb.TraceloopReadReply) -> Iterator[tuple[Call, int | None]]:
        """The calls that have not returned, and the nanoseconds since the thread's last record, if there is one."""
        for item in reply.blocked:
            number = item.number | (syscalls.COMPAT if item.compat else 0)
            args = (*item.args, *[0] * syscalls.ARGUMENTS_MAX)[: syscalls.ARGUMENTS_MAX]
            texts = {each.argument: Captured(each.data, each.size) for each in item.memory}
            there = {index: text for index, text in texts.items() if index < syscalls.ARGUMENTS_MAX}
            call = Call(0, None, item.pid, item.tid, item.comm, reply.machine, number, args, None, there)
            last = self.last_ns(item.tid, reply.clock_offset_ns)
            yield call, max(0, reply.sent_ns - last) if last and reply.sent_ns else None

    def entries(self, reply: pb.TraceloopReadReply) -> list[Entry]:
        """The new entries in a reply. A gap stands before the entry behind it. GadgetError if it makes no sense."""
        if reply.machine not in syscalls.MACHINES:
            raise GadgetError(f"this recording is of an unknown machine, {reply.machine!r}")
        try:
            return self._entries(reply)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise GadgetError(f"this recording is damaged: {type(error).__name__} {error}") from error

    def _entries(self, reply: pb.TraceloopReadReply) -> list[Entry]:
        layout = find_layout(reply.layout)
        data, further_data = reply.calls, reply.more
        calls = np.frombuffer(data, layout.call)
        more = np.frombuffer(further_data, layout.more)
        if max(len(calls), len(more)) > MOST_RECORDS:
            raise ValueError("more records than a ring has")
        texts = further(more, further_data, layout.no_data)
        self.kept, self.complete = len(calls), bool(len(calls)) and int(calls["count"].min()) == 0
        alone, gaps = bytes(len(calls)), {}
        if reply.HasField("chosen"):
            self.kept += min(reply.chosen.left_out, MOST_RECORDS)
            self.failures = reply.chosen.failures
            bits = np.frombuffer(reply.chosen.alone, np.uint8)
            alone = np.unpackbits(bits, count=len(calls), bitorder="little").tobytes()
        else:
            gaps = self._gaps(calls)
        rows = rows_of(calls)
        self._reply = _Reply(reply.machine, reply.clock_offset_ns, layout, data, alone)
        found: list[Entry] = []
        for at in _order(calls):
            if gap := gaps.get(at):
                found.append(MissingCalls(gap))
            row = rows[at]
            entry = self._entry(at, row, texts.pop(row.sequence, None))
            # the kernel does not tell the delivery of each SIGKILL, but who sent it
            if (
                type(entry) is ThreadEnd
                and entry.status & 0x7F == _SIGKILL
                and (sent := self._senders.pop((entry.pid, _SIGKILL), None))
            ):
                found.append(DeliveredSignal(*entry[:4], _SIGKILL, 0, (), reply.machine, sent))
            if entry is not None:
                found.append(entry)
        return found

    def _entry(self, at: int, row: CallRow, pieces: dict[int, list[SlotText]] | None) -> Entry | None:
        kind = self._reply.layout.kinds.get(row.shape & 7)
        if kind != "KIND_CALL" and kind not in ("KIND_EXEC", "KIND_NO_RETURN"):
            return self._event(row, kind)
        machine, offset, layout, data, alone = self._reply
        pid, args = row.pid, tuple(row.args)
        waited = self._wait(row, layout.placed_bits)
        if alone[at]:
            waited = None
        self._ended.pop(pid, None)  # another process with its number
        if row.length != layout.no_data:
            argument, own = row.argument & 7, beside(row, at, data, layout)
            if pieces is None:
                pieces = {argument: [own]}
            else:
                pieces[argument] = [own, *pieces.get(argument, ())]
        if kind == "KIND_EXEC":
            who = row.time + offset, pid, row.tid, decode_text(row.comm)
            if row.result:
                self.started.setdefault(pid, (who[0], row.result + offset))
            return _exec(machine, who, waited, row.number, pieces or {})
        number = row.number
        if layout.number_unknown and number == layout.number_unknown:
            number = int(row.size)  # type: ignore[arg-type]  # then it has one, or the recording is damaged
        if row.shape & layout.shape_32bit:
            number |= syscalls.COMPAT
        result = row.result if kind == "KIND_CALL" else None
        there: dict[int, Captured] = {}
        beyond: dict[tuple[int, str | int], Captured] = {}
        if pieces:
            plan = syscalls.pointed(machine, number)
            for argument, each in pieces.items():
                text = captured(row, plan.get(argument), args, result, each)
                if text is None:
                    continue
                if argument < _BEYOND:
                    there[argument] = text
                elif which := layout.beyond(argument):
                    beyond[argument & _BEYOND - 1, which] = text
        comm = decode_text(row.comm)
        return Call(row.time + offset, waited, pid, row.tid, comm, machine, number, args, result, there, beyond)

    def _event(self, row: CallRow, kind: str | None) -> Entry | None:
        """The entry for a record that is no call."""
        machine, offset, layout, *_ = self._reply
        args, pid = tuple(row.args), row.pid
        who = row.time + offset, pid, row.tid, decode_text(row.comm)
        if kind == "KIND_SENT":
            sender = Sender(pid, "" if args[1] == _SI_KERNEL else who[3], bool(args[3]))
            self._remember(self._senders, (args[2], args[0]), sender)
            self.sent.append(SentSignal(who[0], args[2], args[0], sender))
            return None
        self._wait(row, layout.placed_bits)
        if kind == "KIND_SIGNAL":
            words, sent = args[2 : row.shape >> 4], self._senders.pop((pid, args[0]), None)
            return DeliveredSignal(*who, args[0], _signed(args[1]), words, machine, sent)
        if kind in ("KIND_THREAD_EXIT", "KIND_PROCESS_EXIT"):
            self._before.pop(row.tid, None)
            last = kind == "KIND_PROCESS_EXIT" and pid not in self._ended
            if last:
                self._remember(self._ended, pid, None)
            return ThreadEnd(*who, row.result, last, bool(args[0]))
        self._ended.pop(pid, None)
        return MissingCalls(1)

    def _gaps(self, calls: npt.NDArray[np.void]) -> dict[int, int]:
        """How many records are missing before a record, by its index.

        Each has taken a number and then its place; two CPUs may have taken them in different order.
        """
        if not len(calls):
            return {}
        counts = calls["count"]
        if self._next < 0:
            self._next = int(counts[calls["sequence"].argmin()])
        ahead = (counts - np.uint32(self._next)).view(np.int32)  # it begins anew after 32 bits
        order = np.argsort(ahead, kind="stable")
        numbers = ahead[order].astype(np.int64)
        expected = np.maximum(np.concatenate(([0], numbers + 1)), 0)
        self._next = self._next + int(expected[-1]) & 0xFFFFFFFF
        missing = numbers - expected[:-1]
        behind = missing > 0
        return dict(zip(order[behind].tolist(), missing[behind].tolist(), strict=True))

    def _wait(self, row: CallRow, placed_bits: int) -> int | None:
        """Nanoseconds that a thread was not running since its last record; None for its first.

        The scheduler counts what it ran, up to when it last looked. On one CPU the difference of both says exactly
        what is between; each CPU has its own clock, so for a thread that moved it is the time that passed less what
        it ran, to a tick. A thread that has not given up its CPU did not wait: then others were given it.
        """
        placed_bits = placed_bits or 32
        before = self._before.get(row.tid)
        self._remember(self._before, row.tid, row)
        if before is None:
            return None
        if placed_bits < 32 and row.placed >> placed_bits == before.placed >> placed_bits:
            return 0
        passed, ran = row.time - before.time, _difference(row.ran, before.ran, 32)
        if passed < _LONG and row.argument >> 3 == before.argument >> 3:  # the CPU
            return max(0, _difference(row.placed, before.placed, placed_bits) - ran)
        return max(0, passed - ran)

    def _remember(self, found: dict[_Key, _Value], key: _Key, value: _Value) -> None:
        """Keep a value as the newest; the oldest goes where there are too many."""
        found.pop(key, None)
        found[key] = value
        if len(found) > self._most_threads:
            del found[next(iter(found))]


def _order(calls: npt.NDArray[np.void]) -> list[int]:
    """The order of time, and within a thread that of its calls: the clock of one CPU may be a little behind."""
    found = np.argsort(calls["sequence"], kind="stable")
    by_sequence: list[int] = found.tolist()
    ordered = calls["time"][found]
    if (ordered[1:] >= ordered[:-1]).all():
        return by_sequence
    shown: dict[int, int] = {}
    times = calls["time"].tolist()
    threads = calls["tid"].tolist()
    for at in by_sequence:
        times[at] = shown[threads[at]] = max(times[at], shown.get(threads[at], 0))
    return sorted(by_sequence, key=times.__getitem__)


def _exec(
    machine: str, who: tuple[int, int, int, str], waited: int | None, number: int, pieces: dict[int, list[SlotText]]
) -> Call:
    """An exec that succeeded: its arguments are one text, and the call's own are gone with the memory they were in."""
    path, path_left = joined(pieces.get(0, []), -1)
    listed, left = joined(pieces.get(1, []), 0)
    count = listed.removesuffix(b"\0").count(b"\0")
    cut = frozenset({count} if left and not listed.endswith(b"\0") else ())
    argv, environment = Captured(listed, len(listed) + left, cut=cut), Captured(b"", 1)
    descriptor = _DESCRIPTOR.fullmatch(path)
    numbers = syscalls.numbers(machine)
    if number != numbers["execveat"] or not descriptor:
        texts = {0: Captured(path, len(path) + path_left), 1: argv, 2: environment}
        return Call(who[0], waited, *who[1:], machine, numbers["execve"], (0,) * 6, 0, texts)
    rest = descriptor[2] or b""
    empty = 0 if rest else syscalls.flags(machine, "AT")["AT_EMPTY_PATH"]
    texts = {1: Captured(rest, len(rest) + path_left), 2: argv, 3: environment}
    args = (int(descriptor[1]), 0, 0, 0, empty, 0)
    return Call(who[0], waited, *who[1:], machine, number, args, 0, texts)


def _difference(now: int, before: int, bits: int) -> int:
    """Nanoseconds between two counts in units of 1,024 that wrap at so many bits."""
    return (now - before & (1 << bits) - 1) << 10


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
