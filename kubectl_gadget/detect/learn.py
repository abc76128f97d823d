"""`detect learn`: what containers do, as agents see it, becomes a baseline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from gadget._generated import gadget_pb2 as pb
from gadget.errors import Malformed
from gadget.rows import Decoder
from gadget.rules import baseline
from gadget.rules.baseline import Baseline, BaselineSubject, Learnt
from gadget.rules.seen import FILES, KINDS, PEERS, PORTS, PROGRAMS, Seen
from gadget.schema import Schema
from gadget.text import counted
from gadget.workload import workload
from kubectl_gadget.agents import contract
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.detect.replies import GADGET, SCHEMA, RepliesCheck
from kubectl_gadget.output import Output
from kubectl_gadget.stream.begin import stops
from kubectl_gadget.stream.books import Node
from kubectl_gadget.stream.containers import known_containers
from kubectl_gadget.stream.countdown import Countdown
from kubectl_gadget.stream.merge import TimedRow
from kubectl_gadget.stream.request import Request, Selection
from kubectl_gadget.stream.session import Session
from kubectl_gadget.stream.streams import Check, Streams
from kubectl_gadget.tell import tell, write_lines

#: Containers of workloads, and containers of each, that are told apart.
MOST_WORKLOADS, MOST_COUNTED = 4096, 100_000
#: Of one value that an agent sends, as paths have at most.
LONGEST = 4096
_MOST_TIMES = 1 << 48
_MOST_NS = 1 << 63
#: A watch that lasts nearly as long as was asked has lasted so long: agents begin and end a little apart.
_NEARLY = 2


@dataclass
class _Container:
    """A container of a workload as it was told of: whose it is may be known later than what it does."""

    learnt: pb.Learnt
    seen: Seen = field(default_factory=Seen)
    more: dict[str, int] = field(default_factory=dict)


class Learned:
    """What agents told of containers, by node and container."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._containers: dict[tuple[str, str], _Container] = {}
        #: containers that were too many
        self.crowded = 0
        self._told: dict[str, set[str]] = {kind: set() for kind in KINDS}

    def take(self, node: str, told: pb.Learnt) -> None:
        """Take in what an agent told."""
        key = (node, told.container.id)
        if key not in self._containers and len(self._containers) >= MOST_COUNTED:
            self.crowded += 1
            return
        known = self._containers.setdefault(key, _Container(pb.Learnt(since_ns=told.since_ns)))
        own = known.learnt
        own.container.CopyFrom(told.container)
        own.owner, own.revision = told.owner or own.owner, told.revision or own.revision
        own.repository = told.repository or own.repository
        for kind, values in _values(told):
            known.seen.add_all(kind, values)
        known.more = dict(told.more)

    def so_far(self) -> str:
        """How much that is, in a few words."""
        seen = [each.seen for each in self._containers.values()]
        return ", ".join(counted(sum(each.count(kind) for each in seen), kind.removesuffix("s")) for kind in KINDS)

    def baseline(self, end_ns: int, asked_seconds: float) -> Baseline:
        """The same by workload, as watched up to a time."""
        found: Baseline = {}
        seen: dict[BaselineSubject, Seen] = {}
        for each in sorted(self._containers.values(), key=lambda each: each.learnt.container.id):
            who = _who(each.learnt)
            if who not in found and len(found) >= MOST_WORKLOADS:
                self.crowded += 1
                continue
            learnt, all_of = found.setdefault(who, Learnt()), seen.setdefault(who, Seen())
            for kind in KINDS:
                all_of.add_all(kind, each.seen.of(kind))
                more = each.more.get(kind, 0) + each.seen.more[kind]
                if more:
                    learnt.more[kind] = learnt.more.get(kind, 0) + more
            seconds = max(end_ns - each.learnt.since_ns, 0) / 1e9
            if 0 < asked_seconds - seconds < max(_NEARLY, asked_seconds / 100) or seconds > asked_seconds > 0:
                seconds = asked_seconds
            learnt.containers += 1
            learnt.seconds = max(learnt.seconds, round(seconds))
            learnt.image = max(learnt.image, each.learnt.repository)
        for who, learnt in found.items():
            learnt.values = {kind: seen[who].of(kind) for kind in KINDS}
            for kind, more in seen[who].more.items():
                learnt.more[kind] = learnt.more.get(kind, 0) + more
        return found


def _values(told: pb.Learnt) -> Iterator[tuple[str, list[str]]]:
    yield PROGRAMS, [each.decode("utf-8", "surrogateescape") for each in told.programs]
    yield FILES, [each.decode("utf-8", "surrogateescape") for each in told.files]
    yield PORTS, list(told.ports)
    yield PEERS, list(told.peers)


def _who(told: pb.Learnt) -> BaselineSubject:
    own = told.container
    found = workload(own.pod, told.owner, told.revision)
    return BaselineSubject(own.namespace if found else "", found, own.container, "" if found else told.repository)


def check_learnt(node: str, messages: list[pb.Learnt]) -> None:
    """Malformed unless what an agent told makes sense, and can be kept."""
    for each in messages:
        values = [value for _, values in _values(each) for value in values]
        values += [each.owner, each.revision, each.repository, each.container.pod, each.container.container]
        if not (
            0 < each.since_ns < _MOST_NS
            and all(len(value) <= LONGEST for value in values)
            and all(baseline.is_port(port) for port in each.ports)
            and all(kind in KINDS and times < _MOST_TIMES for kind, times in each.more.items())
        ):
            raise Malformed(f"{node}: its agent tells of containers what makes no sense")


class LearnCheck(RepliesCheck):
    """Looks at what containers do."""

    wrong = "does not tell what containers do, but something else"

    def _fits(self, batch: pb.Batch) -> bool:
        return not (batch.sections or batch.alerts)

    def _check(self, node: str, batch: pb.Batch) -> None:
        check_learnt(node, list(batch.learnt))


class LearnSession(Session):
    """Takes in what agents tell, and keeps the books."""

    def __init__(self, request: Request, learned: Learned, targets: Targets) -> None:
        """Of what request asks for."""
        super().__init__(request, lambda: known_containers(targets))
        self._learned = learned
        #: when the last word came, in nanoseconds since 1970
        self.heard_ns = time.time_ns()

    @property
    def has_begun(self) -> bool:
        """Whether an agent has answered."""
        return bool(self._nodes)

    def _make_output(self, schema: Schema) -> Output:
        return Countdown("learning", self._request.timeout, self._learned.so_far)

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        contract.check(name, started.contract)
        return Node(Decoder(name, SCHEMA), lambda table: None)

    def _tell_other_words(self, name: str, schema: Schema) -> None:
        """There are no words of an agent's own."""

    def _count(self, target: str, reply: pb.RunReply) -> None:
        super()._count(target, reply)
        self.heard_ns = max(self.heard_ns, reply.sent_ns)

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        for each in batch.learnt:
            self._learned.take(node.decoder.node, each)
            self._containers.add(each.container.id)
        return []

    def _what(self) -> str:
        return self._learned.so_far()


def learn(selection: Selection, targets: Targets, seconds: float, output: Path | None, *, strict: bool) -> None:
    """Learn for so many seconds, 0 until Ctrl-C, and write the baseline, to standard output if output is None.

    Raises:
        GadgetError: No agent can do it.
        Incomplete: Something was lost, and that was not to be.

    """
    request = Request(GADGET, strict=strict, selection=selection, timeout=seconds)
    first = pb.RunRequest(learn=pb.Learn(selection=pb.Selection(**selection.message())))

    def check(node: str) -> Check:
        return LearnCheck(node)

    learned = Learned()
    streams = Streams(targets, first, check)
    session = LearnSession(request, learned, targets)
    with stops(streams, seconds), streams:
        try:
            session.run(streams, len(targets), streams.stop, live=True)
        finally:
            if session.has_begun:
                _write(learned, learned.baseline(session.heard_ns, seconds), output)


def _write(learned: Learned, found: Baseline, output: Path | None) -> None:
    if output and output.suffix == ".json":
        text = orjson.dumps(baseline.described(found), option=orjson.OPT_INDENT_2).decode() + "\n"
    else:
        text = baseline.write(found)
    if output is None:
        write_lines(text)
    else:
        new = output.with_name(f"{output.name}.new")
        with suppress(FileNotFoundError):
            new.unlink()
        new.write_text(text)
        new.replace(output)
        workloads = {who[:2] for who in found}
        tell(f"{counted(len(workloads), 'workload')} in {output}")
    for each in baseline.unjudged(found):
        tell(f"warning: more {each} than a baseline keeps: they will not be judged")
    if learned.crowded:
        tell(f"warning: without {counted(learned.crowded, 'container')}: there were too many")
