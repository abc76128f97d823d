"""Begins a request on every target. The agents work while this process imports numpy, which shows the rows."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Protocol

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget import interrupts
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.patience import PATIENCE
from kubectl_gadget.stream.request import Request
from kubectl_gadget.stream.streams import Check, Streams
from kubectl_gadget.tell import end_line

#: How often it is looked whether an agent has begun, once there is a Ctrl-C.
_LOOK_SECONDS = 0.01
#: How long to wait until an agent has been asked, before numpy is imported. It takes less where its address is known.
_ASK_SECONDS = 0.03


@contextmanager
def begin(request: Request, targets: Targets) -> Iterator[Streams]:
    """Begin what a request asks of the targets. Ctrl-C ends it in order from then on, though nothing is shown yet."""

    def check(node: str) -> Check:
        from kubectl_gadget.stream.replies import RunCheck  # numpy

        return RunCheck(request, node)

    streams = Streams(targets, first_of(request), check, endless=is_endless(request), patience=request.patience)
    with stops(streams, request.timeout), streams:
        streams.wait(_ASK_SECONDS)
        yield streams


def first_of(request: Request) -> pb.RunRequest:
    """The first message to an agent: to run a gadget, or to read a standing run."""
    if not request.standing:
        return pb.RunRequest(start=start_of(request))
    first = pb.RunRequest()
    attach = pb.Attach(name=request.standing, since_ns=request.since_ns, follow=request.follow)
    getattr(first, request.reads).CopyFrom(attach)
    return first


def is_endless(request: Request) -> bool:
    """Whether agents go on until they are asked to end."""
    return request.follow or not request.standing


def start_of(request: Request) -> pb.Start:
    """What an agent is asked to run."""
    return pb.Start(
        gadget=request.gadget.name,
        parameters=request.parameters,
        selection=pb.Selection(**request.selection.message()),
        ring_bytes=request.ring_bytes,
        interval_ns=int(request.interval * 1e9),
        totals=request.totals,
    )


class Stoppable(Protocol):
    """What is ended in order."""

    @property
    def has_begun(self) -> bool:
        """Whether there may be something to show."""

    def stop(self, waits: bool = False) -> None:
        """Ask for the end. waits: also for what has not begun."""


@contextmanager
def stops(runs: Stoppable, timeout: float) -> Iterator[None]:
    """Stop in order on the first Ctrl-C, SIGTERM, hang-up or the timeout; at once on the second Ctrl-C.

    The first one ends it at once, too, while the agents still load what is to run. A thread stops in order: this one
    may have just the lock that is needed, and SimpleQueue.put needs none.
    """
    asked: SimpleQueue[int] = SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, interrupts.end_at_once)
            end_line()
        asked.put(number)

    def watch() -> None:
        while number := asked.get():
            if number == signal.SIGINT and not _has_begun(runs):
                interrupts.end_soon()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                continue
            # nobody is in a hurry where the time is over: an agent that loads its gadget begins and ends
            runs.stop(waits=number == signal.SIGALRM)

    interrupts.set_in_order(True)
    before = interrupts.handle(on_signal, interrupts.ENDS)
    threading.Thread(target=watch, name="stop", daemon=True).start()
    timer = threading.Timer(timeout, asked.put, [signal.SIGALRM])
    timer.daemon = True
    if timeout:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        asked.put(0)
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts.set_in_order(False)


def _has_begun(runs: Stoppable) -> bool:
    """Whether they have: an agent's word that it has may be on its way."""
    deadline = time.monotonic() + PATIENCE.unbegun
    while not runs.has_begun and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return runs.has_begun
