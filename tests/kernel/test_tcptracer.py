"""tcptracer on this kernel: every connection's begin and end, with its bytes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, Cli, events, wait_until
from tests.connections import HELD_SECONDS
from tests.kernel.test_tcpconnect import run_connects
from tests.live import rows_of, start_json
from tests.maps import HashMap
from tests.pods import run_in

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(agent: Agent, start_cli: Callable[..., Cli]) -> Callable[[], Cli]:
    """Starts a stream of the pod cart-0."""

    def begin() -> Cli:
        cli = start_cli("tcptracer", "--agent", agent.address, "-o", "json", "-p", "cart-0")
        wait_until(lambda: "tcptracer: started" in agent.log.read_text(), "the stream's start")
        return cli

    return begin


@pytest.fixture
def connections(bare: Any) -> Callable[..., None]:
    """Runs tests/connections.py in that pod, in a network of its own."""
    cgroup = bare().cgroup
    return lambda *args: run_in(cgroup, "unshare", "--net", sys.executable, "-m", "tests.connections", *args, cwd=ROOT)


def test_exact_bytes(agent, start_cli, make_pod, workload) -> None:
    """Of each connection I see connect, accept and the close of both ends, with exactly the bytes of each direction."""
    container = make_pod().container("app", "/workload", files={"/workload": workload("traffic")})
    subprocess.run(["nsenter", f"--net=/proc/{container.pid}/ns/net", "ip", "link", "set", "lo", "up"], check=True)
    cli = start_cli("tcptracer", "--agent", agent.address, "-o", "json", "-p", "cart-0")
    wait_until(lambda: "tcptracer: started" in agent.log.read_text(), "the stream's start")
    (container.bundle / "rootfs/tmp/go").touch()
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end")
    assert container.log.read_text() == "done\n"
    out, err = cli.finish()
    assert "nothing lost" in err
    rows = events(out)
    assert Counter(row["operation"] for row in rows) == {"connect": 101, "accept": 101, "close": 202}
    assert Counter((row["operation"], row["version"]) for row in rows) == {
        ("connect", 6): 13, ("accept", 6): 13, ("close", 6): 26, ("connect", 4): 88, ("accept", 4): 88, ("close", 4): 176,
    }  # fmt: skip
    closes = Counter((row["sent"], row["received"]) for row in rows if row["operation"] == "close")
    assert closes == Counter([(10 * n, 3 * n) for n in range(1, 102)] + [(3 * n, 10 * n) for n in range(1, 102)])
    ends = defaultdict(list)
    for row in rows:
        ends[row["src"]["addr"], row["src"]["port"], row["dst"]["port"]].append(row)
    assert all(
        sorted(row["operation"] for row in rows) in (["close", "connect"], ["accept", "close"])
        for rows in ends.values()
    )
    durations = {
        of: [row["duration"] for row in rows if row["operation"] == of] for of in ("connect", "accept", "close")
    }
    assert set(durations["accept"]) == {None}
    assert min(durations["connect"]) > 1000  # of a handshake; a program's own way is some 300 ns
    assert min(durations["close"]) >= 0


def test_duration(start, connections) -> None:
    """A connection's duration is how long it was open."""
    cli = start()
    connections("held")
    closes = [row for row in events(cli.finish()[0]) if row["operation"] == "close"]
    assert len(closes) == 6
    assert all(HELD_SECONDS * 1e9 <= row["duration"] < (HELD_SECONDS + 1) * 1e9 for row in closes)


def test_reset(start, connections) -> None:
    """A connection that one end resets has its two closes like any other."""
    cli = start()
    connections("reset")
    rows = events(cli.finish()[0])
    assert Counter(row["operation"] for row in rows) == {"connect": 7, "accept": 7, "close": 14}
    assert all(row["duration"] > 0 for row in rows if row["operation"] == "close")


def test_older_than_the_stream(start, connections, tmp_path: Path) -> None:
    """Of connections from before the stream I see each close by who closes it, also by reset, and no made-up duration."""
    go = tmp_path / "go"
    with ThreadPoolExecutor() as pool:
        done = pool.submit(connections, "older", str(go))
        wait_until(go.with_suffix(".made").exists, "connections")
        cli = start()
        go.touch()
        done.result()
    rows = events(cli.finish()[0])
    assert Counter((row["operation"], row["duration"]) for row in rows) == {("close", None): 2 * 3 + 5}
    assert {row["dst"]["addr"] for row in rows} == {"127.0.0.1"}


def test_failed_attempts(agent, start_cli, make_pod, workload) -> None:
    """An attempt that fails, in whatever way, is no connection: I see neither a connect nor a close of it."""
    rows, _ = run_connects(agent, start_cli, make_pod, workload, gadget="tcptracer")
    seen = Counter((row["dst"]["addr"], row["operation"]) for row in rows if row["operation"] != "close")
    assert seen == {("10.9.0.2", "connect"): 2 + 5 + 29 + 1, ("fd09::2", "connect"): 3 + 1}
    assert {row["dst"]["addr"] for row in rows} == {"10.9.0.2", "fd09::2"}


def test_fast_open(start, connections) -> None:
    """A connection accepted by TCP Fast Open, before its handshake is over, is no connect of the server."""
    cli = start()
    connections("fast")
    rows = events(cli.finish()[0])
    assert [(row["operation"], row["received"]) for row in rows] == [("accept", 5), ("close", 5)]


def test_mptcp(start, connections) -> None:
    """Of a connection of MPTCP I see both ends, as of one of TCP: connect, accept, and both closes with their bytes."""
    cli = start()
    connections("mptcp")
    out, err = cli.finish()
    assert "nothing lost" in err
    rows = [row for row in events(out) if row["operation"] != "close"]
    assert Counter(row["operation"] for row in rows) == {"connect": 3, "accept": 3}
    closes = Counter((row["sent"], row["received"]) for row in events(out) if row["operation"] == "close")
    assert closes == {(11, 0): 3, (0, 11): 3}


def test_too_many_at_once(agent, start, connections) -> None:
    """Rows of connections beyond those that can be followed at once are counted as lost, each once."""
    cli = start()
    with HashMap("connections", agent.process.pid) as table:
        table.fill()
        connections("made")
    out, err = cli.finish()
    assert Counter(row["operation"] for row in events(out)) == {"accept": 5}
    assert "; 15 lost: too many at once on node-a (app 15). Narrow it down.\n" in err


def test_accepts_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """An accept that seccomp kept from happening by SIGSYS is shown as no connection."""
    cli = start_json(start_cli, agent, "tcptracer", "--comm", "trapped")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    assert rows_of(cli) == []
