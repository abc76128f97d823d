"""observe: how many flows are shown, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import orjson
import pytest

from gadget import CONTRACT
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported
from kubectl_gadget.where import find_targets
from tests.conftest import run_cli
from tests.unit.hubble.served import FlowAgent, containers
from tests.unit.observe.flows import GADGET, section


class EndingAgent(FlowAgent):
    """One whose stream ends with what it has kept."""

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """Who it is, what was kept, and that this was all."""
        schema = orjson.dumps(GADGET.schema.to_json()).decode()
        yield pb.RunReply(node=self.node, started=pb.Started(schema=schema, contract=CONTRACT))
        kept = pb.Batch(sections=[section(self.began_ns)], containers=containers())
        yield pb.RunReply(node=self.node, batch=kept)
        yield pb.RunReply(node=self.node, batch=pb.Batch(), caught_up=True)
        yield pb.RunReply(node=self.node, summary=pb.Summary())


@pytest.mark.parametrize(
    ("options", "lines", "said"),
    [
        (["--last", "2"], 2, "The last 2 of 5 flows: --last N and --all show more, -f what comes.\n"),
        (["--last", "2", "-o", "json"], 2, "The last 2 of 5 flows: --last N and --all show more, -f what comes.\n"),
        ([], 5, "5 flows (1 no answer, 1 refused) from 1 node, 3 containers, as kept; nothing lost.\n"),
        (["--all", "-o", "json"], 5, "5 flows (1 no answer, 1 refused) from 1 node, "),
        (["--first", "3"], 3, "3 flows from 1 node, "),
    ],
)
def test_last(tmp_path: Path, options: list[str], lines: int, said: str) -> None:
    """What is shown of more that is kept says so in a line: how many there are, and how to see them; the last one sums up, with what came to nothing."""
    agent = EndingAgent(tmp_path)
    try:
        done = run_cli("observe", "-A", "--agent", agent.address, *options)
    finally:
        agent.die()
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == lines
    assert done.stderr.startswith(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-n", "web"], "namespace web has no containers; -A for all."),
        (["-n", "shop", "--pod", "nobody"], "no pod matches -p nobody in namespace shop; there is "),
        (["-n", "shop", "--min-bytes", "1G"], ""),
    ],
)
def test_none(tmp_path: Path, options: list[str], said: str) -> None:
    """If there can be no flow of what I asked for I am told why, and what there is instead."""
    agent = EndingAgent(tmp_path)
    try:
        done = run_cli("observe", "--agent", agent.address, *options)
    finally:
        agent.die()
    assert (done.returncode, done.stdout) == (0, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("0 flows from 1 node, ")
    assert bool(rest) == bool(said)
    assert "".join(rest).startswith(said)


@pytest.mark.usefixtures("agent_socket")
def test_this_machine_without_an_agent() -> None:
    """With --local and no agent I am told how to start one: what a command starts for itself has kept nothing."""
    with (
        pytest.raises(Unsupported, match="no agent runs on this machine, so no flows are kept: start one, as root"),
        find_targets((), local=True, lacking="no flows are kept"),
    ):
        pass
