"""The rows of a gadget while a workload runs in a container, as a user gets them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.pods import UNIFIED, BareContainer, Container, Pod

ROOT = Path(__file__).parents[1]


def start_json(start_cli: Callable[..., Cli], agent: Agent, gadget: str, *args: str) -> Cli:
    """A stream of JSON that has begun."""
    started = f"{gadget}: started"
    before = agent.log.read_text().count(started)
    cli = start_cli(gadget, "--agent", agent.address, "-o", "json", *args)
    wait_until(lambda: agent.log.read_text().count(started) > before, "the stream's start")
    return cli


def run_workload(pod: Pod, program: Path, *args: str) -> Container:
    """Run a program in a container until it says that it is done."""
    container = pod.container("app", "/workload", *args, files={"/workload": program})
    wait_until(lambda: "done\n" in container.log.read_text(), "the workload's end", 60)
    return container


def rows_of(cli: Cli) -> list[dict[str, Any]]:
    """End a stream; its events, none of which may be lost."""
    out, err = cli.finish()
    assert "nothing lost" in err, err
    return events(out)


def start_python_in(container: Container, module: str, *args: str) -> subprocess.Popen[str]:
    """A module of the tests in a container's cgroup and network."""
    procs = UNIFIED / container.cgroup.lstrip("/") / "cgroup.procs"
    command = ["nsenter", f"--net=/proc/{container.pid}/ns/net", sys.executable, "-m", module, *args]

    def enter() -> None:
        procs.write_text("0")

    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=enter)


@contextmanager
def inside(container: BareContainer, *command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a container, which is ended."""
    with (container.cgroup / "cgroup.procs").open("w") as procs:
        process = subprocess.Popen(command, preexec_fn=lambda: os.write(procs.fileno(), b"0"), **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def known(agent: Agent, *containers: BareContainer) -> None:
    """Wait until the agent knows containers."""
    wait_until(
        lambda: all(
            each.id in run_cli("containers", "-o", "json", "--agent", agent.address).stdout for each in containers
        ),
        "the containers",
    )
