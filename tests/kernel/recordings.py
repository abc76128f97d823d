"""Asks agents for their recordings."""

from __future__ import annotations

import re
from typing import Any

from tests.conftest import Agent, events, run_cli, wait_until
from tests.pods import Container


def traceloop(agent: Agent, *args: str) -> str:
    done = run_cli("traceloop", *args, "--agent", agent.address)
    assert done.returncode == 0, done.stderr
    return done.stdout


def states(agent: Agent) -> dict[str, dict[str, Any]]:
    return {item["container"]: item for item in events(traceloop(agent, "list", "-o", "json"))}


def calls(text: str) -> list[str]:
    """What follows the time and the thread in each line."""
    return [re.sub(r"^\S+ \[.*? \d+\] +", "", line) for line in text.splitlines() if not line.startswith("#")]


def ended(container: Container) -> None:
    wait_until(lambda: not container.running, f"the end of {container.name}")
