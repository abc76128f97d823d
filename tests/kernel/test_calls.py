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

OPENS = 50021
#: Opens /dev/null and a file that is not there, in turns, and then waits to be ended.
SCRIPT = f"""
import os, sys
for number in range({OPENS}):
    os.close(os.open("/dev/null", os.O_RDONLY))
    try:
        os.open("/nothing/here", os.O_RDONLY)
    except OSError:
        pass
print("done", flush=True)
sys.stdin.read()
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
        process.wait()


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

    def come_and_go(number: int) -> int:
        times = 0
        with grpc.insecure_channel(agent.address) as channel:
            while not done.done():
                start = pb.Start(gadget=OTHERS[number % len(OTHERS)])
                start.parameters["pid"] = str(4_000_000 + number)  # a run of its own, which nothing happens in
                call = rpc.AgentStub(channel).Run(iter([pb.RunRequest(start=start)]))
                assert [reply.WhichOneof("what") for reply in call][-1] == "summary"
                times += 1
        return times

    with opening(bare()) as process, ThreadPoolExecutor(4) as pool:
        assert process.stdout
        done = pool.submit(process.stdout.readline)
        times = list(pool.map(come_and_go, range(3)))
        _, err = cli.finish()
    assert done.result() == "done\n"
    assert min(times) > 3
    assert "nothing lost" in err
    assert sum(row["path"] == "/nothing/here" for row in events(rows.read_text())) == OPENS
    assert lanes(agent) == 0


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
        assert process.stdout
        assert process.stdout.readline() == "done\n"
        said = [cli.finish()[1] for cli in clis]
    other.finish()
    assert all("nothing lost" in err for err in said), said
    assert [sum(row["path"] == "/nothing/here" for row in events(each.read_text())) for each in files] == [OPENS] * 5
    assert lanes(agent) == 0
