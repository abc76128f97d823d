"""`detect` on nodes: agents ask the rules, and their alerts are one stream."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.checks import check_batch, parse_schema
from gadget.errors import GadgetError, Malformed, Unsupported, UsageError
from gadget.recorded import OVERWRITTEN
from gadget.rows import Decoder
from gadget.rules import messages
from gadget.rules.alerts import INTERNAL
from gadget.rules.channels import Channels
from gadget.rules.fields import SYSCALL
from gadget.rules.ruleset import Ruleset
from gadget.schema import Column, Row, Schema
from gadget.text import counted
from kubectl_gadget.agents import contract
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.options import RECEIVER
from kubectl_gadget.detect.choice import KeptChoice
from kubectl_gadget.detect.judge import by_rule, check_sent, end, end_channels
from kubectl_gadget.detect.replies import GADGET, SCHEMA, RepliesCheck
from kubectl_gadget.detect.screen import Screen
from kubectl_gadget.detect.written import Text
from kubectl_gadget.output import Output, make_output, write_table
from kubectl_gadget.stream.begin import stops
from kubectl_gadget.stream.books import Gap, Node, reasons_of
from kubectl_gadget.stream.containers import known_containers
from kubectl_gadget.stream.merge import TimedRow
from kubectl_gadget.stream.nothing import ExistingContainer
from kubectl_gadget.stream.recording import Writer
from kubectl_gadget.stream.request import Request, Selection
from kubectl_gadget.stream.session import Session
from kubectl_gadget.stream.streams import Check, Message, Streams
from kubectl_gadget.tell import tell

_RING_FULL = "ring full"
#: What alerts are counted by, and how many rows a table of counts has at most; further ones are one together.
COUNTED_BY = ("rule", "priority", "node", "namespace", "pod", "container")
MOST_COUNTED = 10_000
_OTHERS = "(others)"
#: More alerts than a person reads one by one.
MANY = 20


@dataclass(frozen=True)
class RulesQuery:
    """What agents are asked: rule files, which of their rules, and whose events; timeout in seconds, 0 for none."""

    files: Sequence[tuple[str, str]]
    names: Sequence[str]
    first: bool
    host: bool
    selection: Selection
    timeout: float = 0.0
    strict: bool = False
    record: Path | None = None

    def message(self) -> pb.RunRequest:
        """The same, as agents have it."""
        return pb.RunRequest(
            detect=pb.Detect(
                files=[pb.RuleFile(name=name, text=text) for name, text in self.files],
                rules=self.names,
                first=self.first,
                host=self.host,
                record=self.record is not None,
                selection=pb.Selection(**self.selection.message()),
            )
        )

    def request(self) -> Request:
        """The same, as a session has it."""
        return Request(
            GADGET,
            {"host": "true"} if self.host else {},
            strict=self.strict,
            selection=self.selection,
            timeout=self.timeout,
        )


def ask(files: Iterable[tuple[str, str]], rules: Ruleset, selection: Selection, **rest: Any) -> RulesQuery:
    """What is asked by the rules on system calls that are on.

    Raises:
        UsageError: The files are too long for agents.

    """
    texts = list(files)
    if sum(len(text.encode()) for _, text in texts) > messages.MOST_RULE_BYTES:
        raise UsageError(f"--rules: agents take {messages.MOST_RULE_BYTES >> 20} MiB of rules at most")
    names = [rule.name for rule in rules.rules if rule.enabled and rule.source == SYSCALL]
    return RulesQuery(texts, names, selection=selection, **rest)


class AlertCheck(RepliesCheck):
    """Looks at alerts."""

    whats = ("batch", "summary", "interrupted")
    wrong = "sends no alerts, but something else"

    def __init__(self, names: Collection[str], node: str, *, record: bool = False) -> None:
        """Of rules of these names; node is empty if only the agent can tell. record: events come, too."""
        super().__init__(node)
        self._names, self._record = names, record
        self._schema = SCHEMA

    def __call__(self, reply: pb.RunReply) -> None:
        """GadgetError unless a reply makes sense and can be shown."""
        super().__call__(reply)
        if self._record and reply.WhichOneof("what") == "started":
            node = self._node or reply.node
            if not reply.started.schema:
                raise Unsupported(f"{node}: its agent is of another version, and its events cannot be recorded")
            self._schema = parse_schema(node, reply.started.schema)

    def _fits(self, batch: pb.Batch) -> bool:
        return self._record or not batch.sections

    def _check(self, node: str, batch: pb.Batch) -> None:
        check_batch(node, self._schema, batch)
        messages.check(node, batch.alerts)
        others = [each for each in batch.alerts if each.rule not in self._names and each.source != INTERNAL]
        if self._names and others:
            raise Malformed(f"{node}: its agent sends alerts of rules that it was not asked for")


class AlertOutput(Output):
    """Writes alerts, and sends them where they are to go."""

    fields = ()

    def __init__(self, text: Text, channels: Channels, *, endless: bool = False) -> None:
        """Write the text of each, and put it into channels. endless: they are of now, and wait for nothing."""
        self._text, self._channels, self._screen = text, channels, Screen(channels.patience(endless=endless))
        self.fired: Counter[str] = Counter()
        self.shown = 0
        #: alerts that have an id
        self.named = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Rows are alerts with the container of each."""
        for alert, _ in rows:
            self.fired[alert.rule.name] += alert.count
            self._channels.put(alert)
            self.named += bool(alert.id)
        self._screen.write([self._text(alert, who(container, alert.node)) for alert, container in rows])
        self.shown += len(rows)

    def refresh(self, sum_up: Callable[[], str]) -> None:
        """OSError if standard output takes no more."""
        self._screen.check()

    def finish(self) -> str:
        """Write what waits."""
        self._screen.flush()
        return ""

    def end(self) -> int:
        """Let all places end, and tell what they have; gives how many alerts were not sent."""
        return end(self._channels, self._screen)


class AlertSession(Session):
    """Shows the alerts of agents, and keeps the books of all."""

    thing = "alert"

    def __init__(
        self,
        request: Request,
        output: AlertOutput,
        elsewhere: Callable[[], list[ExistingContainer] | None] | None = None,
        keep: Callable[[pb.Alert], bool] = lambda alert: True,
        rules: int = 0,
    ) -> None:
        """Prepare to show what request asks for; keep chooses alerts that agents do not choose.

        rules is how many there are of a session that waits for alerts, which a person is told.
        """
        super().__init__(request, elsewhere)
        self._alerts, self._keep, self._to_tell = output, keep, rules
        self._judged: dict[str, int] = {}  # of each target since it has begun
        self._judged_before = 0

    def _make_output(self, schema: Schema) -> Output:
        return self._alerts

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        contract.check(name, started.contract)
        self._judged_before += self._judged.pop(target, 0)
        return Node(Decoder(name, SCHEMA), lambda table: None)

    def _started(self, target: str, name: str, started: pb.Started) -> None:
        super()._started(target, name, started)
        if self._to_tell and len(self._nodes.keys() | self._away.keys()) >= self._expected:
            if sys.stderr.isatty():
                tell(f"watching, by {counted(self._to_tell, 'rule')}")
            self._to_tell = 0

    def _tell_other_words(self, name: str, schema: Schema) -> None:
        """Alerts have no words of an agent's own."""

    def _count(self, target: str, reply: pb.RunReply) -> None:
        super()._count(target, reply)
        if reply.batch.judged:
            self._judged[target] = reply.batch.judged

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        name = node.decoder.node
        rows = [
            (each.time_ns, (messages.read(each, name), each.container), each.container.id)
            for each in batch.alerts
            if self._keep(each)
        ]
        return sorted(rows, key=lambda row: row[0])

    def _watched(self) -> str:
        servers = sum(node.decoder.node == RECEIVER for node in self._nodes.values())
        nodes = self._count_nodes() - servers
        parts = [counted(nodes, "node")] * (nodes > 0 or not servers) + [counted(servers, "API server")] * (servers > 0)
        return " and ".join(parts)

    def _without_rules(self) -> list[GadgetError]:
        """Why nodes do not judge where an API server's audit events alone are to be judged."""
        errors = [ended.error for ended in self._away.values() if ended.error]
        alone = all(node.decoder.node == RECEIVER for node in self._nodes.values())
        return errors if self._nodes and alone and all(isinstance(each, Unsupported) for each in errors) else []

    def _all_gaps(self) -> list[Gap]:
        return self._gaps if self._without_rules() else super()._all_gaps()

    def _tell_away(self, target: str) -> None:
        if not self._without_rules():
            super()._tell_away(target)

    def _left_out(self) -> Iterator[str]:
        yield from super()._left_out()
        if errors := self._without_rules():
            more = f"; so on {counted(len(errors) - 1, 'other node')}" * (len(errors) > 1)
            yield f"Audit events alone were judged: {errors[0]}{more}."

    def _what(self) -> str:
        return f"{by_rule(self._alerts.fired)} of {counted(self._judged_before + sum(self._judged.values()), 'event')}"

    def _advice(self) -> str:
        reasons = reasons_of(self._nodes.values())
        if OVERWRITTEN in reasons:
            return " More is kept with --detect-keep of the agent."
        asked = "" if self._request.standing else ": --priority, --tag, --rule"
        return f" Ask fewer rules{asked}." if _RING_FULL in reasons else ""


class CountOutput(AlertOutput):
    """Counts alerts by who they are about, and writes the table in the end."""

    def __init__(self, by: Sequence[str], form: str, channels: Channels) -> None:
        """Count by some of COUNTED_BY; each is put into channels all the same."""
        super().__init__(lambda alert, who: "", channels)
        self._screen = Screen(0, thing="table")
        self._by, self._form, self._counts = by, form, Counter[tuple[str, ...]]()

    def write(self, rows: Sequence[Row]) -> None:
        """Rows are alerts with the container of each."""
        for alert, container in rows:
            self._channels.put(alert)
            self.fired[alert.rule.name] += alert.count
            values = {"rule": alert.rule.name, "priority": alert.rule.priority, "node": alert.node}
            key = tuple(str(values.get(name) or getattr(container, name, "")) for name in self._by)
            others = (_OTHERS, *[""] * (len(self._by) - 1))
            self._counts[key if key in self._counts or len(self._counts) < MOST_COUNTED else others] += alert.count

    def finish(self) -> str:
        """Write the table, the most frequent first."""
        columns = [Column("count", "int"), *(Column(name, "identity") for name in self._by)]
        if self._counts:
            rows = [(number, *key) for key, number in self._counts.most_common()]
            self._screen.write_by(lambda: write_table(make_output(self._form, columns, {}), rows))
        return super().finish()

    def end(self) -> int:
        """The same. With a table that nobody reads all alerts are lost that it counts."""
        return end_channels(self._channels) + self._screen.end() * self.fired.total()


def who(container: pb.Container, node: str) -> str:
    """The subject of an alert, in a few letters: a container, the node, or the namespace of an audit event."""
    name = container.container or container.id[:12]
    if container.pod:
        return f"{container.namespace}/{container.pod}{f' ({name})' * bool(name)}"
    return name or container.namespace or node


def live(asked: RulesQuery, targets: Targets, text: Text, channels: Channels) -> None:
    """Write the alerts of agents until Ctrl-C, then how many there were.

    Raises:
        GadgetError: No agent can do it.
        Incomplete: Something was lost, and that was not to be.
        Wrong: Alerts could not be sent.

    """
    request, names = asked.request(), frozenset(asked.names)

    def check(node: str) -> Check:
        return AlertCheck(names, node, record=asked.record is not None)

    streams = Streams(targets, asked.message(), check)
    output = AlertOutput(text, channels, endless=True)
    session = AlertSession(request, output, lambda: known_containers(targets), rules=len(names))
    with ExitStack() as stack, stops(streams, asked.timeout), streams:
        messages: Iterable[Message] = streams
        if asked.record:
            messages = stack.enter_context(Writer(asked.record, GADGET.name)).keep(streams)
        try:
            session.run(messages, len(targets), streams.stop, live=True)
        finally:
            lost = output.end()
    _tell_more(output)
    check_sent(lost)


@dataclass(frozen=True)
class KeptQuery:
    """A request for kept alerts: since_ns since 1970, 0 for all; priority None for any; names may have * in them."""

    selection: Selection
    since_ns: int
    follow: bool
    priority: str | None = None
    names: tuple[str, ...] = ()
    timeout: float = 0.0
    strict: bool = False

    def request(self) -> Request:
        """The same, as a session has it."""
        return Request(
            GADGET,
            strict=self.strict,
            selection=self.selection,
            timeout=self.timeout,
            standing="alerts",
            since_ns=self.since_ns,
            follow=self.follow,
        )


def read(asked: KeptQuery, targets: Targets, output: AlertOutput) -> None:
    """Write what agents have kept, and what comes if that is asked for.

    Raises:
        GadgetError: No agent keeps alerts.
        Incomplete: Something was lost, and that was not to be.
        Wrong: Alerts could not be sent.

    """

    def check(node: str) -> Check:
        return AlertCheck((), node)

    first = pb.RunRequest(kept_alerts=pb.KeptAlerts(since_ns=asked.since_ns, follow=asked.follow))
    streams = Streams(targets, first, check, endless=asked.follow)
    chosen = KeptChoice(asked.selection, asked.since_ns, asked.priority, asked.names)
    session = AlertSession(asked.request(), output, keep=chosen)
    with stops(streams, asked.timeout), streams:
        try:
            session.run(streams, len(targets), streams.stop, live=True, targets=targets)
        finally:
            lost = output.end()
    if not output.fired and (why := chosen.why_nothing()):
        tell(why)
    _tell_more(output)
    check_sent(lost)


def _tell_more(output: AlertOutput) -> None:
    if output.named and sys.stdout.isatty():
        tell("What led to an alert: kubectl gadget alerts show ID")
        if output.named > MANY:
            tell("How many of what, and where: kubectl gadget alerts --by rule,pod")
