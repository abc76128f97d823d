"""Rules at work: events of the gadget `detect` are judged in a thread, and the alerts wait to be taken."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from agent.clock import clock_offset
from agent.containers.identity import Container
from agent.detect.choice import NOT_KNOWN, AlertChoice, Chosen, KnownLabels
from agent.detect.past import Mask, Pasts, id_of, masked_text
from agent.detect.recorder import EventRecorder
from agent.detect.settings import GADGET
from agent.detect.surroundings import Surroundings
from agent.detect.waiting import Waiting
from agent.detect.watching import Watching
from agent.run.batch import Batch
from agent.run.replies import container_messages
from agent.selection import Selection
from agent.service import ServiceContext
from agent.traceloop.redact import Redactor
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported
from gadget.rules import live, messages
from gadget.rules.alerts import INTERNAL, Alert
from gadget.rules.grouping import Groups
from gadget.rules.ruleset import Ruleset

#: The rule of alerts that tell of losses, and how often they do at most.
LOST = "Events or alerts were lost"
LOSSES_NS = 10 * 1_000_000_000
TOO_SLOW = "alerts came too fast for their reader"
NOT_RECORDED = "recording too fast for its reader"
TOO_LARGE = "alerts were too large"
#: Containers that wait to be named; more of them are named when they have alerts.
MOST_NAMED = 16_384
#: What a program was told by others.
_TEXTS = ("name", "command", "path")


class Judging(Watching):
    """Judges the events of this node until it is closed. One reader takes the alerts, and what comes with them."""

    def __init__(
        self,
        context: ServiceContext,
        rules: Ruleset,
        selection: Selection,
        *,
        first: bool,
        host: bool,
        past: bool = False,
        record: bool = False,
        before: Judging | None = None,
    ) -> None:
        """Begin. selection, host: whose alerts are wanted; past: with what led to them; record: the events, too.

        before is one that this one follows: what it knows of names of addresses stays.

        Raises:
            Unsupported: This kernel cannot, or the choice needs labels that this agent does not have, or events would
                have what it masks.
            Exhausted: There is no memory for one more run.

        """
        super().__init__(GADGET, context, selection)
        if record and context.redact:
            raise Unsupported(f"{context.node}: its agent has --redact, and a recording would have what that masks")
        known_domains = before._surroundings.known_domains if before else None
        surroundings = Surroundings(context, domains=record or live.asks(rules, *live.DOMAINS), known=known_domains)
        schema = catalog.find(GADGET).schema
        self._recorder = EventRecorder(surroundings, context.tracker, selection, schema) if record else None
        known = self._recorder or surroundings
        self._judge = live.Judge(rules, schema, known, first=first, host=host, remember=past)
        #: what the gadget is set to
        self.parameters = self._judge.recorded if record else self._judge.parameters
        self._choice = AlertChoice(self._tracker, selection, host=host)
        self._groups = None if first else Groups()
        self._mask = Redactor(context.redact).mask if context.redact else None
        self._pasts = Pasts(context, rules, surroundings, self._mask) if past else None
        self._waiting = Waiting()
        self._told, self._told_ns = Counter[tuple[str, int]](), 0
        self._named: dict[int, Container] = {}
        self._recording = threading.Lock()
        #: whether rules ask about labels of pods, or may later; and which containers there were when they last did
        self._asks_labels = context.tracker.knows_labels and (record or live.asks_labels(rules))
        self._generation = self._tracker.generation
        self._begin(surroundings, self.parameters, KnownLabels() if self._asks_labels else None)

    @property
    def judged(self) -> int:
        """Events that were judged so far."""
        return self._judge.judged

    def go_on_from(self, before: Judging) -> None:
        """Take over what an earlier Judging knows of containers."""
        self._judge.go_on_from(before._judge)

    @property
    def undecided(self) -> int:
        """How many alerts were given without knowing whether the client wants their container."""
        return self._choice.undecided

    @property
    def rate(self) -> float:
        """Events per second, of late."""
        return self._subscriber.rate

    @property
    def is_over(self) -> bool:
        """Whether the end was reached and every alert has been taken."""
        return self._waiting.is_over

    def take(self, seconds: float) -> list[pb.Alert]:
        """The waiting alerts. If none wait, the alerts that come within seconds."""
        return self._waiting.take(seconds)

    def named(self) -> list[pb.Container]:
        """The containers that the reader has not been told of."""
        named, self._named = self._named, {}
        return container_messages(named)

    def losses(self) -> list[pb.Loss]:
        """All that was lost so far: events, and alerts."""
        own = [pb.Loss(reason=reason, count=count) for reason, count in sorted(self._lost.items())]
        missed = sorted(self._choice.missed.copy().items())
        own += [pb.Loss(reason=NOT_KNOWN, cgroup_id=cgroup, count=count) for cgroup, count in missed]
        return [*self._run_losses, *own]

    def _look_before(self) -> None:
        if self._recorder:
            self._recorder.begin()
        self._judge.begin()

    def _take(self, batch: Batch) -> None:
        if batch.containers and len(self._named) < MOST_NAMED:
            self._named = {**self._named, **batch.containers}
        super()._take(batch)
        self._put(self._lost_since(batch.read_ns, LOSSES_NS))

    def _look(self, batch: Batch) -> None:
        if self._asks_labels and self._generation != (now := self._tracker.generation):
            self._generation = now
            self._judge.containers_changed()
        if self._recorder is None:
            self._put(self._choice(self._grouped(self._judge.judge(batch.sections, clock_offset()), batch.read_ns)))
            return
        sections, offset = self._recorder.note(batch.sections), clock_offset()
        try:
            alerts = self._judge.judge(sections, offset)
        finally:
            with self._recording:
                missed = self._recorder.put(self._context.node, sections, offset, batch.read_ns)
            if missed:
                self._lost[NOT_RECORDED] += missed
        self._put(self._choice(self._grouped(alerts, batch.read_ns)))

    def recorded(self) -> list[pb.RunReply]:
        """The events that have not been taken, if they are recorded."""
        if self._recorder is None:
            return []
        with self._recording:
            return self._recorder.taken()

    def _take_rest(self) -> None:
        self._put(self._choice(self._groups.rest() if self._groups else ()))
        self._put(self._choice.rest())
        self._put(self._lost_since(time.time_ns(), 0))

    def _end(self) -> None:
        self._waiting.close()

    def _lost_since(self, now_ns: int, least_ns: int) -> Iterator[Chosen]:
        """What was lost since losses were last told, as alerts by reason and container; none if that was just now."""
        if now_ns - self._told_ns < least_ns:
            return
        for loss in self.losses():
            before = self._told[loss.reason, loss.cgroup_id]
            if loss.count > before:
                self._told_ns = now_ns
                self._told[loss.reason, loss.cgroup_id] = loss.count
                cgroup = self._tracker.resolve(loss.cgroup_id) if loss.cgroup_id else None
                yield lost(loss.reason, loss.count - before, now_ns), cgroup.container if cgroup else None

    def _grouped(self, alerts: Iterable[Alert], now_ns: int) -> Iterator[Alert]:
        """Equal alerts as one, unless rules are asked as Falco asks them."""
        if self._groups is None:
            yield from alerts
            return
        for alert in alerts:
            yield from self._groups.add(alert)
        yield from self._groups.due(now_ns)

    def _put(self, chosen: Iterable[Chosen]) -> None:
        for alert, container in chosen:
            message, alert = pb.Alert(), replace(alert, id=id_of(self._context.node, alert))
            if not messages.fill(message, masked(alert, self._mask) if self._mask else alert):
                self._lost[TOO_LARGE] += alert.rule.source != INTERNAL
                continue
            if self._pasts:
                message.past = self._pasts.of(alert)
            if container:
                message.container.CopyFrom(container_messages({alert.cgroup_id: container})[0])
            if not self._waiting.put(message):
                self._lost[TOO_SLOW] += alert.rule.source != INTERNAL


def lost(reason: str, count: int, now_ns: int) -> Alert:
    """An alert that something was lost: of a rule that no file has, from a source of its own, as Falco does it."""
    said = messages.SentRule(LOST, "Warning", INTERNAL, frozenset())
    return Alert(said, now_ns, f"{LOST} | count={count} reason={reason}", {"lost.count": count, "lost.reason": reason})


def masked(alert: Alert, mask: Mask) -> Alert:
    """The alert with masks over what must not leave this machine."""

    def of(value: Any) -> Any:
        if isinstance(value, str):
            return masked_text(value, mask)
        return [of(each) for each in value] if isinstance(value, list | tuple) else value

    programs = (each._replace(**{name: of(getattr(each, name)) for name in _TEXTS}) for each in alert.ancestry)
    fields = {name: of(value) for name, value in alert.fields.items()}
    return replace(alert, text=of(alert.text), fields=fields, ancestry=tuple(programs))
