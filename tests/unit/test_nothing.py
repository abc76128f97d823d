"""What I am told when nothing matches what I asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cli import cli
from kubectl_gadget.stream.nothing import ExistingContainer, takes_host, why_nothing
from kubectl_gadget.stream.request import make_selection
from tests.conftest import run_cli, wait_until
from tests.fakes import FakeAgent, WholeAgent
from tests.unit.test_session import run

FRONTEND = ExistingContainer("shop", "frontend-7d9f-x2x7l", "app")
THERE = [FRONTEND, ExistingContainer("shop", "db-0", "postgres"), ExistingContainer("web", "web-0", "nginx")]


@pytest.mark.parametrize(
    ("namespaces", "pods", "containers", "labels", "said"),
    [
        (["shop"], ["fronted"], [], "", "no pod matches -p fronted in namespace shop; there is frontend-7d9f-x2x7l and 1 more"),
        (["default"], [], [], "", "watching namespace default, which has no containers; -A for all"),
        (["shpo"], [], [], "", "watching namespace shpo, which has no containers; there is shop"),
        (["a", "b"], [], [], "", "watching namespaces a, b, which have no containers; -A for all"),
        (["shop"], [], ["postgre"], "", "no container matches -c postgre in namespace shop; there is postgres and 1 more"),
        (["shop"], [], [], "app=x", "no pod matches -l app=x in namespace shop"),
        (["shop"], ["db"], ["app"], "", "nothing matches -p db -c app in namespace shop"),
        ([], ["xyz"], [], "", "no pod matches -p xyz; there is db-0, frontend-7d9f-x2x7l, web-0"),
        (["shop"], ["db"], [], "", ""),
    ],
)  # fmt: skip
def test_why_nothing(namespaces: list[str], pods: list[str], containers: list[str], labels: str, said: str) -> None:
    """Of what I asked for, that which nothing is like is named, with what there is."""
    selection = make_selection(tuple(namespaces), False, tuple(pods), tuple(containers), labels)
    assert why_nothing(selection, THERE) == said


def test_an_empty_machine() -> None:
    """Where no container runs at all I am told how to see the rest, by a command that has a way to."""
    nothing = make_selection((), False, (), (), "")
    assert why_nothing(nothing, [], host=True) == "no containers run there; --host shows what runs outside them"
    assert why_nothing(nothing, []) == "no containers run there"


@pytest.mark.parametrize(
    ("words", "has"), [("execsnoop", True), ("profile", True), ("memtop", False), ("snapshot mounts", False)]
)
def test_a_way_that_there_is(words: str, has: bool) -> None:
    """I am pointed to --host only by a command that has it."""
    command: click.Command | None = cli
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command
    with click.Context(command):
        assert takes_host() == has
    assert not takes_host()


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[WholeAgent]:
    """An agent that knows the container shop/on-node-a/app."""
    agent = WholeAgent(tmp_path, "node-a")
    yield agent
    agent.die()


@pytest.mark.parametrize(
    ("namespace", "pods", "said"),
    [
        ("default", (), "watching namespace default, which has no containers; -A for all"),
        ("shop", ("on-nod-a",), "no pod matches -p on-nod-a in namespace shop; there is on-node-a"),
    ],
)
def test_a_stream_of_nothing(
    namespace: str, pods: tuple[str, ...], said: str, whole: WholeAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a stream waits for what is not there I am told so at once; what comes later is shown all the same."""
    seen: list[str] = []

    def do() -> None:
        wait_until(lambda: seen.append(capsys.readouterr().err) or said in "".join(seen), "the hint", 5)  # type: ignore[func-returns-value]
        whole.emit(1_000_000)

    run(Targets({"node-a": whole.reach}), do, selection=make_selection((namespace,), False, pods, (), ""))
    assert "".join(seen) == f"{said}\n"
    assert "1 event from 1 node, 1 container" in capsys.readouterr().err


class LateAgent(WholeAgent):
    """Tells of its containers a moment later."""

    def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
        time.sleep(0.2)
        yield from super().Containers(request, context)


def test_a_snapshot_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot of a pod that is not there says so, though it is over before anybody could look for the pod."""
    late = LateAgent(tmp_path, "node-a")
    selection = make_selection(("shop",), False, ("on-nod-a",), (), "")
    run(Targets({"node-a": late.reach}), lambda: wait_until(late.started.is_set, "the stream"), selection=selection)
    late.die()
    assert "no pod matches -p on-nod-a in namespace shop; there is on-node-a" in capsys.readouterr().err


def test_no_hint_where_there_is_something(whole: WholeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """A stream of pods that are there, and one of the host, say nothing of the kind."""
    run(
        Targets({"node-a": whole.reach}),
        lambda: wait_until(whole.started.is_set, "the stream"),
        selection=make_selection(("shop",), False, (), (), ""),
    )
    assert capsys.readouterr().err.startswith("0 events from 1 node, 0 containers")


def test_an_older_agent(fake: Callable[..., FakeAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """Of an agent that takes -p for whole names I am told; one that knows better says nothing."""
    for selects, said in ((0, "warning: node-a: its agent is older: there -p means whole names"), (1, "")):
        agent = fake("node-a", selects=selects)
        selection = make_selection((), False, ("on",), (), "")
        run(Targets({"node-a": agent.reach}), lambda: agent.started.wait(5), selection=selection)  # noqa: B023
        err = capsys.readouterr().err
        assert (said in err) if said else ("older" not in err)
        assert (agent.asked.selection.pods, agent.asked.selection.any_of[0].pattern) == (["on"], "on*")


def test_containers_of_nothing(whole: WholeAgent) -> None:
    """`containers` of a namespace that has none says so too; its JSON has containerId, as every stream has."""
    done = run_cli("containers", "-n", "default", "--agent", whole.address)
    assert done.stderr == "namespace default has no containers; -A for all\n"
    done = run_cli("containers", "-n", "shop", "--agent", whole.address, "-o", "json")
    assert '"containerId":"node-a"' in done.stdout and done.stderr == ""


def test_status_keeps_its_table(whole: WholeAgent) -> None:
    """`status` shows nodes without an agent in its table, and why there is none below it."""
    done = run_cli("status", "--agent", whole.address, "--agent", "127.0.0.1:1")
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert rows[0] == "NODE" and rows[1:] == ["127.0.0.1:1", "node-a"]
    assert "no agent" in done.stdout.splitlines()[1] and "answers" not in done.stdout
    assert done.stderr.splitlines() == ["127.0.0.1:1: no agent answers there", "error: 1 of 2 agents did not answer"]
    assert done.returncode == 1


def test_who_is_not_known(fake: Callable[..., FakeAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """Of events of containers that nobody could name I am told what they are, and how to see them."""
    agent = fake("node-a")

    def do() -> None:
        assert agent.started.wait(5)
        agent.emit(1_000_000, lost=847, why="container not known")

    run(Targets({"node-a": agent.reach}), do)
    err = capsys.readouterr().err
    assert "847 lost: container not known on node-a (app 847).\n" in err
    assert "847 events of containers that ended before their names could be read" in err
    assert "without -n, -p, -c and -l they are shown by id" in err
