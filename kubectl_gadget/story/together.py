"""The runs of several gadgets on the same targets, as one stream of messages."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from gadget.errors import GadgetError, Unreachable
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.begin import first_of, is_endless
from kubectl_gadget.stream.patience import PATIENCE
from kubectl_gadget.stream.replies import RunCheck
from kubectl_gadget.stream.request import Request
from kubectl_gadget.stream.streams import (
    Ended,
    Message,
    Notice,
    Streams,
)

#: Messages that wait for the screen. A full queue fills those of the streams, which slow the agents.
QUEUE_LENGTH = 64
#: For so long one answer to who is there does for all kinds, and one failure to reach a target.
ONCE_SECONDS, FAILED_SECONDS = 0.4, 2.0
#: For so long what all kinds say is said once.
SAME_SECONDS = 10.0


def key_of(kind: str, target: str) -> str:
    """The key of one kind's run on one target."""
    return f"{kind} {target}"


def parts_of(key: str) -> tuple[str, str]:
    """The kind and the target of a run, from its key."""
    kind, _, target = key.partition(" ")
    return kind, target


class _Way:
    """The address of a target, for all kinds alike: if each opened a new way to it, that would close the others'."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.number, self.broken = 0, 0
        self.address = ""
        self.failure: GadgetError | None = None
        self.failed_at = 0.0
        self.used: dict[str, int] = {}

    def reach(self, kind: str, open_: Callable[[], str]) -> str:
        """The address. It is asked for again once somebody has found that what is there leads nowhere."""
        with self.lock:
            if self.number <= self.broken:
                if self.failure and time.monotonic() - self.failed_at < FAILED_SECONDS:
                    raise self.failure
                try:
                    self.address, self.failure = open_(), None
                except GadgetError as error:
                    self.failure, self.failed_at = error, time.monotonic()
                    raise
                self.number += 1
            self.used[kind] = self.number
            return self.address

    def ended(self, kind: str) -> None:
        """The way that a kind took leads nowhere."""
        self.broken = max(self.broken, self.used.get(kind, 0))


class _Shared:
    """The targets, as each kind sees them."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._ways: dict[str, _Way] = {}
        self._lock = threading.Lock()
        self._looked, self._found = 0.0, Targets()

    def of(self, kind: str, targets: Targets | None = None) -> Targets:
        """Targets that one kind may reach by itself."""
        given = self._targets if targets is None else targets
        made = Targets({name: partial(self._way(name).reach, kind, open_) for name, open_ in given.items()})
        made.are_nodes = self._targets.are_nodes
        if self._targets.look:
            made.look = partial(self._look, kind, self._targets.look)
        return made

    def _look(self, kind: str, look: Callable[[], Targets]) -> Targets:
        with self._lock:
            if time.monotonic() - self._looked > ONCE_SECONDS:
                self._found = look()
                self._looked = time.monotonic()
            found = self._found
        return self.of(kind, found)

    def _way(self, target: str) -> _Way:
        return self._ways.setdefault(target, _Way())

    def ended(self, kind: str, ended: Ended) -> None:
        """Note that a run has ended for want of an agent."""
        if isinstance(ended.error, Unreachable) and not ended.coming:
            self._way(ended.target).ended(kind)


class Together:
    """The runs of several requests, by kind. A context manager that cancels what still runs."""

    def __init__(self, targets: Targets, requests: Mapping[str, Request]) -> None:
        """Begin each request on each target."""
        self._shared = _Shared(targets)
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUE_LENGTH)
        self._streams = {
            kind: Streams(
                self._shared.of(kind),
                first_of(request),
                partial(RunCheck, request),
                endless=is_endless(request),
                patience=request.patience,
            )
            for kind, request in requests.items()
        }
        self._stack = ExitStack()
        self._over = threading.Event()
        self._said: dict[str, float] = {}

    def __enter__(self) -> Together:
        for kind, streams in self._streams.items():
            self._stack.enter_context(streams)
            threading.Thread(target=self._pump, args=(kind, streams), name=f"pump-{kind}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._stack.close()

    @property
    def has_begun(self) -> bool:
        """Whether one of them has."""
        return any(streams.has_begun for streams in self._streams.values())

    def stop(self, waits: bool = False) -> None:
        """Ask every agent to end all runs, as Streams.stop does."""
        for streams in self._streams.values():
            streams.stop(waits)

    def _pump(self, kind: str, streams: Streams) -> None:
        """Give on what one kind's streams send."""
        try:
            for target, message in streams:
                if message is None:
                    continue
                if isinstance(message, Ended):
                    self._shared.ended(kind, message)
                    message = replace(message, target=key_of(kind, target))
                self._give((key_of(kind, target), message))
        finally:
            self._give(None)

    def _give(self, message: Message | None) -> None:
        while not self._over.is_set():
            try:
                self._queue.put(message, timeout=PATIENCE.most_quiet)
            except queue.Full:
                continue
            return

    def __iter__(self) -> Iterator[Message]:
        """Messages of all runs as they come, by the run's key; then the end."""
        left, wait = len(self._streams), PATIENCE.quiet
        while left:
            try:
                given = self._queue.get(timeout=wait)
            except queue.Empty:
                wait = min(2 * wait, PATIENCE.most_quiet)
                yield "", None
                continue
            wait = PATIENCE.quiet
            if given is None:
                left -= 1
            elif not (isinstance(given[1], Notice) and self._has_said(given[1].text)):
                yield given

    def _has_said(self, text: str) -> bool:
        """Whether another kind has said the same of late."""
        now = time.monotonic()
        self._said = {each: at for each, at in self._said.items() if now - at < SAME_SECONDS}
        return self._said.setdefault(text, now) != now
