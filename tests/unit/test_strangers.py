"""Agents that mean harm: none takes others down, poses as another, or costs much."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from kubectl_gadget.advise.collect import hear
from kubectl_gadget.agents import client
from kubectl_gadget.agents.targets import Agent, Targets
from kubectl_gadget.stream.begin import begin
from kubectl_gadget.stream.recording import Writer
from kubectl_gadget.stream.request import Selection, make_request
from kubectl_gadget.stream.session import stream
from kubectl_gadget.traceloop import instances
from tests.conftest import CLI, run_cli
from tests.fakes import WholeAgent
from tests.strangers import EXECS, Raw, schema_text
from tests.unit.rows import batch
from tests.unit.test_checks import BATCHES, SCHEMAS


def test_stream_beside_bad_agents(agents: Callable[..., Any]) -> None:
    """An agent that sends nonsense is told of in one line with its node's name; the events of the others come."""
    wrong = [{"first": each} for each in BATCHES.values()]
    wrong += [{"first": batch(), "schema_text": text} for text in SCHEMAS.values()]
    bad = [agents(f"bad-{number}", **each) for number, each in enumerate(wrong)]
    where = [part for each in (*bad, agents("node-a", first=batch())) for part in ("--agent", each.address)]
    done = run_cli("execsnoop", *where, "-o", "json", "--fields", "node,pid", "--timeout", "3s")
    assert "Traceback" not in done.stderr
    rows = [tuple(json.loads(line).values()) for line in done.stdout.splitlines()]
    assert sorted(rows) == [("node-a", pid) for pid in (1, 2, 3) for _ in range(3)], done.stderr
    told = [line.removeprefix("incomplete: ") for line in done.stderr.splitlines() if line.startswith("incomplete: ")]
    assert sorted(line.partition(":")[0] for line in told) == sorted(each.node for each in bad)
    assert done.returncode == 0


LARGE = pb.DescribeReply(node="x" * (65 << 20)).SerializeToString()
ANSWERS = {
    "no message": b"\xff\xff\xff\xff",
    "a message of 65 MiB": LARGE,
    "33 million lists of nothing": b"\x12\x00" * (32 << 20),
    "a group": b"\x0b\x0c",
    "a number without an end": b"\x08" + b"\xff" * 20,
    "text beyond the end": b"\x0a\x7fnode",
    "text that is none": b"\x0a\x02\xff\xfe",
}
QUESTIONS: dict[str, list[str]] = {
    "Run": ["execsnoop", "--timeout=1s"],
    "Containers": ["containers"],
    "Describe": ["status"],
    "TraceloopList": ["traceloop", "list"],
    "Flows": ["advise", "network-policy"],
    "Syscalls": ["advise", "seccomp-profile"],
}


@pytest.mark.parametrize("method", QUESTIONS)
def test_answers_that_are_none(tmp_path: Path, agents: Callable[..., Any], method: str) -> None:
    """Whatever bytes an agent answers, to whichever command, I am told in one line with its name, and see the others."""
    good = agents("node-a", WholeAgent)
    with ExitStack() as stack:
        bad = [stack.enter_context(Raw(tmp_path, answer)) for answer in ANSWERS.values()]
        where = [part for each in (*bad, good) for part in ("--agent", each.address)]
        done = with_little_memory(*QUESTIONS[method], *where)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    lines = (done.stderr + done.stdout).splitlines()
    for each in bad:
        told = [line for line in lines if f"{each.address}: " in line]
        assert told and all(len(line) < 600 for line in told), done
    if method in ("Containers", "Describe"):
        assert "node-a" in done.stdout


def with_little_memory(*args: str, mebibytes: int = 1024) -> subprocess.CompletedProcess[str]:
    """The command, which may take no more."""
    command = ["sh", "-c", f'ulimit -d {mebibytes << 10}; exec "$@"', "sh", str(CLI), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("answer", ANSWERS)
def test_read_that_is_none(tmp_path: Path, answer: str) -> None:
    """The same when one recording is read."""
    with Raw(tmp_path, ANSWERS[answer]) as bad:
        agent = Agent("node-b", bad.address)
        with pytest.raises(GadgetError, match=r"^node-b: its agent"):
            list(client.ask(agent, "TraceloopRead", pb.TraceloopReadRequest()))


def test_flows_that_make_no_sense(agents: Callable[..., Any]) -> None:
    """An agent whose flows make no sense is a note in the advice, and the others' flows are used."""

    class Nonsense(WholeAgent):
        wrong: tuple[pb.FlowsReply, ...] = ()

        def Flows(self, request: pb.FlowsRequest, context: grpc.ServicerContext) -> Iterator[pb.FlowsReply]:
            yield from self.wrong

    pod = pb.FlowPod(uid="u", namespace="shop", name="cart")
    right: dict[str, Any] = {"uid": "u", "peer": bytes(16), "local": bytes(16), "count": 1}
    for wrong in (
        (),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**{**right, "peer": b"short"})]),),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**right, port=70_000)]),),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**right, first_ns=-1)]),),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**{**right, "count": 1 << 63})]),),
        (pb.FlowsReply(node="b", head=pb.FlowsHead(addresses=["nonsense"])),),
    ):
        bad = agents("node-b", Nonsense, wrong=wrong)
        heard = hear(Targets({"node-a": agents("node-a", WholeAgent).reach, "node-b": bad.reach}))
        assert heard.context.header.nodes == ("node-a",)
        (note,) = heard.context.notes
        assert note.startswith("without the traffic of node-b: node-b: its agent's answer cannot be used"), wrong


def test_recording_of_a_megabyte(tmp_path: Path) -> None:
    """A recording of 1 MB whose rows all name all of the text costs one line, and no gigabytes."""
    size = EXECS.text_offset + 1
    rows = np.zeros((1 << 20) // size, EXECS.dtype(size))
    for name in ("args", "exe", "cwd"):
        rows[name]["length"] = 65_535
    section = pb.Section(record_size=size, count=len(rows), rows=rows.tobytes())
    replies = [{"started": pb.Started(schema=schema_text())}, {"batch": pb.Batch(sections=[section])}]
    with Writer(file := tmp_path / "file", "execsnoop") as writer:
        assert list(writer.keep([("node-a", pb.RunReply(node="node-a", **each)) for each in replies]))
    done = with_little_memory("replay", str(file), "-o", "json", mebibytes=256)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {file}: node-a: its agent sends events that make no sense\n"


def test_node_that_it_was_reached_on(
    agents: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a cluster the node is that of the pod that was reached, whatever the agent claims, of which I am warned once."""
    from kubectl_gadget import about
    from kubectl_gadget.output import make_output
    from kubectl_gadget.stream import containers
    from kubectl_gadget.stream.recording import Recording

    agent = agents("liar", first=batch())
    targets = Targets({"node-a": agent.reach})
    warning = "warning: node-a: its agent says that it is on liar: not believed"

    targets.are_nodes = True
    fields = [item for item in containers.FIELDS if item.name in ("node", "pod")]
    containers.show(targets, pb.ContainersRequest(), make_output("json", fields, {}), Selection())
    assert about.describe(targets)["node-a"].node == "node-a"
    assert instances.ask(targets)[0] == []
    assert hear(targets).context.header.nodes == ("node-a",)
    out, err = capsys.readouterr()
    assert json.loads(out)["node"] == "node-a"
    assert err.splitlines() == [warning]

    client._told.clear()
    request = make_request(catalog.find("execsnoop"), {}, "json", "node", (), "", timeout=0.7, record=tmp_path / "file")
    with begin(request, targets) as streams:
        stream(request, targets, streams, dict)
    out, err = capsys.readouterr()
    assert {json.loads(line)["node"] for line in out.splitlines()} == {"node-a"}
    assert err.count("liar") == 1 and warning in err
    replies = [reply for _, reply in Recording(tmp_path / "file") if isinstance(reply, pb.RunReply)]
    assert {reply.node for reply in replies} == {"node-a"}


def test_own_name_of_an_agent(agents: Callable[..., Any]) -> None:
    """With --agent the node is what the agent says: nothing else is known of it."""
    done = run_cli("containers", "-o", "json", "--agent", agents("anything").address)
    assert json.loads(done.stdout)["node"] == "anything" and done.stderr == ""


def test_peers_are_not_for_agents_to_say(agents: Callable[..., Any]) -> None:
    """Who is at the other end of a connection is not believed from the agent that saw it."""
    from kubectl_gadget.stream.peers import add_names

    started = pb.RunReply(started=pb.Started(schema=schema_text()))
    lie = pb.RunReply(batch=pb.Batch(peers=[pb.Peer(address=bytes(16), kind="pod", namespace="bank", name="ledger")]))
    assert [len(each.batch.peers) for _, each in add_names([("a", started), ("a", lie)], lambda context: {})] == [0, 0]
