"""Events in known numbers, and the books of what came of them: seen + lost = produced."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tests.conftest import Agent, Cli, wait_until
from tests.pods import BareContainer

PATH = "/produced/"
#: The whole path of the Nth; only an event that was seen twice or out of order breaks the row of numbers.
DIGITS = 9


class Producer:
    """A container that opens files when told to. A context manager; made counts what it opened, and
    commands how often it was told to: it makes two other system calls for each.

    Its namespace is its own, so that nobody else's events are in the way.
    """

    def __init__(self, binary: Path, pod: str = "cart-0", name: str = "app", namespace: str = "") -> None:
        """Make the container, and start binary (produce) in it."""
        self.namespace = namespace or f"faults-{secrets.token_hex(4)}"
        self.made = self.commands = 0
        self._place = BareContainer(self.namespace, pod, name)
        procs = self._place.cgroup / "cgroup.procs"
        command = ["sh", "-c", f'echo 0 > {procs}; exec "$0"', str(binary)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.make(0)  # it is there when this is answered

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def make(self, number: int) -> None:
        """Open so many files."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(b"%d\n" % number)
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"done\n"
        self.made += number
        self.commands += 1

    def waits(self) -> bool:
        """Whether it waits for its next command: its last system call but that has ended."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    @contextmanager
    def steadily(self, number: int = 20, every_seconds: float = 0.01) -> Iterator[None]:
        """Open so many files again and again while the block runs."""
        enough = threading.Event()

        def go_on() -> None:
            while not enough.wait(every_seconds):
                self.make(number)

        thread = threading.Thread(target=go_on, name="producer")
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
        wait_until(lambda: "populated 0" in (self._place.cgroup / "cgroup.events").read_text(), "an empty cgroup")
        self._place.delete()


class Books(NamedTuple):
    """What a stream showed of a producer's events, by number, and how many it told as lost."""

    seen: list[int]
    lost: int


def seen_in(out: str | bytes) -> list[int]:
    """The numbers of the produced files in a stream's JSON."""
    paths = (orjson.loads(line)["path"] for line in out.splitlines())
    return [int(path.removeprefix(PATH)) for path in paths if path.startswith(PATH)]


def lost_in(err: str) -> int:
    """How many events the last line of a stream says were lost, of what was watched."""
    nothing = r"nothing lost(?:\.| of what was watched; not watched: .*\.)$"
    found = re.search(rf"^\d+ events? from .*; (?:(\d+) lost: |{nothing})", err, re.MULTILINE)
    assert found, err
    return int(found[1] or 0)


def books(out: str | bytes, err: str) -> Books:
    """Both, of a stream that has ended. No event is shown twice."""
    seen = seen_in(out)
    assert len(set(seen)) == len(seen)
    return Books(seen, lost_in(err))


class Watched(Cli):
    """A command line whose output goes to files, so that it never waits for its reader."""

    def __init__(self, folder: Path, *args: str, **options: Any) -> None:
        """Start it with args."""
        self._name = folder / f"cli-{time.monotonic_ns()}"
        with self._name.with_suffix(".out").open("wb") as out, self._name.with_suffix(".err").open("wb") as err:
            super().__init__(*args, **{"stdout": out, "stderr": err, **options})

    @property
    def out(self) -> str:
        """What it has shown so far."""
        return self._name.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        """What it has told so far."""
        return self._name.with_suffix(".err").read_text()

    def heard(self, text: str, seconds: float = 20.0) -> None:
        """Wait until it has told text."""
        wait_until(lambda: text in self.err, text, seconds)


def opens(folder: Path, agent: Agent, producer: Producer, *args: str, via: str = "", **options: Any) -> Watched:
    """A stream of a producer's opens as JSON, once it has begun; via is another way to the agent."""
    before = agent.log.read_text().count("opensnoop: started")
    command = ["opensnoop", "-o", "json", "--fields", "timestamp,container,path", "-n", producer.namespace]
    cli = Watched(folder, *command, "--agent", via or agent.address, *args, **options)
    wait_until(lambda: agent.log.read_text().count("opensnoop: started") > before, "the stream's start")
    return cli


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process stands still, with all its threads, while the block runs."""

    def all_stand() -> bool:
        stats = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        return set(stats) == {"T"}

    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(all_stand, "a process that stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ended(cli: Cli, seconds: float = 60.0) -> int:
    """Wait for the end of a command line; its exit code."""
    return cli.process.wait(seconds)


def stop(cli: Watched, number: int, seconds: float = 60.0) -> tuple[str, str]:
    """Send a signal unless it is 0, and wait for the end; what it printed on stdout and stderr."""
    if number and cli.process.poll() is None:
        os.kill(cli.process.pid, number)
    ended(cli, seconds)
    return cli.out, cli.err
