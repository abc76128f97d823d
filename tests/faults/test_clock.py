"""The wall clock is set while something runs. The real one is everybody's, so a process is told another time."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from tests.attacks.beside import recordings
from tests.conftest import WORKLOADS, events, run_cli, wait_until
from tests.faults.production import PATH, Producer, Watched, books, opens, stop
from tests.kernel.flows import ask, read, talk

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


def test_node_clock_is_set_and_recorders(
    bpffs: Path, start_agent, pair, workload, clock: Clock, tmp_path: Path
) -> None:
    """A node's clock is set back an hour, then forward two: the recorders miss nothing and forget nothing, calls stay in
    their order and as far apart as they were, and all times that I am shown are those of the clock as it is then.
    """
    cart, _ = pair
    agent = start_agent("--bpffs", str(bpffs), "--state", str(tmp_path / "state"), under=clock.under)

    def recorded(namespace: str) -> tuple[list[int], list[float]]:
        command = ["traceloop", "show", "cart-0", "-n", namespace, "--syscalls", "open*", "-o", "json"]
        rows = events(run_cli(*command, "--agent", agent.address).stdout)
        paths = [re.search(rf"{PATH}(\d+)", json.dumps(row)) for row in rows]
        found = [(int(path[1]), row) for path, row in zip(paths, rows, strict=True) if path]
        times = [datetime.fromisoformat(row["time"]).timestamp() for _, row in found]
        return [number for number, _ in found], times

    with Producer(workload("produce")) as producer:
        wait_until(lambda: recordings(agent, producer.namespace), "the recording")  # spare rings need a moment, too
        shown = {}
        for number, seconds in ((11, 0), (13, -HOUR), (17, HOUR)):
            clock.set(seconds)
            producer.make(number)
            talk(cart, "ask", "tcp", "10.77.0.2", 8080, number)
            wait_until(producer.waits, "the end of its last system call")
            numbers, times = recorded(producer.namespace)
            assert numbers == list(range(producer.made))
            assert times == sorted(times)
            now = time.time() + seconds
            assert all(now - HOUR / 4 < moment <= now + 1 for moment in times)
            shown[seconds] = times
            (flow,) = (each for each in read(agent) if each.port == 8080)
            assert flow.count == flow.failed == producer.made
            replies = ask(agent)
            (exact,) = (each for reply in replies for each in reply.flows if each.port == 8080)
            assert now - HOUR / 4 < exact.first_ns / 1e9 <= exact.last_ns / 1e9 <= now + 1
        for seconds, times in shown.items():
            moved = [after - before for before, after in zip(times, shown[HOUR], strict=False)]
            assert all(abs(each - (HOUR - seconds)) < 0.1 for each in moved)
