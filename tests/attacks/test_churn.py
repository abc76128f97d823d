"""Containers that come and go all the time, as jobs and crash loops do. It takes no privilege."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.attacks.beside import beside, describe, is_well
from tests.conftest import wait_until
from tests.faults.test_soak import again_and_again
from tests.pods import BareContainer

STANDING, STARTS = 151, 3
CHURN_SECONDS = 5.0


@pytest.fixture
def standing() -> Iterator[list[BareContainer]]:
    """Containers that are there."""
    made = [BareContainer("shop", f"standing-{number}") for number in range(STANDING)]
    yield made
    for each in made:
        each.delete()


@contextmanager
def churn() -> Iterator[list[int]]:
    """Containers come and go while the block runs; gives a list that says how many."""

    def come_and_go(number: int) -> None:
        container = BareContainer("evil", f"churn-{number}")
        if number % 10 == 0:  # by a shell: to fork a process of many threads and run Python there may end in a fault
            procs = container.cgroup / "cgroup.procs"
            subprocess.run(["sh", "-c", f"echo 0 > {procs}; exec /bin/true"], check=True)
        container.delete()

    with again_and_again(0.0, come_and_go) as done:
        yield done


def test_starts_beside_churn(standing: list[BareContainer], record, figure) -> None:
    """An agent starts beside 151 containers while others come and go, each time of three."""
    with churn() as done:
        wait_until(lambda: done[0] > 20, "containers that have gone")
        for _ in range(STARTS):
            agent = record()
            assert is_well(agent) and describe(agent).containers >= STANDING
            assert not describe(agent).flows.startswith("off"), describe(agent)
            assert agent.stop() == 0
            assert "Traceback" not in agent.log.read_text(), agent.log.read_text()
    figure("containers that came and went", done[0])
    assert done[0] > 100


def test_churn_of_containers(standing: list[BareContainer], record, workload, tmp_path: Path, figure) -> None:
    """Beside 151 containers others come and go, and somebody asks for all flows again and again: nobody notices."""
    agent = record()
    enough = threading.Event()
    with beside(agent, tmp_path, workload("produce"), calm_seconds=20.0) as seen, churn() as done:
        enough.wait(CHURN_SECONDS)
    figure(f"{done[0]} containers came and went", seen)
    assert done[0] > 20 * CHURN_SECONDS
