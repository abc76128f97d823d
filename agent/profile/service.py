"""What clients ask of samples: to take them, until they want no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from agent.run.replies import container_messages, loss_messages, started_reply, summary_reply
from agent.run.runs import begin, key_of
from agent.selection import Selection
from agent.service import Active, Context, Running
from agent.threads import Bounded
from gadget import catalog
from gadget._generated import gadget_pb2 as pb

#: Containers whose files may keep the agent waiting at once.
_THREADS = 16


class Profiles(Running):
    """Takes samples of stacks, and names the functions in them."""

    def __init__(self, context: Context) -> None:
        """For clients of this agent."""
        self._context = context
        self._threads = Bounded("profile", _THREADS)

    def beginnings(self) -> Mapping[str, Callable[[Any, Active], Iterator[pb.RunReply]]]:
        """A client may have samples taken."""
        return {"profile": self._profile}

    def _profile(self, request: pb.Profile, active: Active) -> Iterator[pb.RunReply]:
        from agent.profile.kept import Kept  # and all that names need, which an agent without does without
        from agent.profile.profiling import GADGET, Profiling

        context, gadget, selection = self._context, catalog.find(GADGET), Selection.of(request.selection)
        start = pb.Start(gadget=GADGET, parameters=request.parameters, selection=request.selection)
        subscriber = context.runs.subscribe(
            key_of(start), lambda: begin(gadget, dict(start.parameters), context.tracker, selection, context.budget)
        )
        with closing(subscriber):
            profiling = Profiling(Kept(), self._threads, context.tracker.proc)
            yield started_reply(context.node, None, context.tracker, selection)
            for batch in subscriber.batches():
                if not active():
                    subscriber.finish()
                made = pb.Batch(
                    samples=profiling.take(batch),
                    containers=container_messages(batch.containers),
                    losses=loss_messages(batch.losses or []),
                )
                yield pb.RunReply(node=context.node, batch=made, sent_ns=batch.read_ns)
            yield summary_reply(context.node, subscriber)
