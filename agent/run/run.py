"""A run: its thread reads a source, passes the rows through the steps and gives the batches to subscribers."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from agent.run.batch import Batch, Loss, Packed, Rows, Step, TableInfo, pack
from agent.run.choosing import Choosing
from agent.run.source import Source
from agent.run.subscriber import Subscriber
from agent.threads import Worker
from gadget.catalog import Gadget
from gadget.errors import Exhausted, GadgetError

#: How long an event may wait in a ring that is far from full. Each message costs agent and client about a millisecond
#: of CPU, however few events it has. A shorter wait costs more CPU; a longer one can be seen. When more events come
#: than a person can follow, three times the wait is short enough.
DRAIN_SECONDS, BUSY_SECONDS = 0.05, 0.15
#: So many events at one look are more than a person can follow.
MANY = 20
#: How long to sleep after a look that found nothing. The next event wakes the thread, unless it came during that look.
IDLE_SECONDS = 0.25
#: How often losses are counted: less often than batches are read, as counting costs a few system calls.
LOSS_SECONDS = 0.25
#: How often a subscriber gets a heartbeat at least.
BEAT_SECONDS = 1.0
#: The time over which events per second are counted.
RATE_SECONDS = 2.0
#: How many looks at the source a subscriber gets that ends while others go on. The rings can hold no more than that.
LAST_LOOKS = 16
#: How long to wait for the end of a run. Its links are freed in that time, unless the kernel is very busy.
CLOSE_SECONDS = 10.0


class Run:
    """Reads a source until its last subscriber leaves; then it detaches, empties and closes the source."""

    def __init__(self, source: Source, choosing: Choosing, others: Sequence[Step] = ()) -> None:
        """Begin with one subscriber, first; takes source over. choosing is the first step, others come after it."""
        self._source, self._choosing = source, choosing
        self._steps: tuple[Step, ...] = (choosing, *others)
        self.gadget: Gadget = source.gadget
        self.object = source.object
        self.events = 0
        self.rate = 0.0
        self._losses: list[Loss] = []
        self._lock = threading.Lock()
        self.first = Subscriber(self, (), 0)
        self._subscribers = [self.first]
        self._over = False
        #: whether it waits for a subscriber to take something
        self.is_blocked = False
        self._asked = False
        self._waking = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.worker = Worker(f"run-{self.gadget.name}", self._work)
        try:
            self.worker.start()
        except RuntimeError as error:  # no more threads may be made
            os.close(self._wake)
            raise Exhausted(str(error)) from None

    @property
    def is_closed(self) -> bool:
        """Whether the run has ended and has given everything back."""
        return self._wake < 0 and not self.worker.is_alive

    @property
    def subscribers(self) -> list[Subscriber]:
        """Those who read it."""
        with self._lock:
            return list(self._subscribers)

    def subscribe(self) -> Subscriber | None:
        """Another subscriber, of what comes from now on; None if the run is about to end."""
        with self._lock:
            if self._over or all(each.ending for each in self._subscribers):
                return None
            subscriber = Subscriber(self, self._losses, self._choosing.undecided)
            self._subscribers.append(subscriber)
            return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """A subscriber wants no more. The end of the run, if it was the last one, is waited for."""
        with self._lock:
            with suppress(ValueError):  # it has ended before
                self._subscribers.remove(subscriber)
            self._over = last = not self._subscribers
        subscriber.end()
        self.wake()
        if last:
            self.worker.join(CLOSE_SECONDS)

    def wake(self) -> None:
        """There is something to do. Callable from any thread, and after the end."""
        with self._waking:  # the number may be another file's by now
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def look(self) -> None:
        """Read the source at once, and give subscribers a batch even if there is nothing. Callable from any thread."""
        self._asked = True
        self.wake()

    def finish(self) -> None:
        """End every subscriber in order."""
        for each in self.subscribers:
            each.finish()

    def _work(self, worker: Worker) -> None:
        error = GadgetError(f"the run of {self.gadget.name} has ended")
        try:
            self._follow(worker)
            worker.done()
        except BaseException as failure:  # SystemExit too: see Worker
            error = GadgetError(f"the run of {self.gadget.name} died: {type(failure).__name__}: {failure}")
            raise
        finally:
            self._source.close()
            with self._waking:
                os.close(self._wake)
                self._wake = -1
            with self._lock:
                self._over = True
                rest, self._subscribers = self._subscribers, []
            for each in rest:
                each.end(error)

    def _follow(self, worker: Worker) -> None:
        with select.epoll() as poll:
            for fd in (self._wake, *self._source.fds):
                poll.register(fd, select.EPOLLIN | select.EPOLLET)
            counted = 0.0
            beat = measured = time.monotonic()
            before, idle = 0, True  # the first event is told at once
            due = beat + DRAIN_SECONDS
            while not self._over:
                soonest = due if self.is_blocked else min(due, self._source.due)
                poll.poll(max(0.0, soonest - time.monotonic()))
                worker.beat()
                ending = self._is_ending()
                if ending and self._end_those():
                    return
                if asked := self._asked:
                    self._asked = False
                if not (ending or asked or idle or self._source.pressed) and time.monotonic() < due:
                    continue  # it will be soon enough
                if not self._has_room():
                    # nobody takes anything: the rings fill, and the kernel counts what does not fit, container by
                    # container; a subscriber that has taken what waited for it wakes this thread
                    due = time.monotonic() + IDLE_SECONDS
                    continue
                seen, idle = self.events, not self._is_waiting()
                (sections, whole), losses = self._look(), None
                wait = IDLE_SECONDS if idle else BUSY_SECONDS if self.events - seen > MANY else DRAIN_SECONDS
                now = time.monotonic()
                due = now + wait
                if now - counted > LOSS_SECONDS:
                    counted = now
                    losses = self._count_losses()
                if now - measured > RATE_SECONDS:
                    self.rate = (self.events - before) / (now - measured)
                    measured, before = now, self.events
                if asked or sections or whole or losses is not None or now - beat > BEAT_SECONDS:
                    self._publish(sections, losses, whole)
                    beat = now

    def _is_ending(self) -> bool:
        return any(each.ending for each in self.subscribers)

    def _has_room(self) -> bool:
        self.is_blocked = True  # first: one who takes something from here on wakes this thread
        room = any(each.is_idle for each in self.subscribers)
        self.is_blocked = not room
        return room

    def _is_waiting(self) -> bool:
        return self._choosing.waiting or self._source.waiting

    def _end_those(self) -> bool:
        """Give subscribers that are to end what there is by now, and their end; whether the run is over."""
        with self._lock:
            ending = [each for each in self._subscribers if each.ending]
            over = len(ending) == len(self._subscribers)
            self._over = self._over or over  # nobody may come any more
        if over:
            self._source.detach()
        looks = 0
        while self._source.waiting and (over or looks < LAST_LOOKS):
            looks += 1
            if not self._wait_for_room():
                break
            sections, whole = self._look()
            if sections or whole:
                self._publish(sections, None, whole)
        held = [pack(rows) for rows in self._through(self._steps[1:], self._choosing.release())]
        self.events += sum(section.count for section in held)
        self._publish(held, self._count_losses())
        if not over:
            self._give_so_far(ending)
        with self._lock:
            self._subscribers = [each for each in self._subscribers if each not in ending]
        for each in ending:
            each.end()
        return over

    def _give_so_far(self, ending: Sequence[Subscriber]) -> None:
        """Give those who leave what a table has by now: what they get does not depend on others, who get it whole."""
        if not (found := self._source.so_far()):
            return
        rows, whole = found
        with self._choosing.uncounted():
            sections = [pack(each) for each in self._through(self._steps, [rows] if len(rows) else [])]
            batch = Batch(sections, self._choosing.met(), self._choosing.losses(), whole=whole)
            for each in ending:
                each.offer(batch, self._choosing.undecided, may_lose=True)

    def _wait_for_room(self) -> bool:
        """Wait until a subscriber takes something; whether there is one."""
        with select.epoll() as poll:
            poll.register(self._wake, select.EPOLLIN)
            while not self._has_room():
                if not self.subscribers:
                    return False
                poll.poll(IDLE_SECONDS)
                self.worker.beat()
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
        return True

    def _look(self) -> tuple[list[Packed], TableInfo | None]:
        """What the source has, through all steps, and what they held before; which table it is, if it is one."""
        found = [pack(rows) for rows in self._through(self._steps, [])]
        for rows in self._source.read():  # copied before the source has its memory back
            found += [pack(each) for each in self._through(self._steps, [rows])]
        self.events += sum(section.count for section in found)
        return found, self._source.whole

    @staticmethod
    def _through(steps: Sequence[Step], rows: list[Rows]) -> list[Rows]:
        for step in steps:
            rows = step(rows)
        return rows

    def _count_losses(self) -> list[Loss] | None:
        """All losses so far, None if they are as before."""
        losses = self._choosing.losses()
        if losses == self._losses:
            return None
        self._losses = losses
        return losses

    def _publish(self, sections: list[Packed], losses: list[Loss] | None, whole: TableInfo | None = None) -> None:
        batch = Batch(sections, self._choosing.met(), losses, whole=whole)
        subscribers = self.subscribers
        for each in subscribers:
            each.offer(batch, self._choosing.undecided, may_lose=len(subscribers) > 1)
