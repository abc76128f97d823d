"""Runs a gadget on every target at once, and gives what they send as one stream of messages."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import GadgetError, Unreachable, Unsupported, UsageError
from kubectl_gadget.targets import Targets

#: Replies that wait for the screen; each is at most about 1 MiB. A full queue slows the agent, whose rings count.
QUEUE_LENGTH = 64
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class Ended:
    """A target sends no more: error says why unless the run ended in order."""

    target: str
    error: GadgetError | None = None


#: What a target sent, and its name.
Message = tuple[str, pb.RunReply | Ended]


def error_of(target: str, error: grpc.RpcError) -> GadgetError:
    """The error that a failed call stands for; the reverse of the agent's status_of."""
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return UsageError(details)
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return Unsupported(details)
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{target}: no agent answers there")
    return GadgetError(f"{target}: {details or code.name.lower()}")


def connect(address: str) -> grpc.Channel:
    """A channel to an agent at HOST:PORT or unix:///PATH."""
    return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)


class Streams:
    """The runs of one command. A context manager that cancels what still runs."""

    def __init__(self, targets: Targets, start: pb.Start) -> None:
        """Begin a run of start on each target."""
        self._queue: queue.Queue[Message] = queue.Queue(QUEUE_LENGTH)
        self._stop = threading.Event()
        self._targets = targets
        self._start = start
        self._calls: list[grpc.Call] = []

    def __enter__(self) -> Streams:
        for target in self._targets:
            threading.Thread(target=self._read, args=(target,), name=f"stream-{target}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for call in self._calls:
            call.cancel()

    def stop(self) -> None:
        """Ask every agent to end its run; their last events and summaries still come."""
        self._stop.set()

    def _requests(self) -> Iterator[pb.RunRequest]:
        yield pb.RunRequest(start=self._start)
        self._stop.wait()
        yield pb.RunRequest(stop=pb.Stop())

    def _read(self, target: str) -> None:
        ended = Ended(target, Unreachable(f"{target}: the agent went away"))
        started = False
        try:
            with connect(self._targets[target]()) as channel:
                call = rpc.AgentStub(channel).Run(self._requests())
                self._calls.append(call)
                for reply in call:
                    started = True
                    self._queue.put((target, reply))
                    if reply.WhichOneof("what") == "summary":
                        ended = Ended(
                            target, None if self._stop.is_set() else Unreachable(f"{target}: the agent stopped")
                        )
        except grpc.RpcError as error:
            if not (started and error.code() == grpc.StatusCode.UNAVAILABLE):
                ended = Ended(target, error_of(target, error))
        except GadgetError as error:
            ended = Ended(target, error)
        self._queue.put((target, ended))

    def __iter__(self) -> Iterator[Message]:
        """Replies of all targets as they come, and an Ended for each; then the end."""
        running = set(self._targets)
        while running:
            target, reply = self._queue.get()
            if isinstance(reply, Ended):
                running.discard(target)
            yield target, reply
