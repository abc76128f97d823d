"""One standing run: a thread that subscribes to a run and keeps what comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from agent.containers.identity import Container
from agent.containers.tracker import Tracker
from agent.files import read_text
from agent.limits import RunBudget
from agent.run.batch import Batch
from agent.run.replies import batch_reply, container_messages, started_reply
from agent.run.runs import Runs, begin
from agent.run.subscriber import Subscriber
from agent.selection import Selection
from agent.standing.counting import Counting
from agent.standing.history import History
from agent.threads import Worker
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted, GadgetError
from gadget.recorded import NOT_KEPT

log = logging.getLogger(__name__)

#: Containers of a file that are named again at the beginning of the next. Of tables, about so many are known by name.
NAMED = 4096


class StandingRun:
    """Goes on until it is closed. What it kept stays, and another one of the same folder goes on with it."""

    def __init__(
        self, run: pb.Standing, file: str, folder: Path, keep: int, again_seconds: float, runs: Runs, node: str,
        tracker: Tracker, budget: RunBudget, make_room: Callable[[], None], named: int = NAMED,
    ) -> None:  # fmt: skip
        """Begin. file defines it, if one does; make_room is called when more has been kept.

        again_seconds: how long after it could not go on it is tried again. named: containers whose names are known.
        """
        self.run, self.file = run, file
        self._again_seconds, self._named = again_seconds, named
        self._node, self._tracker, self._runs, self._budget = node, tracker, runs, budget
        self._make_room = make_room
        self._gadget = catalog.find(run.start.gadget)
        self._selection = Selection.of(run.start.selection)
        self._subscriber: Subscriber | None = None
        self._names: dict[int, pb.Container] = {}
        self.counting = Counting(run, self._gadget, self._living)
        self.history = History(folder, run.start.gadget, node, keep)
        self.since_ns = _since(folder)
        self.rate = 0.0
        self._losses: list[pb.Loss] = []  # all of the subscriber
        self._missed = 0  # events since it began that could not be kept
        self._untold = False  # whether what is kept does not tell of some of them yet
        self._why_not = ""
        self._why_not_kept = ""
        self.worker = Worker(f"standing-{run.name}", self._work)
        try:
            self.worker.start()
        except RuntimeError as error:  # no more threads may be made
            self.history.close()
            raise Exhausted(str(error)) from None

    def _living(self) -> list[Container]:
        return [each.container for each in self._tracker.containers() if each.container and not each.ended]

    @property
    def problem(self) -> str:
        """Why it does not run, or not all is kept; empty if it does."""
        return self.worker.problem or self._why_not or self._why_not_kept

    @property
    def lost(self) -> int:
        """Events that were lost since this agent began it."""
        subscriber = self._subscriber
        return self._missed + (subscriber.lost if subscriber else 0)

    def status(self) -> pb.StandingStatus:
        """How it gets on."""
        events, size, oldest = self.history.kept
        return pb.StandingStatus(
            run=self.run, file=self.file, since_ns=self.since_ns, events=self.history.events, rate=self.rate,
            kept_events=events, kept_bytes=size, oldest_ns=oldest, overwritten=self.history.overwritten,
            lost=self.lost, problem=self.problem,
        )  # fmt: skip

    def close(self) -> None:
        """End it, after what has happened by now."""
        if subscriber := self._subscriber:
            subscriber.finish()
        self.worker.stop()
        self.history.close()

    def _work(self, worker: Worker) -> None:
        while not worker.stopping:
            try:
                self._follow(worker)
                self._why_not = "" if worker.stopping else "it has ended: begun anew"
            except (GadgetError, OSError) as error:
                if self._why_not != str(error):
                    log.warning("%s: %s", self.run.name, error)
                self._why_not = str(error)
            worker.wait(self._again_seconds)

    def _follow(self, worker: Worker) -> None:
        start = self.run.start
        subscriber = self._runs.subscribe(
            start.SerializeToString(deterministic=True),
            lambda: begin(
                self._gadget,
                dict(start.parameters),
                self._tracker,
                self._selection,
                self._budget,
                start.ring_bytes,
                start.interval_ns,
                masker=self._runs.masker,
            ),
        )
        with closing(subscriber):
            self._subscriber, self._why_not = subscriber, ""
            self._losses, self._missed, self._untold = [], 0, True
            try:
                self.history.interrupt(f"{self._node}: the agent was not there")
                self._write(None, subscriber)
                log.info("%s: %s began", self.run.name, start.gadget)
                for batch in subscriber.batches():
                    worker.beat()
                    self._keep(batch, subscriber)
                    if worker.stopping:
                        subscriber.finish()
            finally:
                self._subscriber = None

    def _keep(self, batch: Batch, subscriber: Subscriber) -> None:
        self.rate = subscriber.rate
        sections = [*batch.sections]  # the reply takes them out, one by one
        names = self._names  # a new file begins with none, but those of this batch have theirs
        if self._gadget.has_tables:  # they are counted, not kept
            self._names |= {each.cgroup_id: each for each in container_messages(batch.containers)}
        elif batch.sections or batch.containers or batch.losses or self._untold:
            self._write(batch_reply(self._node, batch), subscriber)
        self.counting.take(sections, names)
        if self._gadget.has_tables and len(self._names) > self._named:
            subscriber.forget()  # those that are there still are named again
            for cgroup in [*self._names][: self._named // 2]:
                del self._names[cgroup]
        if not self._untold:  # else the next agent is to tell that what came since was not watched
            with suppress(OSError):
                self.history.beat(batch.read_ns)

    def _write(self, reply: pb.RunReply | None, subscriber: Subscriber) -> None:
        """Keep a reply, in a new file if need be, or count what cannot be kept."""
        for each in reply.batch.containers if reply else ():
            if len(self._names) < self._named:
                self._names[each.cgroup_id] = each
        try:
            if reply and reply.batch.losses:
                self._losses = list(reply.batch.losses)
            if self.history.is_full():
                subscriber.forget()
                self._begin_file()
            if reply:
                if self._missed and (self._untold or reply.batch.losses):
                    del reply.batch.losses[:]
                    reply.batch.losses.extend(self._all_losses())
                self.history.append(reply)
            self._untold, self._why_not_kept = False, ""
        except OSError as error:
            subscriber.forget()
            self._missed += sum(section.count for section in reply.batch.sections) if reply else 0
            self._untold = True
            self._why_not_kept = f"{self._missed} events could not be kept: {error.strerror}"

    def _all_losses(self) -> list[pb.Loss]:
        return [*self._losses, *([pb.Loss(reason=NOT_KEPT, count=self._missed)] if self._missed else [])]

    def _begin_file(self) -> None:
        started = started_reply(self._node, self._gadget, self._tracker, self._selection)
        living = {each.cgroup_id for each in started.started.containers}
        started.started.containers.extend(each for key, each in self._names.items() if key not in living)
        started.started.received_ns = started.sent_ns
        self.history.begin(started, self._all_losses())
        self._names = {}
        self._make_room()


def _since(folder: Path) -> int:
    """When the run of a folder began, which is kept there."""
    path = folder / "since"
    with suppress(OSError, ValueError):
        return int(read_text(path))
    now = time.time_ns()
    with suppress(OSError):
        path.write_text(str(now))
    return now
