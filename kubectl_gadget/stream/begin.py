"""Begins a request on every target. The agents work while this process imports numpy, which shows the rows."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Protocol

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.request import Request
from kubectl_gadget.stream.streams import Check, Streams
from kubectl_gadget.tell import end_line


@contextmanager
def begin(request: Request, targets: Targets) -> Iterator[Streams]:
    """Begin what a request asks of the targets. Ctrl-C ends it in order from then on, though nothing is shown yet."""

    def check(node: str) -> Check:
        from kubectl_gadget.stream.replies import RunCheck  # numpy

        return RunCheck(request, node)

    streams = Streams(targets, first_of(request), check, endless=is_endless(request))
    with stops(streams, request.timeout), streams:
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

    def stop(self) -> None:
        """Ask for the end."""


@contextmanager
def stops(runs: Stoppable, timeout: float) -> Iterator[None]:
    """Stop in order on the first Ctrl-C, SIGTERM, hang-up or the timeout; at once on the second Ctrl-C.

    The first one ends it at once, too, while the agents still load what is to run. A thread stops in order: this one
    may have just the lock that is needed, and SimpleQueue.put needs none.
    """
    asked: SimpleQueue[bool] = SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            end_line()
            if not runs.has_begun:
                signal.default_int_handler(number, frame)
        asked.put(True)

    def watch() -> None:
        while asked.get():
            runs.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    threading.Thread(target=watch, name="stop", daemon=True).start()
    timer = threading.Timer(timeout, asked.put, [True])
    timer.daemon = True
    if timeout:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        asked.put(False)
        for number, handler in before.items():
            signal.signal(number, handler)
