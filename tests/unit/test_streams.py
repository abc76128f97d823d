from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import grpc

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.patience import Patience
from kubectl_gadget.stream.streams import Ended, Streams
from tests.conftest import wait_until
from tests.fakes import FakeAgent

#: What a test waits for at most, of what takes no time.
SOON_SECONDS = 20.0


class Slow(FakeAgent):
    """An agent that loads for ever."""

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """A run that does not begin."""
        self.cancelled = Event()
        context.add_callback(self.cancelled.set)
        self.started.set()
        self.cancelled.wait()
        yield from ()


def test_ctrl_c_while_one_agent_loads(tmp_path: Path) -> None:
    """Ctrl-C ends a stream at once however silent it is, and an agent that still loads is told that nobody waits for it."""
    quick, slow = FakeAgent(tmp_path, "node-a"), Slow(tmp_path, "node-b")
    patience = Patience(quiet=3 * SOON_SECONDS, most_quiet=3 * SOON_SECONDS, unbegun=0.01)
    targets = Targets({each.node: each.reach for each in (quick, slow)})
    streams = Streams(targets, pb.RunRequest(start=pb.Start()), lambda node: lambda reply: None, patience=patience)

    def stop() -> None:
        quick.started.wait()
        slow.started.wait()
        wait_until(lambda: streams.has_begun, "a beginning")
        streams.stop()

    threading.Thread(target=stop).start()
    with streams:
        began = time.monotonic()
        ended = {target: message for target, message in streams if isinstance(message, Ended)}
        assert time.monotonic() - began < SOON_SECONDS
        assert slow.cancelled.wait(SOON_SECONDS)
    assert {target: str(each.error or "") for target, each in ended.items()} == {
        "node-a": "",
        "node-b": "node-b: its agent had not begun when it was to end",
    }
