"""A recording as text or JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from gadget.kinds.times import clock, moment, rfc3339, short_duration
from gadget.text import escape
from kubectl_gadget import strace
from kubectl_gadget.agents.client import ask
from kubectl_gadget.output import terminal
from kubectl_gadget.output.encode import encode
from kubectl_gadget.output.stdout import write_all, write_text
from kubectl_gadget.strace import Call
from kubectl_gadget.tell import tell
from kubectl_gadget.traceloop import signals
from kubectl_gadget.traceloop.calls import DeliveredSignal, Entry, MissingCalls, ReplyReader, ThreadEnd
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.traceloop.runtime import without_runtime
from kubectl_gadget.traceloop.signals import without_false_kills


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
    all: bool = False
    colour: bool = False

    def wants(self, entry: Entry) -> bool:
        """Whether to show an entry. Gaps and ends are always shown."""
        if isinstance(entry, MissingCalls):
            return True
        if self.pid and self.pid not in (entry.pid, entry.tid):
            return False
        if not isinstance(entry, Call):
            return isinstance(entry, ThreadEnd) or not self.failed
        if self.names and syscalls.find(entry.machine, entry.number).name not in self.names:
            return False
        return not self.failed or entry.failed


#: Of more lines a person is told how to see fewer.
MANY = 200
#: The largest number that JSON has room for.
MOST = (1 << 64) - 1


def show(instance: Instance, view: View) -> None:
    """Write a recording to standard output, and go on with what comes if view says so."""
    reader = ReplyReader()
    output = make_output(view)
    request = pb.TraceloopReadRequest(cgroup_id=instance.container.cgroup_id, follow=view.follow)
    for number, reply in enumerate(ask(instance.agent, "TraceloopRead", request, endless=view.follow)):
        try:
            every = without_false_kills(reader.entries(reply))
        except GadgetError as error:
            raise GadgetError(f"{instance.agent.target}: {error}") from error
        complete, left_out = reader.complete and not number, 0
        if not view.all:
            every, left_out = without_runtime(every, reader.started, complete)
        entries = [entry for entry in every if view.wants(entry)]
        if number == 0:
            output.head(Head.of(instance, reply, reader.kept, left_out))
            entries = _last(entries, view, reply)
        output.entries(entries)
        if number == 0 and len(entries) > MANY and not view.tail and not view.follow and sys.stderr.isatty():
            tell(f"{len(entries):,} lines; --tail 50 shows the last 50, --failed the calls that failed")
        if not view.failed:
            output.blocked(item for item in reader.blocked(reply) if view.wants(item[0]))


def lines_of(entries: Sequence[Entry]) -> list[str]:
    """Entries as lines that a terminal can show."""
    return _Text(durations=False).lines(entries)


def make_output(view: View) -> _Text | _Json:
    """What writes entries to standard output in the form that a view has."""
    return _Json() if view.form == "json" else _Text(view.durations, view.colour)


#: A container's start is told in ticks of 10 ms where it was there before the agent (proc_pid_stat(5)).
LATE_NS = 10_000_000


@dataclass(frozen=True)
class Head:
    """Describes a recording: kept of its calls are here; torn records were being written or never written."""

    instance: Instance
    kept: int
    torn: int
    left_out: int = 0

    @classmethod
    def of(cls, instance: Instance, reply: pb.TraceloopReadReply, kept: int, left_out: int = 0) -> Head:
        """That of a reply; kept of its calls can be shown, left_out of which are the runtime's."""
        now = Instance(instance.agent, reply.node, reply.item)
        return cls(now, kept, min(reply.unread + reply.item.dropped, MOST), left_out)

    @property
    def ended_ns(self) -> int:
        """When it ended; 0 if it runs or nobody knows."""
        return 0 if self.instance.item.running else self.instance.item.ended_ns

    @property
    def late_ns(self) -> int:
        """How long its container was there before it began, in nanoseconds; 0 if not longer than a clock is exact."""
        item = self.instance.item
        late = item.recorded_ns - item.started_ns if item.recorded_ns else 0
        return late if late > LATE_NS else 0

    def __str__(self) -> str:
        instance = self.instance
        end = f"{instance.state}{f' at {moment(self.ended_ns)}' if self.ended_ns else ''}"
        head = f"# {instance.title}: {end}, {self.kept:,} of {instance.item.calls:,} calls kept"
        if self.torn:
            head += f", {self.torn:,} could not be read: they were being written"
        if self.late_ns:
            head += f"\n# recorded from {short_duration(self.late_ns)} after its start on"
        if self.left_out:
            head += f"\n# {self.left_out:,} lines of the container's runtime are left out; --all shows them"
        return head

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
            "left_out": self.left_out,
            "late_ns": self.late_ns,
        }


def _last(entries: list[Entry], view: View, reply: pb.TraceloopReadReply) -> list[Entry]:
    if view.since:
        times = [entry.time_ns for entry in entries if not isinstance(entry, MissingCalls)]
        now = reply.sent_ns or time.time_ns()
        end = now if reply.item.running else max(times, default=0)
        begin = end - int(view.since * 1e9)
        entries = [entry for entry in entries if isinstance(entry, MissingCalls) or entry.time_ns >= begin]
    return entries[-view.tail :] if view.tail else entries


class _Text:
    """Writes lines."""

    def __init__(self, durations: bool, colour: bool = False) -> None:
        self._durations, self._colour = durations, colour
        self._width = 0

    def head(self, head: Head) -> None:
        write_text("".join(f"{escape(line)}\n" for line in str(head).split("\n")))

    def entries(self, entries: Sequence[Entry]) -> None:
        write_text("".join(f"{line}\n" for line in self.lines(entries)))

    def lines(self, entries: Sequence[Entry]) -> list[str]:
        lines = []
        for entry in entries:
            if isinstance(entry, MissingCalls):
                lines.append(f"… {entry.missing:,} calls are missing here …")
                continue
            who = f"[{escape(entry.comm)} {entry.tid}]"
            self._width = max(self._width, len(who))
            line = escape(f"{clock(entry.time_ns)} {who:{self._width}} {self._what(entry)}")
            lines.append(self._painted(entry, line))
        return lines

    def _painted(self, entry: Entry, line: str) -> str:
        """A line in the colour of what it tells: failures in red, those that everybody has in grey."""
        if not self._colour:
            return line
        if isinstance(entry, Call):
            colour = "" if not entry.failed else terminal.DIM if signals.is_noise(entry) else terminal.RED
        else:
            bad = (
                entry.status
                if isinstance(entry, ThreadEnd)
                else isinstance(entry, DeliveredSignal) and signals.is_bad(entry)
            )
            colour = terminal.RED if bad else ""
        return f"{colour}{line}{terminal.PLAIN}" if colour else line

    def blocked(self, calls: Iterable[tuple[Call, int | None]]) -> None:
        """As they would begin, and how long they have lasted."""
        lines = []
        for call, since in calls:
            lasts = "" if since is None else f" for {short_duration(since)}"
            shown = strace.text(call).removesuffix(" = ?")
            lines.append(f"{'now':15} [{call.comm} {call.tid}] {shown}{lasts}")
        write_text("".join(f"{escape(line)}\n" for line in lines))

    def _what(self, entry: Call | ThreadEnd | DeliveredSignal) -> str:
        if isinstance(entry, Call):
            waited = entry.duration_ns
            shown = f" <{waited / 1e9:.6f}>" if self._durations and waited else ""
            return strace.text(entry) + shown
        return end_text(entry) if isinstance(entry, ThreadEnd) else signals.text(entry)


def end_text(entry: ThreadEnd) -> str:
    """How a process or thread ended, as strace writes it."""
    signal = entry.status & 0x7F
    if not signal:
        return f"+++ exited with {entry.status >> 8 & 0xFF} +++"
    oom = ", out of memory" if entry.oom else ""
    core = " (core dumped)" if entry.status & 0x80 else ""
    return f"+++ killed by {syscalls.signal_name(signal)}{core}{oom} +++"


class _Json:
    """Writes an object a line."""

    def head(self, head: Head) -> None:
        self._write([{"event": "head", **head.to_json()}])

    def entries(self, entries: Iterable[Entry]) -> None:
        self._write(map(to_json, entries))

    def blocked(self, calls: Iterable[tuple[Call, int | None]]) -> None:
        """Those keys of a call that one has which has not returned."""
        not_yet = ("time", "duration_ns", "cut", "result", "error")
        for call, since in calls:
            known = {key: value for key, value in strace.to_json(call).items() if key not in not_yet}
            self._write([{"event": "blocked", **known, "lasts_ns": since}])

    def _write(self, items: Iterable[dict[str, Any]]) -> None:
        write_all(b"".join(encode(item) + b"\n" for item in items))


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry as an object."""
    if isinstance(entry, MissingCalls):
        return {"event": "gap", "count": entry.missing}
    if isinstance(entry, Call):
        return {"event": "call", **strace.to_json(entry)}
    who = {"time": rfc3339(entry.time_ns), "pid": entry.pid, "tid": entry.tid, "comm": entry.comm}
    if isinstance(entry, DeliveredSignal):
        return {"event": "signal", **who, **signals.to_json(entry)}
    signal = entry.status & 0x7F
    return {
        "event": "process_exit" if entry.last else "thread_exit",
        **who,
        "code": None if signal else entry.status >> 8 & 0xFF,
        "signal": syscalls.signal_name(signal) if signal else None,
        "oom": entry.oom,
    }
