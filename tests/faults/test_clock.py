"""The wall clock is set while something runs. The real one is everybody's, so a process is told another time."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from tests.conftest import WORKLOADS, wait_until
from tests.faults.production import PATH, Producer, Watched, books, opens, stop

HOUR = 3600


class Clock(NamedTuple):
    """A clock of one process: under is the command that starts it with it."""

    under: list[str]
    set: Callable[[int], None]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A wall clock that can be set."""
    library, shift = tmp_path / "clock_shift.so", tmp_path / "shift"
    source = str(WORKLOADS / "clock_shift.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), source], check=True)
    shift.write_bytes(bytes(8))

    def set_it(seconds: int) -> None:
        with shift.open("r+b") as file:  # in place: it is mapped
            file.write(seconds.to_bytes(8, "little", signed=True))

    return Clock(["env", f"LD_PRELOAD={library}", f"CLOCK_SHIFT={shift}"], set_it)


def produce_and_set(producer: Producer, cli: Watched, clock: Clock) -> None:
    """Produce before and after the clock is set back an hour, and forward two."""
    for number, seconds in ((11, -HOUR), (13, HOUR), (17, 0)):
        producer.make(number)
        wait_until(lambda: cli.out.count(PATH) == producer.made, "the events")
        clock.set(seconds)


def moments(out: str) -> list[float]:
    """When each event was, in seconds since 1970."""
    return [datetime.fromisoformat(row["timestamp"]).timestamp() for row in map(orjson.loads, out.splitlines())]


def test_node_clock_is_set(start_agent, workload, clock: Clock, tmp_path: Path) -> None:
    """A node's clock is set back an hour, then forward two, while I watch: no event is lost or late, and each has the
    time that the node's clock shows then.
    """
    agent = start_agent(under=clock.under)
    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer)
        produce_and_set(producer, cli, clock)
        out, err = stop(cli, signal.SIGINT)
    assert books(out, err) == (list(range(41)), 0)
    now = time.time()
    offsets = [round((moment - now) / HOUR) for moment in moments(out)]
    assert offsets == [0] * 11 + [-1] * 13 + [1] * 17
    assert err.count("\n") == 1, err


def test_own_clock_is_set(agent, workload, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """My own clock is set while I watch: nothing is lost, no false alarm, and times are still the node's."""
    for variable in clock.under[1:]:
        monkeypatch.setenv(*variable.split("=", 1))
    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer)
        produce_and_set(producer, cli, clock)
        out, err = stop(cli, signal.SIGINT)
    assert books(out, err) == (list(range(41)), 0)
    assert all(abs(moment - time.time()) < HOUR / 4 for moment in moments(out))
    assert err.count("\n") == 1, err
