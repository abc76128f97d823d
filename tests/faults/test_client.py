"""The command line hangs, dies or is cut off: what the agent does, and what the user is told after it."""

from __future__ import annotations

import operator
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, events, run_cli, wait_until
from tests.cut import Cut
from tests.faults.production import Producer, books, opens, stop


@contextmanager
def way_to(agent: Agent, folder: Path) -> Iterator[Cut]:
    """A Cut that passes, for now."""
    near, address = socket.socket(socket.AF_UNIX), f"{folder}/way.sock"
    near.bind(address)
    with Cut(near, lambda: _connected(agent), f"unix://{address}") as way:
        yield way


def _connected(agent: Agent) -> socket.socket:
    far = socket.socket(socket.AF_UNIX)
    far.connect(agent.address.removeprefix("unix://"))
    return far


def runs(agent: Agent) -> int:
    """How many runs the agent has."""
    return int(events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)[0]["runs"])


@pytest.mark.timeout(180)
def test_hangs_or_is_cut_off(agent, workload, tmp_path: Path, figure) -> None:
    """A client that hangs, and one whose network is gone: the agent ends their runs within 30 s, others see all. When
    they are back, each is told from when on it has not seen what happened; up to then it has seen or counted all.
    """
    with Producer(workload("produce")) as producer, way_to(agent, tmp_path) as way:
        well = opens(tmp_path, agent, producer)
        hangs = opens(tmp_path, agent, producer, "--strict")
        far = opens(tmp_path, agent, producer, "--strict", via=way.address)
        producer.make(101)
        for cli in (well, hangs, far):
            wait_until(lambda cli=cli: len(cli.out.splitlines()) == 101, "the first events")
        hangs.process.send_signal(signal.SIGSTOP)
        way.cut.set()
        began = time.monotonic()
        try:
            far.heard(f"warning: {way.address}: nothing heard for 5.0 s")
            producer.make(103)
            wait_until(lambda: runs(agent) == 1, "the end of both runs", 40)
            ended_after = time.monotonic() - began
        finally:
            hangs.process.send_signal(signal.SIGCONT)
        for cli, name in ((hangs, agent.address), (far, way.address)):
            out, err = stop(cli, 0)
            seen, lost = books(out, err)
            assert f"warning: {name}: the agent went away\n" in err
            assert re.search(rf"^incomplete: {re.escape(name)}: the agent went away; not seen from \S+ on$", err, re.M)
            assert f"; nothing lost of what was watched; not watched: {name} in the end.\n" in err
            assert "Traceback" not in err
            assert seen[:101] == list(range(101)) and lost == 0
            assert cli.process.returncode == 3
        out, err = stop(well, signal.SIGINT)
        assert books(out, err) == (list(range(204)), 0)
    figure("runs of both ended after", f"{ended_after:.0f} s")


def test_stopped_for_a_while(agent, workload, tmp_path: Path, figure) -> None:
    """A client that hangs for some seconds and goes on: what did not wait for it is counted, and the books are right."""
    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer, "--buffer", "64K")
        producer.make(101)
        wait_until(lambda: len(cli.out.splitlines()) == 101, "the first events")
        cli.process.send_signal(signal.SIGSTOP)
        try:
            flood(producer, agent)
        finally:
            cli.process.send_signal(signal.SIGCONT)
        wait_until(lambda: cli.out.count("\n") > 101, "events")
        producer.make(103)
        out, err = stop(cli, signal.SIGINT)
    seen, lost = books(out, err)
    figure("events", f"{len(seen)} seen, {lost} lost")
    assert len(seen) + lost == producer.made
    assert lost > 0


def test_killed_while_the_agent_waits_for_it(agent, workload, tmp_path: Path, figure) -> None:
    """A client is killed that had long stopped reading: its run ends at once, and the agent's other streams go on."""
    with Producer(workload("produce")) as producer:
        other = opens(tmp_path, agent, producer)
        cli = opens(tmp_path, agent, producer, "--buffer", "64K")
        cli.process.send_signal(signal.SIGSTOP)
        flood(producer, agent)
        assert runs(agent) == 2
        cli.process.send_signal(signal.SIGKILL)
        wait_until(lambda: runs(agent) == 1, "the end of the run", 5)
        producer.make(101)
        out, err = stop(other, signal.SIGINT)
        seen, lost = books(out, err)
        assert len(seen) + lost == producer.made and seen[-1] == producer.made - 1
        figure("events of the other stream", f"{len(seen)} seen, {lost} lost")


def flood(producer: Producer, agent: Agent) -> None:
    """Produce until some run's client takes no more, and then more than its ring holds."""

    def shown_by_runs() -> list[int]:
        with connect(agent.address) as channel:
            described = AgentStub(channel).Describe(pb.DescribeRequest(), timeout=20)
        return [run.events for run in sorted(described.runs, key=lambda run: run.started_ns)]

    stuck = 0

    def takes_no_more() -> bool:
        nonlocal stuck
        before = shown_by_runs()
        producer.make(1009)
        time.sleep(0.2)  # rings are looked at every 50 to 150 ms
        stuck = stuck + 1 if any(map(operator.eq, before, shown_by_runs())) else 0
        return stuck == 5

    wait_until(takes_no_more, "a client that takes no more", 60)
    producer.make(5003)
