"""A recording as text or JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import orjson

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from kubectl_gadget import strace
from kubectl_gadget.output import terminal
from kubectl_gadget.output.stdout import write_all, write_text
from kubectl_gadget.strace import Call
from kubectl_gadget.streams import connect, error_of
from kubectl_gadget.text import escape
from kubectl_gadget.traceloop.calls import End, Entry, Gap, Reader, Signal
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.values import clock, moment, rfc3339


@dataclass(frozen=True)
class View:
    """What to show of a recording, and how. since in seconds before its end; 0 and empty for no limit."""

    form: str = "columns"
    tail: int = 0
    since: float = 0.0
    names: frozenset[str] = frozenset()
    failed: bool = False
    pid: int = 0
    durations: bool = False
    follow: bool = False

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is one that was asked for. Gaps and ends always are."""
        if isinstance(entry, Gap):
            return True
        if self.pid and self.pid not in (entry.pid, entry.tid):
            return False
        if not isinstance(entry, Call):
            return isinstance(entry, End) or not self.failed
        if self.names and syscalls.find(entry.machine, entry.number).name not in self.names:
            return False
        return not self.failed or entry.failed


def show(instance: Instance, view: View) -> None:
    """Write a recording to standard output, and go on with what comes if view says so."""
    reader = Reader()
    output = make_output(view)
    request = pb.TraceloopReadRequest(cgroup_id=instance.container.cgroup_id, follow=view.follow)
    try:
        with connect(instance.address) as channel:
            for number, reply in enumerate(rpc.AgentStub(channel).TraceloopRead(request)):
                every = reader.entries(reply)
                entries = [entry for entry in every if view.wants(entry)]
                if number == 0:
                    output.head(Head.of(instance, reply, sum(not isinstance(entry, Gap) for entry in every)))
                    entries = _last(entries, view, reply)
                output.entries(entries)
                output.blocked(_blocked(reply, view))
    except grpc.RpcError as error:
        raise error_of(instance.target, error) from None


def make_output(view: View) -> _Text | _Json:
    """What writes entries to standard output in the form that a view has."""
    return _Json() if view.form == "json" else _Text(view.durations)


@dataclass(frozen=True)
class Head:
    """What a recording is of, and how complete: kept of calls are here, torn were being written or never were."""

    instance: Instance
    kept: int
    torn: int

    @classmethod
    def of(cls, instance: Instance, reply: pb.TraceloopReadReply, kept: int) -> Head:
        """That of a reply; kept of its calls can be shown."""
        now = Instance(instance.target, instance.address, reply.node, reply.item)
        return cls(now, kept, reply.unread + reply.item.dropped)

    @property
    def ended_ns(self) -> int:
        """When it ended; 0 if it runs or nobody knows."""
        return 0 if self.instance.item.running else self.instance.item.ended_ns

    def __str__(self) -> str:
        instance = self.instance
        end = f"{instance.state}{f' at {moment(self.ended_ns)}' if self.ended_ns else ''}"
        torn = f"{self.torn:,} torn" if self.torn else "none torn"
        return f"# {instance.title}: {end}, {self.kept:,} of {instance.item.calls:,} calls kept, {torn}"

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        instance, container = self.instance, self.instance.container
        return {
            "node": instance.node,
            "namespace": container.namespace,
            "pod": container.pod,
            "container": container.container,
            "containerId": container.id,
            "state": instance.state,
            "ended": rfc3339(self.ended_ns) if self.ended_ns else None,
            "kept": self.kept,
            "calls": instance.item.calls,
            "torn": self.torn,
        }


def _last(entries: list[Entry], view: View, reply: pb.TraceloopReadReply) -> list[Entry]:
    if view.since:
        times = [entry.time_ns for entry in entries if not isinstance(entry, Gap)]
        now = reply.sent_ns or time.time_ns()
        end = now if reply.item.running else max(times, default=0)
        begin = end - int(view.since * 1e9)
        entries = [entry for entry in entries if isinstance(entry, Gap) or entry.time_ns >= begin]
    return entries[-view.tail :] if view.tail else entries


class _Text:
    """Writes lines."""

    def __init__(self, durations: bool) -> None:
        self._durations = durations
        self._width = 0
        self._coloured = terminal.has_colours()

    def head(self, head: Head) -> None:
        write_text(f"{head}\n")

    def entries(self, entries: Sequence[Entry]) -> None:
        lines = []
        for entry in entries:
            if isinstance(entry, Gap):
                lines.append(f"… {entry.missing:,} calls are missing here …")
                continue
            who = f"[{escape(entry.comm)} {entry.tid}]"
            self._width = max(self._width, len(who))
            lines.append(f"{clock(entry.time_ns)} {who:{self._width}} {self._red(entry, self._what(entry))}")
        write_text("".join(f"{line}\n" for line in lines))

    def blocked(self, calls: Iterable[Call]) -> None:
        """As they would begin."""
        lines = [f"{'now':15} [{escape(call.comm)} {call.tid}] {strace.text(call)}\n" for call in calls]
        write_text("".join(lines))

    def _red(self, entry: Entry, text: str) -> str:
        """Text in red if what it tells of failed."""
        bad = entry.failed if isinstance(entry, Call) else isinstance(entry, End) and bool(entry.status)
        return f"{terminal.RED}{text}{terminal.PLAIN}" if self._coloured and bad else text

    def _what(self, entry: Call | End | Signal) -> str:
        if isinstance(entry, Call):
            waited = entry.duration_ns
            shown = f" <{waited / 1e9:.6f}>" if self._durations and waited is not None else ""
            return strace.text(entry) + shown
        return _end(entry) if isinstance(entry, End) else _signal(entry)


def _end(entry: End) -> str:
    signal = entry.status & 0x7F
    if not signal:
        return f"+++ exited with {entry.status >> 8 & 0xFF} +++"
    oom = ", out of memory" if entry.oom else ""
    core = " (core dumped)" if entry.status & 0x80 else ""
    return f"+++ killed by {syscalls.signal_name(signal)}{core}{oom} +++"


def _signal(entry: Signal) -> str:
    name = syscalls.signal_name(entry.number)
    # sigaction(2): a positive si_code comes from the kernel, and of these signals with an address
    if entry.code > 0 and name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"):
        return f"--- {name} {{si_code={entry.code}, si_addr={entry.where:#x}}} ---"
    if entry.code <= 0:
        return f"--- {name} {{si_code={entry.code}, si_pid={entry.where & 0xFFFFFFFF}}} ---"
    return f"--- {name} {{si_code={entry.code}}} ---"


def _blocked(reply: pb.TraceloopReadReply, view: View) -> Iterator[Call]:
    """The calls that have not returned."""
    for item in reply.blocked:
        number = item.number | (syscalls.COMPAT if item.compat else 0)
        call = Call(0, None, item.pid, item.tid, item.comm, reply.machine, number, tuple(item.args), None, {})
        if view.wants(call) and not view.failed:
            yield call


class _Json:
    """Writes an object a line."""

    def head(self, head: Head) -> None:
        self._write([{"event": "head", **head.to_json()}])

    def entries(self, entries: Iterable[Entry]) -> None:
        self._write(map(to_json, entries))

    def blocked(self, calls: Iterable[Call]) -> None:
        """Those keys of a call that one has which has not returned."""
        not_yet = ("time", "duration_ns", "cut", "result", "error")
        for call in calls:
            known = {key: value for key, value in strace.to_json(call).items() if key not in not_yet}
            self._write([{"event": "blocked", **known}])

    def _write(self, items: Iterable[dict[str, Any]]) -> None:
        write_all(b"".join(orjson.dumps(item) + b"\n" for item in items))


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as an object."""
    if isinstance(entry, Gap):
        return {"event": "gap", "count": entry.missing}
    if isinstance(entry, Call):
        return {"event": "call", **strace.to_json(entry)}
    who = {"time": rfc3339(entry.time_ns), "pid": entry.pid, "tid": entry.tid, "comm": entry.comm}
    if isinstance(entry, Signal):
        name = syscalls.signal_name(entry.number)
        return {"event": "signal", **who, "signal": name, "code": entry.code, "address": entry.where}
    signal = entry.status & 0x7F
    return {
        "event": "process_exit" if entry.last else "thread_exit",
        **who,
        "code": None if signal else entry.status >> 8 & 0xFF,
        "signal": syscalls.signal_name(signal) if signal else None,
        "oom": entry.oom,
    }
