"""Hubble's own programs, and `hubble serve` in front of agents without a kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from gadget._generated import observer_pb2
from tests.conftest import Cli
from tests.hubble.binaries import hubble_binaries
from tests.unit.hubble.served import Served, serving

Hubble = Callable[..., str]


@pytest.fixture(scope="session")
def binaries() -> Path:
    """The folder with hubble, hubble-relay and oracle."""
    return hubble_binaries()


@pytest.fixture(scope="session")
def hubble(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Hubble:
    """Runs the hubble command line to its end, without a configuration of this machine's; gives what it prints."""
    home = tmp_path_factory.mktemp("home")

    def run(*args: str, fails: bool = False) -> str:
        done = subprocess.run(
            [str(binaries / "hubble"), *args],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the flows of two nodes, for all tests of a file."""
    with ExitStack() as stack:

        def start(*args: str) -> Cli:
            cli = Cli(*args)
            stack.callback(lambda: (cli.process.kill(), cli.process.communicate()))
            return cli

        yield stack.enter_context(serving(tmp_path_factory.mktemp("agents"), start, ("node-a", "node-b")))


def rows(text: str) -> list[dict[str, Any]]:
    """Lines of -o jsonpb as they are once read as messages: those of our subset, so that nothing else is in them."""
    messages = [json_format.Parse(line, observer_pb2.GetFlowsResponse()) for line in text.splitlines()]
    return [json_format.MessageToDict(each, preserving_proto_field_name=True) for each in messages]


assert struct_pb2.DESCRIPTOR  # what extensions are is found once it is imported
