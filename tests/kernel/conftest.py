"""Fixtures: agents that record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Agent


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents that record."""
    usual = ("--no-flows", "--bpffs", str(bpffs), "--state", str(tmp_path / "state"))
    return lambda *args, **options: start_agent(*usual, *args, **options)
