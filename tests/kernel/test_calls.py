"""Runs that share the hooks of system calls, as they come and go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.pods import BareContainer

LEAST = 5003
#: Opens a file that is not there, until its input ends, and says how often.
SCRIPT = f"""
import os, select, sys
times = 0
while times < {LEAST} or not select.select([sys.stdin], [], [], 0.001)[0]:
    for _ in range(17):
        try:
            os.open("/nothing/here", os.O_RDONLY)
        except OSError:
            times += 1
print(times)
"""
#: Each wants the same calls as opensnoop, or others, or both.
OTHERS = ("opensnoop", "fsslower", "bindsnoop", "filemods", "ttysnoop", "tcpconnect")


@contextmanager
def opening(container: BareContainer) -> Iterator[subprocess.Popen[str]]:
    """A process of a container that opens files from here on."""
    enter = f'echo 0 > {container.cgroup}/cgroup.procs && exec "$0" "$@"'
    command = ["/bin/sh", "-c", enter, sys.executable, "-c", SCRIPT]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def times_of(process: subprocess.Popen[str]) -> int:
    """How often it opened the file, once its input ends."""
    return int(process.communicate(timeout=60)[0])


def seen(file: Path) -> int:
    """Rows of these opens."""
    return sum(row["path"] == "/nothing/here" for row in events(file.read_text()))


def lanes(agent: Agent) -> int:
    """How many programs share the hooks."""
    (row,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
    return sum(each["object"] == "calls" for each in row["programs"])


def watch(start_cli: Callable[..., Cli], agent: Agent, *args: str, **options: object) -> Cli:
    began = agent.log.read_text().count("opensnoop: started")
    cli = start_cli("opensnoop", "--agent", agent.address, "-n", "shop", "-o", "json", *args, **options)
    wait_until(lambda: agent.log.read_text().count("opensnoop: started") > began, "the stream's start")
    return cli


def test_runs_come_and_go(agent: Agent, start_cli, bare, tmp_path: Path) -> None:
    """While others begin and end runs of this and of other gadgets, my stream misses no event."""
    rows = tmp_path / "rows"
    with rows.open("w") as out:
        cli = watch(start_cli, agent, "--prefix", "/nothing", "--buffer", "64M", stdout=out)

    def come_and_go(number: int) -> str | None:
        with grpc.insecure_channel(agent.address) as channel:
            start = pb.Start(gadget=OTHERS[number % len(OTHERS)])
            start.parameters["pid"] = str(4_000_000 + number)  # a run of its own, which nothing happens in
            call = rpc.AgentStub(channel).Run(iter([pb.RunRequest(start=start)]))
            return [reply.WhichOneof("what") for reply in call][-1]

    with opening(bare()) as process, ThreadPoolExecutor(3) as pool:
        assert set(pool.map(come_and_go, range(3 * len(OTHERS)))) == {"summary"}
        times = times_of(process)
        _, err = cli.finish()
    assert "nothing lost" in err
    assert seen(rows) == times
    wait_until(lambda: lanes(agent) == 0, "the end of all lanes")


def test_many_runs(agent: Agent, start_cli, bare, tmp_path: Path) -> None:
    """As many runs as I like want the same calls at once, and each sees all; what other gadgets want costs no more."""
    files = [tmp_path / f"rows-{number}" for number in range(5)]
    clis = []
    for number, file in enumerate(files):
        with file.open("w") as out:
            prefix = "/nothing/here"[: 9 + number]  # each other, so that no two share a run
            clis.append(watch(start_cli, agent, "--prefix", prefix, "--buffer", "64M", stdout=out))
    assert lanes(agent) == len(files)
    other = start_cli("bindsnoop", "--agent", agent.address)
    wait_until(lambda: "bindsnoop: started" in agent.log.read_text(), "the stream's start")
    assert lanes(agent) == len(files)
    with opening(bare()) as process:
        times = times_of(process)
    said = [cli.finish()[1] for cli in clis]
    other.finish()
    assert all("nothing lost" in err for err in said), said
    assert [seen(file) for file in files] == [times] * len(files)
    wait_until(lambda: lanes(agent) == 0, "the end of all lanes")
