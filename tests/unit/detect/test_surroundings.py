"""What rules know beside events comes in time, and never holds them up for long."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.detect import surroundings
from agent.detect.surroundings import Surroundings

SECONDS = 0.1
ADDRESS = bytes([10, 0, 0, 1])


class Names:
    """Answers of DNS, as far as they have been read."""

    def __init__(self) -> None:
        self.read_ns, self.known, self.learnt = 5, (), ()

    def names(self, cgroup_id: int, address: bytes) -> Any:
        return self.known


class CatchingUp:
    """Has read all that was answered after a moment, or never."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def catch_up(self, until_ns: int) -> None:
        time.sleep(SECONDS)  # the slowness that is tested
        self.names.known = self.names.learnt


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    monkeypatch.setattr(surroundings, "Follower", lambda domains, *_: CatchingUp(domains))
    monkeypatch.setattr(surroundings, "Domains", Names)
    tracker = SimpleNamespace(proc=None, resolve=lambda cgroup: None)
    return Surroundings(cast(Any, SimpleNamespace(tracker=tracker, runs=None, budget=None)), domains=True)


def test_answer_before_connect(around: Surroundings) -> None:
    """A connection that comes right after its answer of DNS has the name, though the answer is read later."""
    cast(Any, around._domains).learnt = ("evil.example",)
    around.begin(9)
    assert around.domains(7, ADDRESS) == ("evil.example",)


def test_nobody_answers(around: Surroundings) -> None:
    """A container that connects to addresses without names, over and over, takes a tenth of the time at most."""
    began = time.monotonic()
    for at in range(200):
        around.begin(10 + at)
        assert around.domains(7, ADDRESS) == ()
    assert time.monotonic() - began < 10 * SECONDS


def test_unknown_container(around: Surroundings) -> None:
    """What a container did that came and went unseen is judged as a container's, and not left out as the node's."""
    found = around.container(99)
    assert found and found.get("container.id") == "unknown"
    assert found.get("k8s.pod.name") is None
