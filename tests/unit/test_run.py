"""A run and those who read it: what each gets, what each loses, and when it ends."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import pytest

from agent.containers.identity import Container
from agent.run import subscriber as subscribing
from agent.run.batch import Batch, Loss, Rows, TableInfo
from agent.run.choosing import Choosing
from agent.run.run import IDLE_SECONDS, Run
from agent.run.source import Source as AnySource
from agent.run.subscriber import TOO_SLOW, Subscriber
from gadget import catalog
from gadget.errors import GadgetError
from tests.conftest import wait_until

GADGET = catalog.find("opensnoop")
SIZE = GADGET.schema.text_offset
#: Events of a batch: 40 of them are more than waits for a subscriber that stands still.
EACH = 1000
CONTAINERS = {7: Container("c7", namespace="shop", pod="cart-0"), 8: Container("c8", namespace="shop", pod="web-0")}


def rows_of(cgroup: int, count: int) -> Rows:
    rows = np.zeros((count, SIZE), np.uint8)
    form, offset = GADGET.schema.dtype(SIZE).fields["cgroup_id"][:2]  # type: ignore[index]
    rows[:, offset : offset + 8] = np.array([cgroup], form).view(np.uint8)
    return rows


class Source:
    """Gives what a test puts into it."""

    def __init__(self) -> None:
        self.gadget, self.object = GADGET, None
        self._read, self._write = os.pipe2(os.O_NONBLOCK)
        self._rows: list[Rows] = []
        self.lost: list[Loss] = []
        self.detached = self.closed = False
        self.pressed = False
        self.due, self.whole = math.inf, None
        self.partly: tuple[Rows, TableInfo] | None = None
        self.fds = [self._read]
        self.broken: Exception | None = None

    def put(self, cgroup: int, count: int) -> None:
        self._rows.append(rows_of(cgroup, count))
        os.write(self._write, b".")

    @property
    def waiting(self) -> bool:
        return bool(self._rows)

    def read(self) -> Iterator[Rows]:
        if self.broken:
            raise self.broken
        while self._rows:
            yield self._rows.pop(0)

    def so_far(self) -> tuple[Rows, TableInfo] | None:
        return self.partly

    def detach(self) -> None:
        self.detached = True

    def close(self) -> None:
        if not self.closed:
            os.close(self._read)
            os.close(self._write)
        self.closed = True


class Everything:
    """Chooses all rows."""

    waiting, undecided = False, 0

    def __init__(self, source: Source) -> None:
        self._source = source

    def __call__(self, rows: list[Rows]) -> list[Rows]:
        return rows

    def release(self) -> list[Rows]:
        return []

    def uncounted(self) -> AbstractContextManager[None]:
        return nullcontext()

    def met(self) -> dict[int, Container]:
        return dict(CONTAINERS)

    def losses(self) -> list[Loss]:
        return list(self._source.lost)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def run(source: Source) -> Iterator[Run]:
    run = Run(cast(AnySource, source), cast(Choosing, Everything(source)))
    yield run
    for each in (*run.subscribers, run.first):
        each.close()
    assert source.closed and run.is_closed


class Reader:
    """Reads all that a subscriber gets, in a thread."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.batches: list[Batch] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            self.batches.extend(self.subscriber.batches())
        except GadgetError as error:
            self.error = error

    def rows(self) -> int:
        return sum(section.count for batch in self.batches for section in batch.sections)

    def finish(self) -> Any:
        self.subscriber.finish()
        self.join()
        return self.subscriber.summary()

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_each_gets_all(source: Source, run: Run) -> None:
    """Two who read the same run get each event each, and the names of its containers once."""
    second = run.subscribe()
    assert second
    readers = [Reader(run.first), Reader(second)]
    for _ in range(5):
        source.put(7, 11)
    summaries = [reader.finish() for reader in readers]
    for reader, summary in zip(readers, summaries, strict=True):
        assert reader.rows() == summary.events == 55
        assert [batch.containers for batch in reader.batches if batch.containers] == [CONTAINERS]
        assert summary.losses == []
    assert source.detached


def test_one_ends(source: Source, run: Run) -> None:
    """One who ends has what happened up to then; the other goes on, and the programs with it."""
    second = run.subscribe()
    assert second
    readers = [Reader(run.first), Reader(second)]
    source.put(7, 3)
    assert readers[1].finish().events == 3
    assert not source.detached
    source.put(7, 2)
    assert readers[0].finish().events == 5
    assert source.detached


def test_one_leaves_a_table(source: Source, run: Run) -> None:
    """One who leaves in the midst of an interval has what was counted by then; the others have the interval as a whole."""
    second = run.subscribe()
    assert second
    readers = [Reader(run.first), Reader(second)]
    whole = TableInfo(3, 7 * 10**8, is_cut=True)
    source.partly = rows_of(8, 5), whole
    assert readers[1].finish().events == 5
    assert [batch.whole for batch in readers[1].batches if batch.whole] == [whole]
    assert readers[0].finish().events == 0
    assert [batch.whole for batch in readers[0].batches if batch.whole] == []
    assert source.detached


def test_one_leaves_an_empty_table(source: Source, run: Run) -> None:
    """One who leaves a table in which nothing was counted has an empty table."""
    second = run.subscribe()
    assert second
    reader = Reader(second)
    source.partly = rows_of(8, 0), TableInfo(1, 10**8, is_cut=True)
    assert reader.finish().events == 0
    assert [batch.whole for batch in reader.batches if batch.whole] == [source.partly[1]]


def test_slow_one(source: Source, run: Run) -> None:
    """A reader that stands still costs the other nothing: what it loses is counted as its own, container by container."""
    slow = run.subscribe()
    assert slow
    reader = Reader(run.first)
    for number in range(40):
        source.put(7 + number % 2, EACH)
        wait_until(lambda sent=EACH * (number + 1): reader.rows() == sent, "a batch")
    late = Reader(slow)
    lost = late.finish().losses
    assert sum(loss.count for loss in lost) + late.rows() == 40 * EACH > late.rows()
    assert {loss.reason for loss in lost} <= {TOO_SLOW}
    assert reader.finish().losses == []


def test_names_are_bounded(run: Run) -> None:
    """A client that stands still while containers come and go does not take the agent's memory."""
    slow = run.subscribe()
    assert slow
    for number in range(subscribing.NAMED + 2000):
        slow.offer(Batch([], {number: CONTAINERS[7]}), 0, may_lose=True)
    assert len(slow._unnamed) <= subscribing.NAMED
    assert len(slow.summary().containers) <= subscribing.NAMED


def test_nobody_reads(source: Source, run: Run) -> None:
    """Where nobody reads, nothing is taken from the kernel, which counts what does not fit, container by container."""
    for _ in range(3):
        source.put(7, 1)
    while not run.is_blocked:
        pass
    source.put(7, 5)
    assert source.waiting
    assert Reader(run.first).finish().events == 8


def test_nobody_reads_a_table(source: Source, run: Run) -> None:
    """Where nobody reads, an interval that has ended is not looked at again and again: it costs no CPU."""
    source.put(7, 1)
    wait_until(lambda: run.is_blocked, "a full queue")
    looks: list[float] = []
    source.due = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.worker, "beat", lambda: looks.append(time.monotonic()))
        wait_until(lambda: len(looks) > 3, "some looks")
    assert looks[3] - looks[1] > IDLE_SECONDS
    source.due = math.inf
    assert Reader(run.first).finish().events == 1


def test_losses_since(source: Source, run: Run) -> None:
    """One who comes later is not told of what was lost before."""
    first = Reader(run.first)
    source.lost = [Loss("ring full", 7, 10)]
    source.put(7, 1)
    while not run.first.lost:
        pass
    second = run.subscribe()
    assert second
    late = Reader(second)
    source.lost = [Loss("ring full", 7, 12), Loss("ring full", 8, 1)]
    source.put(7, 1)
    assert late.finish().losses == [Loss("ring full", 7, 2), Loss("ring full", 8, 1)]
    assert first.finish().losses == source.lost


def test_late(source: Source, run: Run) -> None:
    """Once a run is about to end nobody joins it: whoever asks gets a run of their own."""
    reader = Reader(run.first)
    reader.finish()
    assert run.subscribe() is None


def test_it_dies(source: Source, run: Run) -> None:
    """When a run dies, each who reads it is told why, in one line."""
    source.broken = ZeroDivisionError("seven")
    reader = Reader(run.first)
    source.put(7, 1)
    reader.join()
    assert str(reader.error) == "the run of opensnoop died: ZeroDivisionError: seven"


def test_beat(source: Source, run: Run) -> None:
    """Where nothing happens, a reader hears each second that the agent lives."""
    batches = run.first.batches()
    assert next(batches).sections == []
    assert next(batches).sections == []


def test_look(run: Run) -> None:
    """Who asks what has happened by now is told at once, also that it is nothing."""
    reader = Reader(run.first)
    wait_until(lambda: reader.batches, "the first beat")
    before = len(reader.batches)
    began = time.monotonic()
    run.first.look()
    wait_until(lambda: len(reader.batches) > before, "an answer")
    assert time.monotonic() - began < IDLE_SECONDS
    reader.finish()
