"""`detect` on nodes: agents ask the rules, and their alerts are one stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.errors import Malformed, UsageError
from gadget.rows import Decoder
from gadget.rules import messages
from gadget.rules.channels import Channels
from gadget.rules.fields import SYSCALL
from gadget.rules.ruleset import Ruleset
from gadget.schema import Row, Schema
from kubectl_gadget import contract
from kubectl_gadget.begin import stops
from kubectl_gadget.containers import known_containers
from kubectl_gadget.detect.judge import Write, by_rule, check_sent, end
from kubectl_gadget.nothing import Known
from kubectl_gadget.output import Output
from kubectl_gadget.request import Request, Selection
from kubectl_gadget.session import Node, Session, count
from kubectl_gadget.streams import Check, Streams
from kubectl_gadget.targets import Targets

_SCHEMA = Schema((), 0)
_GADGET = Gadget("detect", "", "", "", "", [], [], [], {}, {}, _SCHEMA, [])
_RING_FULL = "ring full"


@dataclass(frozen=True)
class Asked:
    """What agents are asked: rule files, which of their rules, and whose events; timeout in seconds, 0 for none."""

    files: Sequence[tuple[str, str]]
    names: Sequence[str]
    first: bool
    host: bool
    selection: Selection
    timeout: float = 0.0
    strict: bool = False

    def message(self) -> pb.RunRequest:
        """The same, as agents have it."""
        return pb.RunRequest(
            detect=pb.Detect(
                files=[pb.RuleFile(name=name, text=text) for name, text in self.files],
                rules=self.names,
                first=self.first,
                host=self.host,
                selection=pb.Selection(**self.selection.message()),
            )
        )

    def request(self) -> Request:
        """The same, as a session has it."""
        return Request(
            _GADGET,
            {"host": "true"} if self.host else {},
            "",
            (),
            frozenset(),
            (),
            "",
            strict=self.strict,
            selection=self.selection,
            timeout=self.timeout,
        )


def ask(files: Iterable[tuple[str, str]], rules: Ruleset, selection: Selection, **rest: Any) -> Asked:
    """What is asked by the rules on system calls that are on.

    Raises:
        UsageError: The files are too long for agents.

    """
    texts = list(files)
    if sum(len(text.encode()) for _, text in texts) > messages.MOST_RULE_BYTES:
        raise UsageError(f"--rules: agents take {messages.MOST_RULE_BYTES >> 20} MiB of rules at most")
    names = [rule.name for rule in rules.rules if rule.enabled and rule.source == SYSCALL]
    return Asked(texts, names, selection=selection, **rest)


class AlertCheck:
    """Looks at the replies of one agent, in their order."""

    def __init__(self, names: Collection[str], node: str) -> None:
        """Of rules of these names; node is empty if only the agent can tell."""
        self._names, self._node, self._has_begun = names, node, False

    def __call__(self, reply: pb.RunReply) -> None:
        """GadgetError unless a reply makes sense and can be shown."""
        node, what = self._node or reply.node, reply.WhichOneof("what")
        if what == "started":
            contract.check(node, reply.started.contract)
            self._has_begun = True
        elif not self._has_begun or what not in ("alerts", "summary"):
            raise Malformed(f"{node}: its agent sends no alerts, but something else")
        elif what == "alerts":
            messages.check(node, reply.alerts.alerts)
            if any(each.rule not in self._names for each in reply.alerts.alerts):
                raise Malformed(f"{node}: its agent sends alerts of rules that it was not asked for")


class AlertOutput(Output):
    """Writes alerts, and sends them where they are to go."""

    fields = ()

    def __init__(self, write: Write, channels: Channels) -> None:
        """Write each by write, and put it into channels."""
        self._write, self._channels = write, channels
        self.fired: Counter[str] = Counter()

    def write(self, rows: Sequence[Row]) -> None:
        """Rows are alerts with whom each is about."""
        for alert, who in rows:
            self.fired[alert.rule.name] += 1
            self._channels.put(alert)
            self._write(alert, who)


class AlertSession(Session):
    """Shows the alerts of agents, and keeps the books of all."""

    thing = "alert"

    def __init__(
        self, request: Request, output: AlertOutput, elsewhere: Callable[[], list[Known] | None] | None = None
    ) -> None:
        """Prepare to show what request asks for."""
        super().__init__(request, elsewhere)
        self._alerts = output
        self._judged: dict[str, int] = {}  # of each target since it has begun
        self._judged_before = 0

    def _make_output(self, schema: Schema) -> Output:
        return self._alerts

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        contract.check(name, started.contract)
        self._judged_before += self._judged.pop(target, 0)
        return Node(Decoder(name, _SCHEMA), lambda table: None)

    def _tell_other_words(self, name: str, schema: Schema) -> None:
        """Alerts have no words of an agent's own."""

    def _count(self, target: str, reply: pb.RunReply) -> None:
        super()._count(target, reply)
        if reply.WhichOneof("what") == "alerts":
            node = self._nodes[target]
            self._judged[target] = reply.alerts.judged
            node.decoder.learn(reply.alerts.containers)
            if reply.alerts.losses:
                node.losses = list(reply.alerts.losses)

    def _take(self, target: str, reply: pb.RunReply) -> None:
        if not reply.alerts.alerts:
            return
        name = self._nodes[target].decoder.node
        rows = sorted(
            (
                (each.time_ns, (messages.read(each, name), who(each.container, name)), each.container.id)
                for each in reply.alerts.alerts
            ),
            key=lambda row: row[0],
        )
        if self._expected == 1 and len(self._nodes) == 1:
            self._show(rows)
        else:
            self._merge.add(rows, self._now())

    def _what(self) -> str:
        return f"{by_rule(self._alerts.fired)} of {count(self._judged_before + sum(self._judged.values()), 'event')}"

    def _advice(self) -> str:
        losses = (loss for node in self._nodes.values() for loss in (*node.earlier, *node.losses))
        return (
            " Ask fewer rules: --priority, --tag, --rule." if any(each.reason == _RING_FULL for each in losses) else ""
        )


def who(container: pb.Container, node: str) -> str:
    """Whom an alert is about, in a few letters; outside containers the node."""
    name = container.container or container.id[:12]
    if container.pod:
        return f"{container.namespace}/{container.pod}{f' ({name})' * bool(name)}"
    return name or node


def live(asked: Asked, targets: Targets, write: Write, channels: Channels) -> None:
    """Write the alerts of agents until Ctrl-C, then how many there were.

    Raises:
        GadgetError: No agent can do it.
        Incomplete: Something was lost, and that was not to be.
        Wrong: Alerts could not be sent.

    """
    request, names = asked.request(), frozenset(asked.names)

    def check(node: str) -> Check:
        return AlertCheck(names, node)

    streams = Streams(targets, asked.message(), check)
    session = AlertSession(request, AlertOutput(write, channels), lambda: known_containers(targets))
    with stops(streams.stop, asked.timeout), streams:
        try:
            session.run(streams, len(targets), streams.stop, live=True)
        finally:
            lost = end(channels)
    check_sent(lost)
