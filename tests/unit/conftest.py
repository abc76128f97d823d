"""Fixtures: agents without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeAgent


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[..., FakeAgent]]:
    """Makes agents that are gone after the test."""
    made: list[FakeAgent] = []

    def make(node: str, **settings: object) -> FakeAgent:
        made.append(FakeAgent(tmp_path, node, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.die()
