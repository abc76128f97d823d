"""Figures: what a fault cost, shown at the end of the run, and so in the log of CI."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[list[str]]()
Figure = Callable[[str, object], None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Keeps a figure of this test to be shown, whatever becomes of it."""
    figures = request.config.stash.setdefault(FIGURES, [])
    return lambda name, value: figures.append(f"{request.node.name}: {name}: {value}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show them all."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("figures of faults")
        for line in figures:
            terminalreporter.write_line(line)
