"""--follow: a record that is being written is waited for, for a while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent.containers.identity import Container
from agent.traceloop import rings, service
from agent.traceloop.redact import Redactor
from agent.traceloop.rings import About, Snapshot
from agent.traceloop.settings import Settings
from gadget import catalog
from gadget._generated import gadget_pb2 as pb

CALL, MORE, STATE = (catalog.record("traceloop", name) for name in ("call", "more", "state"))
SLOTS = 8
AT_ONCE = Settings(follow_seconds=0.0)
TEXT = MORE.fields["data"][1]  # type: ignore[index]


class Ring:
    """A ring of eight slots in memory."""

    key, saved, clock_offset = 7, False, 0
    about = About(Container("c" * 64, "containerd", "shop", "cart-0", "app"), 7, 1, "x86_64", rings.own_layout())

    def __init__(self) -> None:
        self.data = bytearray(rings.ring_bytes(SLOTS))

    def begin(self, position: int) -> None:
        """A writer has taken a position."""
        self._head()[:] = position
        self._slot(position)[:8] = np.uint64(position << 2 | rings.BUSY).tobytes()

    def call(self, position: int) -> None:
        row = np.zeros(1, CALL)
        row["sequence"], row["time"], row["length"] = position << 2, position, rings.NO_DATA
        self._slot(position)[:] = row.tobytes()
        self._head()[:] = max(self._head()[0], position)

    def text(self, position: int, owner: int) -> None:
        row = np.zeros(1, MORE)
        row["sequence"], row["owner"], row["length"] = position << 2 | rings.MORE, owner << 2, 6
        data = bytearray(row.tobytes())
        data[TEXT : TEXT + 6] = b"secret"
        self._slot(position)[:] = data
        self._head()[:] = max(self._head()[0], position)

    def _head(self) -> Any:
        return np.frombuffer(self.data, STATE, 1, rings.ABOUT_BYTES)["head"]

    def _slot(self, position: int) -> memoryview:
        start = rings.ABOUT_BYTES + rings.STATE_BYTES + (position - 1) % SLOTS * rings.SLOT_BYTES
        return memoryview(self.data)[start : start + rings.SLOT_BYTES]

    def snapshot(self, after: int = 0) -> Snapshot:
        return rings.read(self.about, self.data, len(self.data), after)

    def state(self) -> dict[str, int]:
        return self.snapshot().state

    def span(self) -> tuple[int, int]:
        return 0, 0


@pytest.fixture
def ring() -> Ring:
    return Ring()


def follow(ring: Ring, *steps: Any, redact: Redactor | None = None) -> list[tuple[list[int], list[int]]]:
    """The positions of calls, and the owners of texts, in each reply; before each further poll comes a step."""
    recorder: Any = SimpleNamespace(
        find=lambda key: ring, is_there=lambda ring: True, is_running=lambda ring: True, processes=lambda ring: []
    )
    todo = list(steps)

    def active() -> bool:
        if not todo:
            return False
        todo.pop(0)()
        return True

    found = []
    request = pb.TraceloopReadRequest(cgroup_id=7, follow=True)
    for reply in service.TraceloopService("node-a", recorder, redact, settings=AT_ONCE).read(request, active):
        calls, more = np.frombuffer(reply.calls, CALL), np.frombuffer(reply.more, MORE)
        found.append(((calls["sequence"] >> np.uint64(2)).tolist(), (more["owner"] >> np.uint64(2)).tolist()))
    return found


def test_published_late(ring: Ring) -> None:
    """A call that is published a moment after its text, or after another thread's, is shown, once, with its text."""
    ring.call(1)
    ring.begin(2)
    ring.text(3, 2)
    ring.call(4)
    assert follow(ring, lambda: ring.call(2), lambda: ring.call(5)) == [([1], []), ([2, 4], [2]), ([5], [])]


def test_text_behind_another(ring: Ring) -> None:
    """A call's text comes with it, also where another thread's call between them is not written yet."""
    ring.call(1)
    ring.begin(2)
    ring.text(3, 1)
    assert follow(ring, lambda: ring.call(2), lambda: None) == [([1], [1]), ([2], [])]


def test_never_published(ring: Ring) -> None:
    """A record that never comes, as its slot was claimed by another, holds the others up for half a second only."""
    ring.call(1)
    ring.call(3)
    nothing = [lambda: None] * AT_ONCE.follow_polls
    assert follow(ring, *nothing[1:]) == [([1], [])]
    assert follow(ring, *nothing) == [([1], []), ([3], [])]


def test_overtaken(ring: Ring) -> None:
    """What is overwritten before it is read is not waited for."""
    for position in range(1, 5):
        ring.call(position)

    def lap() -> None:
        for position in range(5, 15):
            ring.call(position)
        ring.begin(15)

    assert follow(ring, lap) == [([1, 2, 3, 4], []), ([8, 9, 10, 11, 12, 13, 14], [])]


def test_redacted(ring: Ring) -> None:
    """With --redact --follow works, and text whose call is not there yet does not leave the node."""
    ring.call(1)
    ring.begin(2)
    ring.text(3, 2)
    redact = Redactor(("nothing like it",))
    assert follow(ring, lambda: None, lambda: ring.call(2), redact=redact) == [([1], []), ([2], [2])]
