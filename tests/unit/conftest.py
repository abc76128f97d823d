"""Fixtures: agents without a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeAgent, WholeAgent
from tests.strangers import Hostile


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


@pytest.fixture
def agent_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where --local looks for an agent: nowhere that another test or this machine has one."""
    monkeypatch.setattr("kubectl_gadget.agents.local.AGENT_SOCKET", tmp_path / "agent.sock")
    return tmp_path / "agent.sock"


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Callable[..., Hostile]]:
    """Makes agents that are gone after the test."""
    made: list[Hostile] = []

    def make(node: str, kind: type[WholeAgent] = Hostile, **values: Any) -> Any:
        made.append(kind(tmp_path, node))  # type: ignore[arg-type]
        for name, value in values.items():
            setattr(made[-1], name, value)
        return made[-1]

    yield make
    for each in made:
        each.die()
