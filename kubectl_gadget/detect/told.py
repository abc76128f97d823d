"""A kept alert as a story: what fired, who did it, what came before, and what the rule says."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Malformed
from gadget.kinds.times import clock, rfc3339
from gadget.rules import messages
from gadget.rules.alerts import Alert
from gadget.rules.fields import AUDIT
from gadget.rules.processes import Program
from gadget.syscalls import errors
from gadget.text import escape, quote
from kubectl_gadget.agents import wire
from kubectl_gadget.detect.live import who
from kubectl_gadget.text import fit
from kubectl_gadget.traceloop.calls import Entry, ReplyReader
from kubectl_gadget.traceloop.runtime import without_runtime
from kubectl_gadget.traceloop.show import lines_of, to_json
from kubectl_gadget.traceloop.signals import without_false_kills

#: The words that `story` has for calls; of others it is their name.
_KINDS = {
    **dict.fromkeys(("execve", "execveat"), "exec"),
    **dict.fromkeys(("open", "openat", "openat2", "creat"), "open"),
}
#: Paragraphs are no wider where there is no terminal.
_WIDEST = 100


@dataclass(frozen=True)
class AlertStory:
    """An alert with its past. happened and calls may be those of another alert, whose id is given beside them."""

    alert: Alert
    container: pb.Container
    past: pb.Past
    happened: Sequence[pb.Happened]
    happened_of: str
    calls: Sequence[Entry]
    calls_of: str
    no_calls: str

    @classmethod
    def of(cls, reply: pb.KeptAlertReply) -> AlertStory:
        """The alert of a reply that has one.

        Raises:
            Malformed: It makes no sense.

        """
        messages.check(reply.node, reply.alerts)
        try:
            pasts = {each.id: _past(each.past) for each in reply.alerts}
        except ValueError:
            raise Malformed(f"{reply.node}: its agent sends a past that makes no sense") from None
        message = reply.alerts[0]
        past = pasts[message.id]
        happened = pasts.get(past.happened_of, pb.Past()) if past.happened_of else past
        calls = pasts.get(past.calls_of, pb.Past()) if past.calls_of else past
        lost = past.calls_of if past.calls_of not in pasts else ""
        why = f"they are with the alert {lost}, which is kept no more" if lost else past.no_calls
        entries = _entries(reply.node, calls.calls) if calls.HasField("calls") else []
        alert = messages.read(message, reply.node)
        return cls(alert, message.container, past, happened.happened, past.happened_of, entries, past.calls_of, why)

    def json(self) -> dict[str, Any]:
        """As an object."""
        alert, container, past = self.alert, self.container, self.past
        return {
            "id": alert.id,
            "time": rfc3339(alert.time_ns),
            "node": alert.node,
            "namespace": container.namespace,
            "pod": container.pod,
            "container": container.container,
            "containerId": container.id,
            "image": past.image,
            "rule": alert.rule.name,
            "priority": alert.rule.priority,
            "tags": sorted(alert.rule.tags),
            "description": past.description,
            "condition": past.condition,
            "output": alert.text,
            "output_fields": alert.fields,
            "count": alert.count,
            "incomplete": list(alert.incomplete),
            "ancestry": [each._asdict() for each in alert.ancestry],
            "before": [_happened_json(each) for each in self.happened],
            "before_of": self.happened_of,
            "resolved": [{"name": each.name, "addresses": list(each.addresses)} for each in past.resolved],
            "calls": [to_json(each) for each in self.calls],
            "calls_of": self.calls_of,
            "no_calls": self.no_calls,
        }

    def lines(self, width: int | None) -> Iterator[str]:
        """As lines that a terminal can show, cut where it ends; in full if width is None. Commands are whole."""
        yield from (fit(line, width, middle=True) if width else line for line in self._lines(width or _WIDEST))
        yield from ("", "Further:", *map(escape, self._further()))

    def _lines(self, width: int) -> Iterator[str]:
        yield from self._head(width)
        if self.alert.ancestry:
            yield from ("", "The process, below those that started it:", *_tree(self.alert.ancestry))
        yield from self._before()
        yield from self._last_calls(width)
        if self.past.condition:
            yield from ("", "The rule:", *_wrapped(self.past.description, "  ", width), "")
            yield from _wrapped(self.past.condition, "  ", width)

    def _further(self) -> Iterator[str]:
        """Commands that tell more, and what to do of a false alarm."""
        own = self.container
        if own.pod:
            where = f"-n {shlex.quote(own.namespace)} -p {shlex.quote(own.pod)}"
            yield f"  kubectl gadget alerts {where}  # its other alerts"
            yield f"  kubectl gadget story {where}   # what it does now"
            if self.calls:
                name = f" -c {shlex.quote(own.container)}" * bool(own.container)
                yield f"  kubectl gadget traceloop show {shlex.quote(own.pod)} -n {shlex.quote(own.namespace)}{name}"
        yield "  # a false alarm? An exception for the rule:"
        yield f"  kubectl gadget alerts --rule {shlex.quote(self.alert.rule.name)} -o json |"
        yield "    kubectl gadget detect tune --least 1 -"

    def _head(self, width: int) -> Iterator[str]:
        alert, place = self.alert, who(self.container, "")
        if alert.rule.source == AUDIT:
            place = f"{place or 'the cluster'}, as its API server tells"
        else:
            place = f"{place or 'outside containers'} on {alert.node}"
        image = f", image {self.past.image}" if self.past.image else ""
        then = time.strftime("%Y-%m-%d", time.localtime(alert.time_ns // 1_000_000_000))
        rows = [
            ("alert", alert.id),
            ("rule", alert.rule.name),
            ("priority", alert.rule.priority),
            ("when", f"{then} {clock(alert.time_ns)}{f', {alert.count} times' if alert.count > 1 else ''}"),
            ("where", f"{place}{image}"),
            ("says", alert.text),
            ("not known", ", ".join(alert.incomplete)),
        ]
        for name, value in rows:
            if value:
                first, *rest = _wrapped(value, " " * 11, width) or [""]
                yield from (f"{name + ':':11}{first.lstrip()}", *rest)

    def _before(self) -> Iterator[str]:
        if self.happened_of:
            yield from (
                "",
                f"What the container did before, up to the alert {self.happened_of} shortly before this one:",
            )
        elif self.happened:
            yield from ("", "What the container did before:")
        else:
            return
        if not self.happened:
            yield "  that alert is kept no more"
            return
        kinds = [_KINDS.get(each.call, each.call) for each in self.happened]
        room = max(map(len, kinds))
        for kind, each in zip(kinds, self.happened, strict=True):
            yield escape(f"{clock(each.time_ns)[:-3]}  {kind:{room}}  {_line(each)}")

    def _last_calls(self, width: int) -> Iterator[str]:
        if self.calls:
            of = f", as of the alert {self.calls_of}" if self.calls_of else ""
            yield from ("", f"Its last system calls{of}:", *lines_of(self.calls))
        elif self.no_calls:
            yield from ("", *_wrapped(f"Its last system calls are not here: {self.no_calls}", "", width))


def _past(data: bytes) -> pb.Past:
    """What led to an alert. ValueError if the message has none."""
    return wire.parse(pb.Past, messages.unpack(data))[0] if data else pb.Past()


def _entries(node: str, reply: pb.TraceloopReadReply) -> list[Entry]:
    reader = ReplyReader()
    try:
        every = without_false_kills(reader.entries(reply))
    except GadgetError as error:
        raise GadgetError(f"{node}: {error}") from error
    return without_runtime(every, reader.started, reader.complete)[0]


def _tree(programs: Sequence[Program]) -> Iterator[str]:
    """The tree of processes, the oldest first, each with its command line, and its file if that differs."""
    for depth, each in enumerate(reversed(programs)):
        name = each.command or each.name or "(not known)"
        path = f"  {each.path}" if each.path and each.path.rpartition("/")[2] != each.name else ""
        yield escape(f"{'  ' * depth}{'└ ' * bool(depth)}[{each.pid}] {name}{path}")


def _line(each: pb.Happened) -> str:
    """What happened, as `story` has it."""
    is_exec = _KINDS.get(each.call) == "exec" and each.result >= 0
    what = " ".join(map(quote, each.what)) if is_exec else " -> ".join(each.what)
    what += " …" * each.cut
    if each.domains:
        what += f" ({', '.join(each.domains)})"
    return f"{each.name}[{each.pid}]{f' {what}' * bool(what)}{f': {_error(each.result)}' * (each.result < 0)}"


def _error(result: int) -> str:
    return errors().get(-result, (str(-result), ""))[0] if result < 0 else ""


def _happened_json(each: pb.Happened) -> dict[str, Any]:
    return {
        "time": rfc3339(each.time_ns),
        "call": each.call,
        "pid": each.pid,
        "name": each.name,
        "what": list(each.what),
        "cut": each.cut,
        "domains": list(each.domains),
        "result": each.result,
        "error": _error(each.result) or None,
    }


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        escape(text), max(width, 40), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
