"""Runs a gadget on every target at once, and gives what they send as one stream of messages."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Malformed, Unreachable, Unsupported, UsageError
from gadget.values import dataclass
from kubectl_gadget.agents import client, wire
from kubectl_gadget.agents.targets import Agent, Targets
from kubectl_gadget.stream.patience import PATIENCE, Patience

#: Replies that wait for the screen, of 1 MiB; a larger one counts as several. A full queue slows the agent, whose rings
#: count.
QUEUE_LENGTH = 64
#: Agents send 12 MiB at most. In a recording names of addresses are added, and it must not become too large for that.
LARGEST_REPLY = wire.LARGEST // 2
#: A wait for a time ends so long after it.
_LATER_SECONDS = 0.001
_UNBEGUN = "its agent had not begun when it was to end"


@dataclass(frozen=True)
class Ended:
    """A target sends no more, unless it starts again: error says why, None if the run ended in order.

    heard_ns is up to when its events came, in nanoseconds since 1970; 0 if none ever did. coming: it is about to start
    for the first time, later than the others.
    """

    target: str
    error: GadgetError | None = None
    heard_ns: int = 0
    coming: bool = False


@dataclass(frozen=True)
class Notice:
    """Something to tell the user now, in one line."""

    text: str


#: What a target sent, and its name; None if nobody has sent anything for a while.
Message = tuple[str, pb.RunReply | Ended | Notice | None]


#: Looks at each reply of a run before it is used; raises GadgetError.
Check = Callable[[pb.RunReply], None]


#: A target's message, with its size; None only wakes who reads.
_Item = tuple[str, pb.RunReply | Ended | Notice | None, int]


class _Queue(queue.Queue[_Item]):
    """A queue of messages with their sizes, as long as its items are large."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._length = 0

    def _qsize(self) -> int:
        return self._length

    def _put(self, item: _Item) -> None:
        super()._put(item)
        self._length += _units(item[2])

    def _get(self) -> _Item:
        item = super()._get()
        self._length -= _units(item[2])
        return item


def _units(size: int) -> int:
    return max(size >> 20, 1)


class Streams:
    """The runs of one command. A context manager that cancels what still runs.

    Where the targets can change, those that went away are joined again, and those that are new as well.
    """

    def __init__(
        self,
        targets: Targets,
        first: pb.RunRequest,
        check: Callable[[str], Check],
        *,
        endless: bool = True,
        patience: Patience = PATIENCE,
    ) -> None:
        """Begin a run by first on each target, which is not endless if the agents end it.

        check makes what looks at one's replies, whose node may be known.
        """
        self._queue, self._patience = _Queue(QUEUE_LENGTH), patience
        self._check = check
        self._stop = threading.Event()
        self._stopped = 0.0  # since when the reader knows that the end was asked for
        self._asked_ns = 0  # since when it is asked for without waiting for who has not begun
        self._targets = targets
        self._first, self._endless = first, endless
        self._what = first.WhichOneof("what") or ""
        # what is kept: one who answers late has missed nothing
        self._reads = self._what in ("attach", "kept_alerts", "observe")
        self._calls: dict[str, grpc.Call] = {}
        self._running: set[str] = set()
        self._begun: set[str] = set()  # those of them who have begun this run
        self._read_up: set[str] = set()  # those of them who have sent what they kept
        self._left: set[str] = set()  # who is not waited for any more
        self._heard: dict[str, int] = {}
        self._shown: dict[str, int] = {}  # up to when events of a standing run came
        self._hopeless: set[str] = set()
        self._known: set[str] = set()
        self.has_begun = False  # whether an agent ever has
        self._joined = 0.0  # when the first one was, by the monotonic clock
        self._changed = threading.Event()
        self._called = threading.Event()  # an agent has been asked

    def __enter__(self) -> Streams:
        for item in self._targets.items():
            self._begin(*item)
        if self._targets.look and self._endless:
            threading.Thread(target=self._join_again, args=(self._targets.look,), name="join", daemon=True).start()
        return self

    def wait(self, seconds: float) -> None:
        """Wait so long at most until an agent has been asked: what this thread does would delay that."""
        self._called.wait(seconds)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for call in list(self._calls.values()):
            call.cancel()

    def stop(self, waits: bool = False) -> None:
        """Ask every agent to end its run; their last events and summaries still come.

        waits: an agent that has not begun may still begin and end; else it is left.
        """
        if not waits:
            self._asked_ns = self._asked_ns or time.time_ns()
        self._stop.set()
        self._changed.set()
        with suppress(queue.Full):  # then its reader is busy, and looks soon
            self._queue.put_nowait(("", None, 0))

    def is_ending(self) -> bool:
        """Whether the end was asked for."""
        return self._stop.is_set()

    def _begin(self, target: str, reach: Callable[[], str]) -> None:
        self._running.add(target)
        self._begun.discard(target)
        self._read_up.discard(target)
        self._known.add(target)
        threading.Thread(target=self._read, args=(target, reach), name=f"stream-{target}", daemon=True).start()

    def _join_again(self, look: Callable[[], Targets]) -> None:
        wait, told = self._patience.most_look, ""
        while not self._stop.is_set():
            if self._changed.wait(wait):
                self._changed.clear()
                wait = self._patience.look
                continue
            wait = min(wait * 2, self._patience.most_look)
            if not self._joined:
                continue
            try:
                found, told = look(), ""
            except GadgetError as error:  # nobody can tell now: whoever is away stays away
                if told != str(error):
                    told = str(error)
                    self._put("", Notice(f"warning: {error}; trying again"))
                continue
            for target, reach in found.items():
                if target not in self._known:
                    late = Unreachable(f"{target}: joined the cluster later")
                    self._put(target, Ended(target, late, coming=True))
                if target not in self._running | self._hopeless:
                    self._begin(target, reach)

    def _requests(self, shown_ns: int) -> Iterator[pb.RunRequest]:
        first = pb.RunRequest()
        first.CopyFrom(self._first)
        if self._reads:  # what this one sent before it went away has been shown
            asked = getattr(first, self._what)
            asked.since_ns = max(asked.since_ns, shown_ns)
        yield first
        self._stop.wait()
        yield pb.RunRequest(stop=pb.Stop())

    def _read(self, target: str, reach: Callable[[], str]) -> None:
        error: GadgetError | None = Unreachable(f"{target}: the agent went away")
        self._heard[target] = heard = 0
        begun = False
        try:
            agent = Agent(target, reach(), self._targets.node(target))
            with client.connect(agent.address) as channel:
                self._calls[target] = call = client.call(channel, "Run")(self._requests(self._shown.get(target, 0)))
                self._called.set()
                check: Check | None = None
                for data in call:
                    if len(data) > LARGEST_REPLY:
                        raise ValueError(f"a message of more than {LARGEST_REPLY >> 20} MiB")
                    reply, size = wire.parse(pb.RunReply, data)
                    if reply.WhichOneof("what") == "started":  # at once: the check imports modules
                        if not self._reads and 0 < self._asked_ns < reply.sent_ns:
                            raise Unreachable(f"{target}: {_UNBEGUN}")
                        self._begun.add(target)
                        self.has_begun = True
                    check = check or self._check(agent.node)
                    if warning := client.settle_node(agent, reply):
                        self._put(target, Notice(warning))
                    if reply.WhichOneof("what") == "interrupted":
                        why = Unreachable(reply.interrupted.reason[: client.LONGEST_DETAILS])
                        self._put(target, Ended(target, why, reply.interrupted.heard_ns, coming=True))
                        continue
                    # not when it came here: a client that was stopped finds old messages waiting
                    self._heard[target] = heard = reply.sent_ns or time.time_ns()
                    check(reply)
                    if reply.WhichOneof("what") == "batch":
                        self._shown[target] = reply.sent_ns
                    if reply.WhichOneof("what") == "started":
                        reply.started.received_ns = heard
                        self._joined = self._joined or time.monotonic()
                        if not (begun or self._reads) and time.monotonic() - self._joined > self._patience.late:
                            late = Unreachable(f"{target}: its agent answered later")
                            self._put(target, Ended(target, late, coming=True))
                        begun = True
                    self._put(target, reply, size)
                    if reply.WhichOneof("what") == "summary":
                        in_order = self._stop.is_set() or not self._endless
                        error = None if in_order else Unreachable(f"{target}: the agent stopped")
        except grpc.RpcError as failure:
            if not (heard and failure.code() == grpc.StatusCode.UNAVAILABLE):
                error = client.error_of(target, failure)
        except GadgetError as failure:
            error = failure
        except ValueError as failure:
            error = client.malformed(target, failure)
        except Exception as failure:  # whatever it is: without an Ended nobody would know that this target is silent
            error = Unreachable(f"{target}: {type(failure).__name__}: {failure}")
        self._put(target, Ended(target, error, heard))

    def _put(self, target: str, message: pb.RunReply | Ended | Notice, size: int = 0) -> None:
        self._queue.put((target, message, size))

    def __iter__(self) -> Iterator[Message]:
        """Replies of all targets as they come, and an Ended for each; then the end."""
        quiet_since, wait, told = None, self._patience.quiet, False
        while self._running or (self._targets.look and self._endless and self._joined and not self._stop.is_set()):
            ends_long = self._asked_ns > 0 and self._ending_for() > self._patience.unbegun
            if ends_long and (late := self._running - self._begun):
                yield from self._give_up(late, _UNBEGUN)
                continue
            try:
                target, message, _ = self._queue.get(timeout=self._unbegun_for() or wait)
            except queue.Empty:
                wait = min(2 * wait, self._patience.most_quiet)
                yield "", None
                if not self._stop.is_set():
                    continue
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > self._patience.end:
                    yield from self._give_up(set(self._running), "its agent did not answer when it was to end")
                    return
                continue
            quiet_since, wait = None, self._patience.quiet
            if message is None or target in self._left:
                continue
            if isinstance(message, pb.RunReply) and self._is_rest(target, message):
                message.batch.ClearField("sections")
                if not told:
                    yield "", Notice("ended while it was still reading what is kept: the rest is not shown")
                told = True
            if isinstance(message, Ended) and not message.coming:
                self._running.discard(target)
                if isinstance(message.error, UsageError | Unsupported | Malformed):
                    self._hopeless.add(target)
                elif message.heard_ns:
                    self._changed.set()
            yield target, message

    def _unbegun_for(self) -> float:
        """For how much longer those who have not begun are waited for; 0 if there are none, or it is no time to end."""
        if not self._asked_ns or self._running <= self._begun:
            return 0.0
        return max(self._patience.unbegun - self._ending_for(), 0.0) + _LATER_SECONDS

    def _ending_for(self) -> float:
        """For how long messages have been given since the end was asked for."""
        self._stopped = self._stopped or time.monotonic()
        return time.monotonic() - self._stopped

    def _is_rest(self, target: str, reply: pb.RunReply) -> bool:
        """Whether a reply has events that were kept, which come too late to be shown."""
        if reply.caught_up:
            self._read_up.add(target)
        is_kept = self._reads and target not in self._read_up and bool(reply.batch.sections)
        return is_kept and self._stop.is_set() and self._ending_for() >= self._patience.rest

    def _give_up(self, targets: set[str], why: str) -> Iterator[Message]:
        self._running -= targets
        self._left |= targets
        for target in sorted(targets):
            if call := self._calls.get(target):
                call.cancel()  # else its agent goes on to load what nobody waits for
            error = Unreachable(f"{target}: {why}")
            yield target, Ended(target, error, self._heard.get(target, 0))
