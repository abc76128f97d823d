"""Runs a gadget on every target at once, and gives what they send as one stream of messages."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import GadgetError, Unreachable, Unsupported, UsageError
from kubectl_gadget import contract
from kubectl_gadget.targets import Targets

#: Replies that wait for the screen; each is at most about 1 MiB. A full queue slows the agent, whose rings count.
QUEUE_LENGTH = 64
#: A stream that is silent says so, for those who wait with what they have: soon at first, and then less often.
QUIET_SECONDS, MOST_QUIET_SECONDS = 0.05, 0.4
#: How long after the end of a target it is looked for again, at first and when it stays away.
LOOK_SECONDS, MOST_LOOK_SECONDS = 0.5, 5.0
#: A target that starts so long after the first has missed something, and it is told.
LATE_SECONDS = 2.0
#: How long agents may take to end a run that they were asked to end, without a word.
END_SECONDS = 5.0
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # what is waited for, else 60 s
)


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


def error_of(target: str, error: grpc.RpcError) -> GadgetError:
    """The error that a failed call stands for; the reverse of the agent's status_of."""
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return UsageError(details)
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return Unsupported(details)
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return Unsupported(f"{target}: its agent is older and cannot do this: update it with `kubectl gadget deploy`")
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{target}: no agent answers there")
    return GadgetError(f"{target}: {details or code.name.lower()}")


def connect(address: str) -> grpc.Channel:
    """A channel to an agent at HOST:PORT or unix:///PATH. Unsupported from calls that it would not understand."""
    return grpc.intercept_channel(grpc.insecure_channel(address, options=CHANNEL_OPTIONS), contract.Checked())


class Streams:
    """The runs of one command. A context manager that cancels what still runs.

    Where the targets can change, those that went away are joined again, and those that are new as well.
    """

    def __init__(self, targets: Targets, start: pb.Start) -> None:
        """Begin a run of start on each target."""
        self._queue: queue.Queue[Message] = queue.Queue(QUEUE_LENGTH)
        self._stop = threading.Event()
        self._targets = targets
        self._start = start
        self._calls: dict[str, grpc.Call] = {}
        self._running: set[str] = set()
        self._heard: dict[str, int] = {}
        self._hopeless: set[str] = set()
        self._known: set[str] = set()
        self._joined = 0.0  # when the first one was, by the monotonic clock
        self._changed = threading.Event()

    def __enter__(self) -> Streams:
        for item in self._targets.items():
            self._begin(*item)
        if self._targets.look:
            threading.Thread(target=self._join_again, args=(self._targets.look,), name="join", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for call in list(self._calls.values()):
            call.cancel()

    def stop(self) -> None:
        """Ask every agent to end its run; their last events and summaries still come."""
        self._stop.set()
        self._changed.set()

    def _begin(self, target: str, reach: Callable[[], str]) -> None:
        self._running.add(target)
        self._known.add(target)
        threading.Thread(target=self._read, args=(target, reach), name=f"stream-{target}", daemon=True).start()

    def _join_again(self, look: Callable[[], Targets]) -> None:
        wait, told = MOST_LOOK_SECONDS, ""
        while not self._stop.is_set():
            if self._changed.wait(wait):
                self._changed.clear()
                wait = LOOK_SECONDS
                continue
            wait = min(wait * 2, MOST_LOOK_SECONDS)
            if not self._joined:
                continue
            try:
                found, told = look(), ""
            except GadgetError as error:  # nobody can tell now: whoever is away stays away
                if told != str(error):
                    told = str(error)
                    self._queue.put(("", Notice(f"{error}; trying again")))
                continue
            for target, reach in found.items():
                if target not in self._known:
                    late = Unreachable(f"{target}: joined the cluster later")
                    self._queue.put((target, Ended(target, late, coming=True)))
                if target not in self._running | self._hopeless:
                    self._begin(target, reach)

    def _requests(self) -> Iterator[pb.RunRequest]:
        yield pb.RunRequest(start=self._start)
        self._stop.wait()
        yield pb.RunRequest(stop=pb.Stop())

    def _read(self, target: str, reach: Callable[[], str]) -> None:
        error: GadgetError | None = Unreachable(f"{target}: the agent went away")
        self._heard[target] = heard = 0
        try:
            with connect(reach()) as channel:
                self._calls[target] = call = rpc.AgentStub(channel).Run(self._requests())
                for reply in call:
                    # not when it came here: a client that was stopped finds old messages waiting
                    self._heard[target] = heard = reply.sent_ns or time.time_ns()
                    if reply.WhichOneof("what") == "started":
                        contract.check(reply.node, reply.started.contract)
                        reply.started.received_ns = heard
                        self._joined = self._joined or time.monotonic()
                        if time.monotonic() - self._joined > LATE_SECONDS:
                            late = Unreachable(f"{target}: its agent answered later")
                            self._queue.put((target, Ended(target, late, coming=True)))
                    self._queue.put((target, reply))
                    if reply.WhichOneof("what") == "summary":
                        error = None if self._stop.is_set() else Unreachable(f"{target}: the agent stopped")
        except grpc.RpcError as failure:
            if not (heard and failure.code() == grpc.StatusCode.UNAVAILABLE):
                error = error_of(target, failure)
        except GadgetError as failure:
            error = failure
        except Exception as failure:  # whatever it is: without an Ended nobody would know that this target is silent
            error = Unreachable(f"{target}: {type(failure).__name__}: {failure}")
        self._queue.put((target, Ended(target, error, heard)))

    def __iter__(self) -> Iterator[Message]:
        """Replies of all targets as they come, and an Ended for each; then the end."""
        quiet_since, wait = None, QUIET_SECONDS
        while self._running or (self._targets.look and self._joined and not self._stop.is_set()):
            try:
                target, message = self._queue.get(timeout=wait)
            except queue.Empty:
                wait = min(2 * wait, MOST_QUIET_SECONDS)
                yield "", None
                if not self._stop.is_set():
                    continue
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > END_SECONDS:
                    yield from self._give_up()
                    return
                continue
            quiet_since, wait = None, QUIET_SECONDS
            if isinstance(message, Ended) and not message.coming:
                self._running.discard(target)
                if isinstance(message.error, UsageError | Unsupported):
                    self._hopeless.add(target)
                elif message.heard_ns:
                    self._changed.set()
            yield target, message

    def _give_up(self) -> Iterator[Message]:
        for target in self._running:
            error = Unreachable(f"{target}: its agent did not answer when it was to end")
            yield target, Ended(target, error, self._heard.get(target, 0))
