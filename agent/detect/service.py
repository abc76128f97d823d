"""What clients ask of rules on this node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from agent.detect.rules import load
from agent.run.replies import started_reply
from agent.run.run import BEAT_SECONDS
from agent.selection import Selection
from agent.service import Active, Context, Running
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted

if TYPE_CHECKING:
    from agent.detect.judging import Judging

#: Clients whose rules are asked at once: each has a thread, its rules, and what they know of processes.
MOST_CLIENTS = 8
#: How often one who waits for alerts looks whether he still should.
LOOK_SECONDS = 0.25


class Detect(Running):
    """Judges by the rules of clients."""

    def __init__(self, context: Context) -> None:
        """For clients of this agent."""
        self._context = context
        self._slots = BoundedSemaphore(MOST_CLIENTS)

    def beginnings(self) -> Mapping[str, Callable[[pb.Detect, Active], Iterator[pb.RunReply]]]:
        """A client may have its own rules judge."""
        return {"detect": self._detect}

    def _detect(self, request: pb.Detect, active: Active) -> Iterator[pb.RunReply]:
        if not self._slots.acquire(blocking=False):
            raise Exhausted(f"rules of {MOST_CLIENTS} clients are asked on {self._context.node} already: end one first")
        try:
            yield from self._stream(request, active)
        finally:
            self._slots.release()

    def _stream(self, request: pb.Detect, active: Active) -> Iterator[pb.RunReply]:
        from agent.detect.judging import Judging

        node, selection = self._context.node, Selection.of(request.selection)
        rules = load(((each.name, each.text) for each in request.files), request.rules)
        judging = Judging(self._context, rules, selection, first=request.first, host=request.host)
        sent = 0
        with closing(judging):
            yield started_reply(node, None, self._context.tracker, selection)
            for reply in _replies(node, judging, active):
                sent += len(reply.alerts.alerts)
                yield reply
            if judging.error:
                raise judging.error
            summary = pb.Summary(
                events=sent, losses=judging.losses(), containers=judging.named(), undecided=judging.undecided
            )
            yield pb.RunReply(node=node, summary=summary, sent_ns=time.time_ns())


def _replies(node: str, judging: Judging, active: Active) -> Iterator[pb.RunReply]:
    """Alerts as they come, an empty message at least each second, until nobody wants more."""
    told: list[pb.Loss] = []
    next_beat = time.monotonic() + BEAT_SECONDS
    while not judging.is_over:
        if not active():
            judging.finish()
        now_ns = time.time_ns()
        alerts, losses = judging.take(LOOK_SECONDS), judging.losses()
        if not alerts and losses == told and time.monotonic() < next_beat:
            continue
        reply = pb.RunReply(node=node, sent_ns=now_ns)
        reply.alerts.judged = judging.judged
        reply.alerts.alerts.extend(alerts)
        reply.alerts.containers.extend(judging.named())
        if losses != told:
            reply.alerts.losses.extend(losses)
            told = losses
        yield reply
        next_beat = time.monotonic() + BEAT_SECONDS
