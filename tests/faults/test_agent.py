"""The agent is killed, or stopped: what streams and recorders make of it."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.replies import RunCheck
from kubectl_gadget.stream.request import make_request
from kubectl_gadget.stream.session import Session
from kubectl_gadget.stream.streams import Streams
from tests.conftest import Agent, events, run_cli, wait_until
from tests.faults.production import PATH, Producer, books, opens, stop, stopped
from tests.kernel.flows import read, talk
from tests.loaded import pinned_programs
from tests.pods import BareContainer

KILLS = 20


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents with every recorder on."""
    return lambda *args: start_agent("--bpffs", str(bpffs), "--state", str(tmp_path / "state"), *args)


def calls_of(agent: Agent, namespace: str) -> int:
    """How many system calls of a namespace's container the flight recorder has counted."""
    (row,) = events(run_cli("traceloop", "list", "-n", namespace, "-o", "json", "--agent", agent.address).stdout)
    return int(row["calls"])


def second_of(moment: str) -> float:
    """Seconds since midnight."""
    hours, minutes, seconds = map(int, moment.split(":"))
    return hours * 3600.0 + minutes * 60 + seconds


def jumps_of(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """From when to when events are missing between rows, in seconds since midnight."""
    numbers = [int(row["path"].removeprefix(PATH)) for row in rows]
    moments = [datetime.fromisoformat(row["timestamp"]).astimezone() for row in rows]
    midnight = moments[0].replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = [(moment - midnight).total_seconds() for moment in moments]
    steps = zip(pairwise(numbers), pairwise(seconds), strict=True)
    return [times for (before, after), times in steps if after != before + 1]


@pytest.mark.timeout(300)
def test_killed_under_load(record, bpffs: Path, workload, pair, capsys, figure) -> None:
    """The agent is killed 20 times under load. The stream is joined again each time, and I am told from when to when
    it saw nothing; nothing is missing outside of that. The recorders miss nothing. No program stays behind.
    """
    cart, _ = pair
    with Producer(workload("produce")) as producer:
        agents = [record("--traceloop", producer.namespace)]
        programs = pinned_programs(bpffs)
        wait_until(producer.waits, "the end of its last system call")
        calls, made, commands = calls_of(agents[0], producer.namespace), producer.made, producer.commands
        targets = Targets({"node-a": lambda: agents[-1].address})
        targets.look = lambda: Targets({"node-a": partial(str, agents[-1].address)})
        request = make_request(catalog.find("opensnoop"), {}, "json", "timestamp,path", (), "")
        start = pb.Start(gadget="opensnoop", selection=pb.Selection(namespaces=[producer.namespace]))

        def runs(agent: Agent) -> bool:
            return "opensnoop: started" in agent.log.read_text()

        def kill_again_and_again(streams: Streams) -> None:
            try:
                wait_until(lambda: runs(agents[0]), "the stream's start")
                with producer.steadily():
                    for _ in range(KILLS):
                        wait_until(lambda: runs(agents[-1]), "the stream's start")
                        time.sleep(0.3)  # of load
                        agents[-1].stop(signal.SIGKILL)
                        talk(cart, "ask", "tcp", "10.77.0.2", 8080, 3)
                        agents.append(record("--traceloop", producer.namespace))
                    wait_until(lambda: runs(agents[-1]), "the stream's start")
                    time.sleep(0.3)
            finally:
                streams.stop()

        with Streams(targets, pb.RunRequest(start=start), partial(RunCheck, request)) as streams:
            thread = threading.Thread(target=kill_again_and_again, args=(streams,))
            thread.start()
            Session(request).run(streams, 1, streams.stop, live=True)
            thread.join()
        out, err = capsys.readouterr()
        seen, lost = books(out, err)
        jumps = jumps_of(events(out))
        gaps = [
            (second_of(begins), second_of(ends), float(seconds))
            for begins, ends, seconds in re.findall(
                r"incomplete: node-a: not seen from (\S+) to (\S+) \((\d+\.\d) s\)", err
            )
        ]
        missed, away = producer.made - made - len(seen), sum(seconds for _, _, seconds in gaps)
        figure(f"killed {KILLS} times", f"{len(seen)} events seen, {missed} not seen in {away:.1f} s, which were told")
        assert err.count("warning: node-a: the agent went away\n") == KILLS
        assert len(gaps) == KILLS
        assert len(jumps) <= KILLS and lost == 0
        left = iter(gaps)
        for begins, ends in jumps:  # each in one gap, which are told by whole seconds, and in their order
            told = (
                start - 1 < begins and ends < end + 2 and ends - begins < seconds + 1 for start, end, seconds in left
            )
            assert any(told), (begins, ends, gaps)
        assert f"; nothing lost of what was watched; not watched: node-a {KILLS} times, " in err
        assert (seen[0], seen[-1]) == (made, producer.made - 1)
        wait_until(producer.waits, "the end of its last system call")
        recorded = calls_of(agents[-1], producer.namespace) - calls
        assert recorded == producer.made - made + 2 * (producer.commands - commands)
        figure("traceloop", f"{recorded} system calls, all that there were")
        (flow,) = (each for each in read(agents[-1]) if each.port == 8080)
        assert flow.count == flow.failed == 3 * KILLS
        assert pinned_programs(bpffs) == programs and len(programs) == 9


def test_stopped_for_ten_seconds(agent, workload, tmp_path: Path, figure) -> None:
    """The agent hangs for 10 s: I am told that nothing is heard, and when it is again. Its ring has kept what fits; the
    rest is counted, so that seen and lost are all that happened.
    """
    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer, "--buffer", "64K", "--strict")
        producer.make(101)
        wait_until(lambda: '"/produced/000000100"' in cli.out, "the first events")
        with stopped(agent.process.pid):
            began = time.monotonic()
            producer.make(5003)
            cli.heard(f"warning: {agent.address}: nothing heard for 5.0 s")
            time.sleep(max(0.0, began + 10 - time.monotonic()))
        cli.heard(f"{agent.address}: heard again")
        producer.make(103)
        out, err = stop(cli, signal.SIGINT)
    seen, lost = books(out, err)
    figure("events", f"{len(seen)} seen, {lost} lost")
    assert len(seen) + lost == producer.made == 101 + 5003 + 103
    assert set(seen) >= {*range(101), *range(101 + 5003, producer.made)}
    assert f"; {lost} lost: ring full on node-a (app {lost})." in err
    assert lost > 4000
    assert cli.process.returncode == 3


def test_gone_before_it_was_known(agent, start_cli, tmp_path: Path) -> None:
    """While the agent hangs a container comes and goes with all its files, so that nobody can say whose it was. Asked
    for a namespace I am told that events are missing that may be of it; asked for all, I see them, without names.
    """
    every = start_cli("execsnoop", "-o", "json", "--agent", agent.address)
    some = start_cli("execsnoop", "-o", "json", "-n", "shop", "--strict", "--agent", agent.address)
    wait_until(lambda: agent.log.read_text().count("execsnoop: started") == 2, "the streams")
    with stopped(agent.process.pid):
        container = BareContainer("shop", "cart-0")
        for _ in range(3):
            container.run("/bin/true", container.id)
        container.delete()
    out, _ = every.finish()
    seen = [event for event in events(out) if event["args"] == ["/bin/true", container.id]]
    assert [(event["pod"], event["containerId"]) for event in seen] == [(None, container.id)] * 3
    out, err = some.finish()
    assert container.id not in out
    assert f"container not known on node-a ({container.id[:12]} 3)" in err
    assert some.process.returncode == 3
