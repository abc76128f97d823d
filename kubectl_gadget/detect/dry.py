"""`detect --dry-run`: judges a recording by rules, as an agent would have done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from gadget._generated import gadget_pb2 as pb
from gadget.checks import parse_schema
from gadget.errors import GadgetError, Unsupported
from gadget.rules import messages
from gadget.rules.alerts import Alert
from gadget.rules.channels import Channels
from gadget.rules.grouping import Groups
from gadget.rules.live import Judge
from gadget.rules.ruleset import Ruleset
from gadget.rules.told import KnownContainer, ToldSurroundings
from gadget.schema import Schema
from gadget.text import counted
from kubectl_gadget.detect.judge import check_sent
from kubectl_gadget.detect.live import AlertOutput, AlertSession
from kubectl_gadget.detect.replies import GADGET
from kubectl_gadget.detect.written import Text
from kubectl_gadget.stream.books import Node
from kubectl_gadget.stream.merge import TimedRow
from kubectl_gadget.stream.recording import Recording
from kubectl_gadget.stream.request import Request, Selection
from kubectl_gadget.stream.streams import Message
from kubectl_gadget.tell import tell


class _Judged:
    """What rules say of one node's part of a recording."""

    def __init__(self, node: str, rules: Ruleset, schema: Schema, selection: Selection, *, first: bool, host: bool):
        self._node, self._host = node, host
        self._told = ToldSurroundings()
        self.judge = Judge(rules, schema, self._told, first=first, host=host)
        self._groups = None if first else Groups()
        self._chosen = selection.chosen()
        #: alerts that cannot be shown, and events of batches that could not be judged
        self.lost, self.not_judged = 0, 0

    def alerts(self, batch: pb.Batch, read_ns: int) -> list[TimedRow]:
        """Of a batch that was read at a time."""
        before = self.judge.judged
        try:
            self._told.take(batch.told)
            alerts = self.judge.judge(batch.sections, batch.clock_offset_ns)
        except Exception:  # whatever is in it, it hides no other
            events = sum(section.count for section in batch.sections)
            self.not_judged += max(events - (self.judge.judged - before), 1)
            alerts = []
        return self._rows(self._grouped(alerts, read_ns))

    def rest(self) -> list[TimedRow]:
        """The counts that have not been told."""
        return self._rows(self._groups.rest() if self._groups else ())

    def _grouped(self, alerts: Iterable[Alert], now_ns: int) -> Iterator[Alert]:
        if self._groups is None:
            yield from alerts
            return
        for alert in alerts:
            yield from self._groups.add(alert)
        yield from self._groups.due(now_ns)

    def _rows(self, alerts: Iterable[Alert]) -> list[TimedRow]:
        rows: list[TimedRow] = []
        for alert in alerts:
            container, message = self._whose(alert), pb.Alert()
            if container is None:
                continue
            if not messages.fill(message, alert):
                self.lost += 1
                continue
            shown = replace(messages.read(message, self._node), cgroup_id=alert.cgroup_id)
            rows.append((alert.time_ns, (shown, container), container.id))
        return sorted(rows, key=lambda row: row[0])

    def _whose(self, alert: Alert) -> pb.Container | None:
        """The container of an alert, nameless outside containers; None if the user did not ask for it."""
        known = self._told.container(alert.cgroup_id)
        if not isinstance(known, KnownContainer):
            return pb.Container() if self._host else None
        own = known.facts.container
        if not known.chosen or self._chosen.matches(own.namespace, own.pod, own.name, known.facts.labels) is False:
            return None
        return pb.Container(
            cgroup_id=alert.cgroup_id,
            namespace=own.namespace,
            pod=own.pod,
            container=own.name,
            id=own.id,
            runtime=own.runtime,
        )


class DrySession(AlertSession):
    """Shows what rules say of a recording."""

    def __init__(self, request: Request, output: AlertOutput, rules: Ruleset, *, first: bool) -> None:
        """Of what request asks for."""
        super().__init__(request, output)
        self._rules, self._first = rules, first
        self._judges: dict[str, _Judged] = {}
        self._over: list[_Judged] = []
        self._read_ns = 0

    @property
    def lost(self) -> tuple[int, int]:
        """Alerts that were too large, and events that could not be judged."""
        every = [*self._over, *self._judges.values()]
        return sum(each.lost for each in every), sum(each.not_judged for each in every)

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        node = super()._begun(target, name, started)
        if before := self._judges.pop(target, None):
            self._over.append(before)
        try:
            judged = _Judged(
                name,
                self._rules,
                parse_schema(name, started.schema),
                self._request.selection,
                first=self._first,
                host="host" in self._request.parameters,
            )
        except (LookupError, ValueError, TypeError):
            raise Unsupported(f"{name}: its events are of another version: rules cannot be asked of them") from None
        if lacking := judged.judge.lacking(started.parameters):
            self._warn_once(f"{name}: rules ask about what the recording does not have: {', '.join(lacking)}")
        self._judges[target] = judged
        return node

    def _follow(self, messages: Iterable[Message], stop: Callable[[], None]) -> None:
        super()._follow(messages, stop)
        rest = [row for each in (*self._over, *self._judges.values()) for row in each.rest()]
        self._show(sorted(rest, key=lambda row: row[0]))

    def _take(self, target: str, reply: pb.RunReply) -> None:
        self._read_ns = reply.sent_ns
        super()._take(target, reply)

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        judged = self._judges[target]
        rows = judged.alerts(batch, self._read_ns) if batch.sections or batch.HasField("told") else []
        self._judged[target] = judged.judge.judged
        return rows

    def _count(self, target: str, reply: pb.RunReply) -> None:
        reply.batch.ClearField("judged") if reply.HasField("batch") else None  # those of the rules of then
        super()._count(target, reply)


def dry_run(
    recording: Recording,
    rules: Ruleset,
    selection: Selection,
    text: Text,
    channels: Channels,
    *,
    nodes: tuple[str, ...],
    first: bool,
    host: bool,
    strict: bool,
) -> None:
    """Write what rules say of a recording, then how many alerts there were.

    Raises:
        GadgetError: It is no recording of `detect`, or cannot be judged.
        Incomplete: Something was lost, and that was not to be.
        Wrong: Alerts could not be sent.

    """
    parameters = {"host": "true"} if host else {}
    request = Request(GADGET, parameters, strict=strict, selection=selection, nodes=nodes)
    output = AlertOutput(text, channels)
    session = DrySession(request, output, rules, first=first)
    try:
        session.replay(recording)
    finally:
        unsent = output.end()
    large, not_judged = session.lost
    if large:
        tell(f"incomplete: {counted(large, 'alert')} of more text than is shown")
    if not_judged:
        tell(f"incomplete: {counted(not_judged, 'event')} could not be judged")
    if strict and (large or not_judged):
        raise GadgetError("not complete, and --strict was given")
    check_sent(unsent)
