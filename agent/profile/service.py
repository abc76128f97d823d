"""What clients ask of samples: to take them, until they want no more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from agent.run.batch import Batch
from agent.run.replies import container_messages, loss_messages, started_reply, summary_reply
from agent.run.runs import begin, key_of
from agent.selection import Selection
from agent.service import Active, Running, ServiceContext
from agent.threads import Bounded
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.errors import Exhausted

if TYPE_CHECKING:
    from agent.profile.kept import FileCache
    from agent.profile.profiling import Profiling

log = logging.getLogger(__name__)

#: The gadgets whose rows have stacks, as requests call them, and the field that says how much there was of each.
GADGETS = {"profile": "samples", "offcpu": "time"}

#: Clients at once: each has a table of samples, and what it was told of functions.
MOST_CLIENTS = 4
#: Containers whose files may keep the agent waiting at once.
_THREADS = 16
#: Tables that wait for names, of 4 MiB at most: two seconds.
AHEAD = 8


class Profiles(Running):
    """Has stacks counted, and names the functions in them."""

    def __init__(self, context: ServiceContext) -> None:
        """For clients of this agent."""
        self._context = context
        self._threads = Bounded("profile", _THREADS)
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)
        self._kept: WeakValueDictionary[str, FileCache] = WeakValueDictionary()

    def beginnings(self) -> Mapping[str, Callable[[Any, Active], Iterator[pb.RunReply]]]:
        """A client may have samples taken, or waits counted."""
        return {name: partial(self._profile, name) for name in GADGETS}

    def _profile(self, name: str, request: pb.Profile, active: Active) -> Iterator[pb.RunReply]:
        from agent.profile.kept import FileCache  # and all that names need, which an agent without does without
        from agent.profile.profiling import Profiling

        if not self._slots.acquire(blocking=False):
            raise Exhausted(f"{MOST_CLIENTS} clients have stacks counted on {self._context.node} already: end one")
        try:
            kept = self._kept.setdefault("files", FileCache())  # of all clients together, as long as there is one
            gadget = catalog.find(name)
            profiling = Profiling(gadget, GADGETS[name], kept, self._threads, self._context.tracker.proc)
            yield from self._replies(gadget, request, active, profiling)
        finally:
            self._slots.release()

    def _replies(
        self, gadget: Gadget, request: pb.Profile, active: Active, profiling: Profiling
    ) -> Iterator[pb.RunReply]:
        context, selection = self._context, Selection.of(request.selection)
        start = pb.Start(gadget=gadget.name, parameters=request.parameters, selection=request.selection)
        subscriber = context.runs.subscribe(
            key_of(start), lambda: begin(gadget, dict(start.parameters), context.tracker, selection, context.budget)
        )
        with closing(subscriber):
            log.info("%s: started with %s", gadget.name, dict(request.parameters))
            yield started_reply(context.node, None, context.tracker, selection)
            for batch in _ahead(subscriber.batches()):
                if not active():
                    subscriber.finish()
                made = pb.Batch(
                    samples=profiling.take(batch),
                    containers=container_messages(batch.containers),
                    losses=loss_messages(batch.losses or []),
                )
                yield pb.RunReply(node=context.node, batch=made, sent_ns=batch.read_ns)
            yield summary_reply(context.node, subscriber)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same, read some way ahead: the table of samples is emptied in time also while names are being read."""
    waiting: SimpleQueue[Batch | Exception | None] = SimpleQueue()
    room, over = threading.Semaphore(AHEAD), threading.Event()

    def read() -> None:
        try:
            for batch in batches:
                room.acquire()
                if over.is_set():
                    return
                waiting.put(batch)
            waiting.put(None)
        except Exception as error:  # whatever ended the run: the client is to be told
            waiting.put(error)

    threading.Thread(target=read, name="profile-ahead", daemon=True).start()
    try:
        while (found := waiting.get()) is not None:
            if isinstance(found, Exception):
                raise found
            room.release()
            yield found
    finally:
        over.set()
        room.release()
