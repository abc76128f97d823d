"""One reader of a run: its own queue, names, losses and back-pressure."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from agent.containers.identity import Container
from agent.run.batch import Batch, Loss, Packed, column
from gadget.catalog import Gadget

#: How many bytes wait for a subscriber that is slower than others of its run. It loses what does not fit.
QUEUE_BYTES = 2 << 20
#: The bytes that a batch takes in the queue beside its rows.
BATCH_BYTES = 4096
#: Cgroups whose names a reader is remembered to have; after that they are given again.
NAMED = 16_384
#: How many containers have a count each of what was lost because the subscriber was slow.
LOST = 1024
TOO_SLOW = "reader too slow"


class Publisher(Protocol):
    """What a subscriber needs of its run."""

    gadget: Gadget
    rate: float
    is_blocked: bool

    def wake(self) -> None:
        """Something was taken, or is to end."""

    def look(self) -> None:
        """Give a batch at once."""

    def leave(self, subscriber: Subscriber) -> None:
        """It wants no more."""


class Summary(NamedTuple):
    """What a subscriber was given in all."""

    events: int
    losses: list[Loss]
    containers: Mapping[int, Container]
    undecided: int


class Subscriber:
    """Gets the batches of a run from when it was made until finish, or the run's end."""

    def __init__(self, run: Publisher, before: Sequence[Loss], undecided: int) -> None:
        """Made by the run, which has lost and not decided so much before."""
        self._run = run
        self._before = {(loss.reason, loss.cgroup_id): loss.count for loss in before}
        self._losses: list[Loss] = []
        self._undecided_before, self._undecided = undecided, undecided
        self._dtype = run.gadget.schema.dtype(run.gadget.schema.text_offset)
        self._queue: deque[Batch] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._named: set[int] = set()
        self._unnamed: dict[int, Container] = {}
        self._missed: Counter[int] = Counter()
        self._lost_here = False
        self._error: Exception | None = None
        self._ended = False
        #: set by finish
        self.ending = False
        self.started_ns = time.time_ns()
        self.events = 0

    def batches(self) -> Iterator[Batch]:
        """Batches as they come, an empty one at least each second, until the end. The error that ended the run."""
        while True:
            with self._changed:
                while not (self._queue or self._ended):
                    self._changed.wait()
                if not self._queue:
                    if self._error:
                        raise self._error
                    return
                batch = self._queue.popleft()
                self._queued -= _size(batch)
            if self._run.is_blocked:
                self._run.wake()
            self.events += sum(section.count for section in batch.sections)
            yield batch

    def look(self) -> None:
        """Let a batch come at once, of what has happened by now. Callable from any thread."""
        self._run.look()

    def finish(self) -> None:
        """End the batches, after what has happened by now. Callable from any thread, and again."""
        self.ending = True
        self._run.wake()

    def forget(self) -> None:
        """Forget which containers it was told of: they are told again when they come."""
        with self._changed:
            self._named.clear()

    def close(self) -> None:
        """Go away at once; the run of which this is the last one ends."""
        self._run.leave(self)

    def summary(self) -> Summary:
        """What it was given, and what it lost. Complete once its batches have ended."""
        with self._changed:
            losses, unnamed = self._own_losses(), self._take_names(self._unnamed)
        return Summary(self.events, losses, unnamed, self._undecided - self._undecided_before)

    @property
    def rate(self) -> float:
        """Events per second of its run, of late."""
        return self._run.rate

    @property
    def lost(self) -> int:
        """Events that it lost so far."""
        with self._changed:
            return sum(loss.count for loss in self._own_losses())

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for it."""
        return not self._queue

    def offer(self, batch: Batch, undecided: int, *, may_lose: bool) -> None:
        """Give it a batch. If it has no room and other subscribers go on, the batch is lost to it."""
        with self._changed:
            self._undecided = undecided
            if batch.losses is not None:
                self._losses = batch.losses
            if may_lose and self._queued >= QUEUE_BYTES:
                self._lose(batch.sections)
                self._lost_here = True
                if len(self._unnamed) < NAMED:
                    self._unnamed.update(batch.containers)
                return
            losses = self._own_losses() if batch.losses is not None or self._lost_here else None
            self._lost_here = False
            own = Batch(list(batch.sections), self._take_names({**self._unnamed, **batch.containers}), losses)
            own.read_ns, own.whole = batch.read_ns, batch.whole
            self._unnamed = {}
            self._queue.append(own)
            self._queued += _size(own)
            self._changed.notify()

    def end(self, error: Exception | None = None) -> None:
        """No more batches come."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def _lose(self, sections: Sequence[Packed]) -> None:
        for section in sections:
            rows = np.frombuffer(section.rows, np.uint8).reshape(section.count, section.record_size)
            cgroups, counts = np.unique(column(rows, self._dtype, "cgroup_id"), return_counts=True)
            for cgroup, count in zip(cgroups.tolist(), counts.tolist(), strict=True):
                room = cgroup in self._missed or len(self._missed) < LOST
                self._missed[cgroup if room else 0] += count

    def _own_losses(self) -> list[Loss]:
        """What was lost since it came."""
        since = [
            Loss(loss.reason, loss.cgroup_id, loss.count - self._before.get((loss.reason, loss.cgroup_id), 0))
            for loss in self._losses
        ]
        own = [Loss(TOO_SLOW, cgroup, count) for cgroup, count in sorted(self._missed.items())]
        return [loss for loss in since if loss.count > 0] + own

    def _take_names(self, containers: Mapping[int, Container]) -> dict[int, Container]:
        """The containers that it has not been told of. They are told now."""
        if len(self._named) >= NAMED:
            self._named.clear()
        news = {cgroup: container for cgroup, container in containers.items() if cgroup not in self._named}
        self._named.update(news)
        return news


def _size(batch: Batch) -> int:
    return BATCH_BYTES + sum(len(section.rows) for section in batch.sections)
