"""Threads that an agent cannot do without. Each reports when it has died, and when it does not get on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from gadget.errors import Exhausted

log = logging.getLogger(__name__)

#: A thread that has not got on for this long counts as dead.
STALL_SECONDS = 10.0
IDLE_SECONDS = 0.5
#: How long to wait for the end of a thread: it may be in a slow call.
JOIN_SECONDS = 5.0

T = TypeVar("T")


class Worker:
    """One thread, at work until it is stopped."""

    def __init__(self, name: str, work: Callable[[Worker], None], stalls_after: float = STALL_SECONDS) -> None:
        """Call work in a thread.

        It goes on until stopping is true, and calls beat or wait at least every stalls_after seconds.
        """
        self.name = name
        self._work = work
        self._stalls_after = stalls_after
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._died = ""
        self._beaten = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._beaten = time.monotonic()
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether the thread is to end."""
        return self._stop.is_set()

    @property
    def is_alive(self) -> bool:
        """Whether its thread is there."""
        return self._thread.is_alive()

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self._stop.is_set() or self._thread.ident is None:
            return ""
        if self._died or not self._thread.is_alive():
            return f"thread {self.name} died: {self._died or 'nobody knows why'}"
        silent = time.monotonic() - self._beaten
        return f"thread {self.name} has not got on for {silent:.0f} s" if silent > self._stalls_after else ""

    def beat(self) -> None:
        """Note that the thread gets on. Calls from other threads, which run the same code, do nothing."""
        if threading.get_ident() == self._thread.ident:
            self._beaten = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep until somebody calls wake or stop, or seconds are over."""
        self.beat()
        self._wake.wait(seconds)
        self._wake.clear()
        self.beat()

    def wake(self) -> None:
        """There is something to do. Callable from any thread."""
        self._wake.set()

    def done(self) -> None:
        """Note that the thread ends in order, by itself."""
        self._stop.set()

    def stop(self, seconds: float = JOIN_SECONDS) -> None:
        """End the thread, and wait so long for that. Callable from other threads, again, and before the start."""
        self._stop.set()
        self._wake.set()
        self.join(seconds)

    def join(self, seconds: float = JOIN_SECONDS) -> None:
        """Wait so long for the thread's end. Callable from other threads."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._work(self)
            self._died = "it has ended"
        except BaseException as error:  # SystemExit too: it would end the thread without a message
            self._died = f"{type(error).__name__}: {error}".removesuffix(": ")
            if not self._stop.is_set():
                log.exception("thread %s died", self.name)


class Pool:
    """Some threads for tasks that wait in the kernel. They do the tasks in the order in which they were handed in."""

    def __init__(self, name: str, number: int) -> None:
        """Begin with so many threads, called name-0 and so on."""
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._closed = False
        self.workers = [Worker(f"{name}-{at}", self._work) for at in range(number)]
        for worker in self.workers:
            worker.start()

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """Let a thread do a task. Returns the future result."""
        future: Future[Any] = Future()

        def do() -> None:
            try:
                future.set_result(task(*args))
            except Exception as error:  # the thread goes on
                log.exception("%s", task)
                future.set_exception(error)

        self._tasks.put(do)
        return future

    def close(self) -> None:
        """Wait until all has been done, as long as the threads get on."""
        if self._closed:
            return
        self._closed = True
        done = [self.submit(partial(bool)) for _ in self.workers]
        for future in done:
            with suppress(TimeoutError):
                future.result(JOIN_SECONDS)
        for worker in self.workers:
            worker.done()
        for _ in self.workers:
            self._tasks.put(lambda: None)  # each wakes one, which ends then: else each is waited for in turn
        for worker in self.workers:
            worker.stop()

    def _work(self, worker: Worker) -> None:
        while not worker.stopping:
            worker.beat()
            with suppress(Empty):
                self._tasks.get(timeout=IDLE_SECONDS)()


class Bounded:
    """Threads for tasks that may never return, such as on a container's file system: so many at once, one per key."""

    def __init__(self, name: str, most: int) -> None:
        """None yet."""
        self._name, self._most = name, most
        self._lock = threading.Lock()
        self._busy: set[Hashable] = set()

    def start(self, key: Hashable, task: Callable[[], T]) -> Future[T]:
        """Begin a task in a thread of its own.

        Exhausted if the key's last task, or too many others, have not returned.
        """
        with self._lock:
            if key in self._busy or len(self._busy) >= self._most:
                raise Exhausted("what was asked before has not been answered yet")
            self._busy.add(key)
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(task())
            except Exception as error:
                future.set_exception(error)
            finally:
                self._done(key)

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads may be made
            self._done(key)
            raise Exhausted(str(error)) from None
        return future

    def _done(self, key: Hashable) -> None:
        with self._lock:
            self._busy.discard(key)
