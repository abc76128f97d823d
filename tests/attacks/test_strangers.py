"""Programs and clients that are larger, odder or more than anybody expects."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.attacks.beside import beside, is_well, recordings
from tests.attacks.test_churn import churn
from tests.attacks.test_flood import recorded_from_now_on
from tests.conftest import Agent, events, run_cli, wait_until
from tests.faults.production import Watched

ROUTES = 200_003
IDLE = 1500
#: A connection that says nothing is closed after 5 s (agent/answering.py).
NEW_SECONDS = 10.0


def add_routes(pid: int, folder: Path) -> None:
    """Give a network more routes than a whole cluster has."""
    batch = folder / "routes"
    numbers = (f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}" for at in range(ROUTES))
    batch.write_text("".join(f"route add unreachable {each}/32\n" for each in numbers))
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", batch], check=True)


def test_network_of_many_routes(record, make_pod, workload, tmp_path: Path, figure) -> None:
    """A container gives its own network 200,000 routes, while people follow the list of containers, of which some come and
    go: nobody waits.
    """
    agent = record()
    evil = make_pod("evil", "evil-0").container("app", "/bin/sleep", "600")
    add_routes(evil.pid, tmp_path)
    enough = threading.Event()
    followers = [Watched(tmp_path, "containers", "-w", "-o", "json", "--agent", agent.address) for _ in range(3)]
    wait_until(lambda: all("evil-0" in each.out for each in followers), "those who follow")
    with beside(agent, tmp_path, workload("produce"), calm_seconds=20.0) as seen, churn() as done:
        enough.wait(5.0)
    figure(f"{ROUTES} routes, {done[0]} containers", seen)
    for each in followers:
        assert each.process.poll() is None
        each.finish(signal.SIGINT)
        assert "Traceback" not in each.err


def test_name_that_is_no_text(record, make_pod, workload) -> None:
    """A thread whose name is no text, and would clear a terminal, is shown in the recording of its container."""
    agent = record("--no-flows")
    container = make_pod("evil", "evil-0").container("app", "/attack", "named", files={"/attack": workload("attack")})
    wait_until(lambda: Path(f"/proc/{container.pid}/comm").read_bytes().startswith(b"\xff"), "its name")
    for form in ("columns", "json"):
        done = run_cli("traceloop", "show", "evil-0", "-n", "evil", "-o", form, "--agent", agent.address)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout and "pause" in done.stdout
    assert [row["event"] for row in events(done.stdout)][-1] == "blocked"
    assert [item.container.pod for item in recordings(agent, "evil")] == ["evil-0"]


@contextmanager
def idle_connections(agent: Agent) -> Iterator[None]:
    """Connections that say nothing are there while the block runs."""
    with ExitStack() as stack:
        for _ in range(IDLE):
            connection = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            connection.settimeout(10)
            connection.connect(agent.address.removeprefix("unix://"))
        yield


def test_idle_connections(record, workload, tmp_path: Path, figure) -> None:
    """Connections that say nothing, more than anybody has files for, take nothing from who is connected, keep others from an
    agent for some seconds alone, and containers that come meanwhile have their names.
    """
    agent = record()
    with idle_connections(agent):  # what gRPC and malloc keep for another time they keep once
        pass
    with beside(agent, tmp_path, workload("produce")) as seen, idle_connections(agent):
        wait_until(lambda: is_well(agent), "an answer to somebody new", NEW_SECONDS)
        recorded_from_now_on(agent, workload("produce"))
    figure(f"{IDLE} connections", seen)
