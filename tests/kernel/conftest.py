"""Fixtures: agents that record, and whom they may see talk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from agent.bpf.bpffs import mount_bpffs
from agent.containers.tracker import Tracker
from agent.flows.recorder import FlowRecorder
from agent.flows.settings import Settings
from tests.conftest import Agent


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents that record the tests' own pods: others' may run on this machine."""
    usual = ("--no-flows", "--bpffs", str(bpffs), "--state", str(tmp_path / "state"), "--traceloop", "shop,web")
    return lambda *args, **options: start_agent(*usual, *args, **options)


@pytest.fixture
def recorder(bpffs: Path, tmp_path: Path) -> Iterator[Callable[..., FlowRecorder]]:
    """Makes recorders in this process, each of which goes on with what the one before began and ends it."""
    mount_bpffs(bpffs)
    folder = bpffs / "gadget"
    folder.mkdir()
    with ExitStack() as stack:

        def make(
            entries: int = 4096, pods: Any = None, settings: Settings | None = None, **constants: int
        ) -> FlowRecorder:
            stack.pop_all().close()
            tracker = stack.enter_context(closing(Tracker(pins=folder)))
            tracker.pods = pods and pods(tracker.changed)
            chosen = settings or Settings(limit=entries)
            made = FlowRecorder(tracker, folder / "flows", tmp_path / "state", chosen, constants)
            return stack.enter_context(closing(made))

        yield make
