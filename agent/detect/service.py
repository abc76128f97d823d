"""What clients ask of rules on this node: to judge by theirs, and for the alerts of the agent's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from agent.detect.rules import load
from agent.detect.settings import GADGET
from agent.run.replies import started_reply
from agent.run.run import BEAT_SECONDS
from agent.selection import Selection
from agent.service import Active, Number, Running, ServedCall, ServiceContext
from agent.standing.service import remove_left
from agent.threads import Worker
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted, Unsupported

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from agent.detect.always import Always
    from agent.detect.judging import Judging
    from agent.detect.learning import Learning
    from agent.detect.waiting import WithIds

#: Clients whose rules are asked at once: each has a thread, its rules, and what they know of processes.
MOST_CLIENTS = 8
#: How often one who waits for alerts looks whether he still should.
LOOK_SECONDS = 0.25


class Detect(Running):
    """Judges by the rules of clients, and by the agent's own, if it has any."""

    def __init__(self, context: ServiceContext, always: Always | None = None, why_not: str = "") -> None:
        """For clients of this agent. always: its own rules; why_not: why there are none, if there were to be."""
        self._context, self._always, self._why_not = context, always, why_not
        self._slots = BoundedSemaphore(MOST_CLIENTS)

    def describe(self) -> str:
        """The state of the agent's own rules."""
        if self._always:
            return self._always.describe()
        return f"off: {self._why_not}" if self._why_not else ""

    def problem(self) -> str:
        """Why its own rules do not judge, or not all, or their alerts are not kept."""
        return self._always.problem() if self._always else ""

    def losses(self) -> Mapping[str, int]:
        """What its own rules should have judged, and have not."""
        return self._always.losses() if self._always else {}

    def numbers(self) -> Iterator[Number]:
        """How many events its own rules judged, and their alerts by rule."""
        return self._always.numbers() if self._always else iter(())

    @property
    def workers(self) -> Sequence[Worker]:
        """The thread of its own rules."""
        return [self._always.worker] if self._always else []

    def beginnings(self) -> Mapping[str, Callable[[Any, Active], Iterator[pb.RunReply]]]:
        """A client may have its own rules judge, learn what containers do, or read the alerts of the agent's rules."""
        return {"detect": self._detect, "learn": self._learn, "kept_alerts": self._kept}

    def calls(self) -> Sequence[ServedCall]:
        """A client may ask for one kept alert with all that led to it."""
        return (ServedCall("KeptAlert", self._kept_alert, reads=True),)

    def end(self) -> None:
        """End, and remove the kept alerts, of an earlier agent that had rules, too."""
        self.close()
        self._always, self._why_not = None, "it has been removed there"
        remove_left(self._context.state / GADGET)

    def close(self) -> None:
        """End; what was kept stays."""
        if self._always:
            self._always.close()

    def _on(self) -> Always:
        if self._always is None:
            why = self._why_not or "give it rules: gadget-agent --detect DIR, or deploy --detect default"
            raise Unsupported(f"no rules always judge on {self._context.node}: {why}")
        return self._always

    def _kept(self, request: pb.KeptAlerts, active: Active) -> Iterator[pb.RunReply]:
        yield from self._on().read(request, active)

    def _kept_alert(self, request: pb.KeptAlertRequest, active: Active) -> pb.KeptAlertReply:
        return self._on().kept.answer(request)

    def _detect(self, request: pb.Detect, active: Active) -> Iterator[pb.RunReply]:
        with self._slot():
            yield from self._stream(request, active)

    def _learn(self, request: pb.Learn, active: Active) -> Iterator[pb.RunReply]:
        with self._slot():
            from agent.detect.learning import Learning

            selection = Selection.of(request.selection)
            with closing(Learning(self._context, selection)) as learning:
                yield started_reply(self._context.node, None, self._context.tracker, selection)
                yield from _learnt(self._context.node, learning, active)
                if learning.error:
                    raise learning.error
                summary = pb.Summary(losses=learning.losses(), undecided=learning.undecided)
                yield pb.RunReply(node=self._context.node, summary=summary, sent_ns=time.time_ns())

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Take one of the slots for clients. Exhausted if none is free."""
        if not self._slots.acquire(blocking=False):
            raise Exhausted(f"rules of {MOST_CLIENTS} clients are asked on {self._context.node} already: end one first")
        try:
            yield
        finally:
            self._slots.release()

    def _stream(self, request: pb.Detect, active: Active) -> Iterator[pb.RunReply]:
        from agent.detect.judging import Judging
        from agent.detect.waiting import WithIds

        node, selection = self._context.node, Selection.of(request.selection)
        rules = load(((each.name, each.text) for each in request.files), request.rules)
        judging = Judging(
            self._context, rules, selection, first=request.first, host=request.host, record=request.record
        )
        sent = 0
        with closing(judging):
            log.info("detect: %d rules of a client began", len(rules.rules))
            gadget = catalog.find(GADGET) if request.record else None
            started = started_reply(node, gadget, self._context.tracker, selection)
            started.started.parameters.update(judging.parameters if request.record else {})
            yield started
            for reply in _replies(node, judging, WithIds(self._always), active):
                sent += len(reply.batch.alerts)
                yield reply
            if judging.error:
                raise judging.error
            summary = pb.Summary(
                events=sent, losses=judging.losses(), containers=judging.named(), undecided=judging.undecided
            )
            yield pb.RunReply(node=node, summary=summary, sent_ns=time.time_ns())


def _replies(node: str, judging: Judging, named: WithIds, active: Active) -> Iterator[pb.RunReply]:
    """Alerts as they come, an empty message at least each second, until nobody wants more."""
    from agent.detect.replies import alerts_reply

    told: list[pb.Loss] = []
    next_beat = time.monotonic() + BEAT_SECONDS
    while not judging.is_over:
        if not active():
            judging.finish()
        now_ns = time.time_ns()
        taken = judging.take(LOOK_SECONDS)
        alerts, losses = named(taken, rest=judging.is_over), judging.losses()
        yield from judging.recorded()
        if not alerts and losses == told and time.monotonic() < next_beat:
            continue
        yield alerts_reply(node, now_ns, alerts, judging, losses if losses != told else ())
        told = losses
        next_beat = time.monotonic() + BEAT_SECONDS


def _learnt(node: str, learning: Learning, active: Active) -> Iterator[pb.RunReply]:
    """What is new of containers, at least one message each second, until nobody wants more; then all that is left."""
    next_beat = time.monotonic()
    while not learning.is_over:
        if not active():
            learning.finish()
        if time.monotonic() < next_beat:
            time.sleep(LOOK_SECONDS)
            continue
        next_beat = time.monotonic() + BEAT_SECONDS
        for learnt in [*learning.take()] or [[]]:
            yield _learnt_reply(node, learning, learnt)
    for learnt in learning.take(whole=True):
        yield _learnt_reply(node, learning, learnt)


def _learnt_reply(node: str, learning: Learning, learnt: list[pb.Learnt]) -> pb.RunReply:
    batch = pb.Batch(learnt=learnt, judged=learning.judged, losses=learning.losses())
    return pb.RunReply(node=node, batch=batch, sent_ns=time.time_ns())
