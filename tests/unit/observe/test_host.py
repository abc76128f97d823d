"""observe --host: what the nodes' own processes do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from tests.conftest import run_cli
from tests.unit.observe.test_last import EndingAgent


class AskedAgent(EndingAgent):
    """One that keeps what it was asked."""

    first = pb.RunRequest()

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """As others, with the request kept."""
        self.first = next(requests)
        yield from super().Run(requests, context)


def test_host(tmp_path: Path) -> None:
    """--host asks agents for a run of its own with processes outside containers, and shows these alone."""
    agent = AskedAgent(tmp_path)
    try:
        done = run_cli("observe", "--host", "--agent", agent.address, "--timeout", "3s")
    finally:
        agent.die()
    assert (agent.first.start.gadget, dict(agent.first.start.parameters)) == ("observe", {"host": "True"})
    assert done.stdout == ""
    assert "\n0 flows from 1 node" in done.stderr  # behind a warning, as this agent has ended


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--last", "3"], "--host: agents keep no flows of the nodes' own processes: it shows those that come"),
        (["-n", "shop"], "--host: the nodes' own processes are in no namespace and no container"),
    ],
)
def test_wrong(args: list[str], error: str) -> None:
    """What cannot be had of the nodes' own processes is refused in a line."""
    done = run_cli("observe", "--host", "--agent", "unix:///none", *args)
    assert (done.returncode, done.stderr) == (2, f"error: {error}\n")
