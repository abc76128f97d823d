"""Agents of other versions, and other answers that no command may trip over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from gadget import CONTRACT, __version__
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unreachable
from kubectl_gadget import about
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.recording import Recording
from kubectl_gadget.stream.request import Selection
from tests.cluster_api import serve_cluster
from tests.conftest import Cli, run_cli, wait_until
from tests.fakes import WholeAgent

RECORDED = Path(__file__).parent / "recorded/execsnoop-0.1.0.gadget"
COMMANDS = {
    "containers": ["containers"],
    "traceloop list": ["traceloop", "list"],
    "traceloop show": ["traceloop", "show", "cart-0"],
    "advise": ["advise", "network-policy"],
    "advise seccomp-profile": ["advise", "seccomp-profile"],
    "execsnoop": ["execsnoop", "--timeout=200ms"],
}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[..., WholeAgent]]:
    """Makes agents that are gone after the test."""
    made: list[WholeAgent] = []

    def make(node: str, **settings: object) -> WholeAgent:
        made.append(WholeAgent(tmp_path, node, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.die()


@pytest.mark.parametrize("command", COMMANDS)
def test_too_far_apart(fake: Callable[..., WholeAgent], command: str) -> None:
    """No command takes the answer of an agent that it does not understand for another: it says that they do not fit."""
    done = run_cli(*COMMANDS[command], "--agent", fake("node-b", contract=CONTRACT + 1).address)
    assert "agent and command line are too far apart: see `kubectl gadget version`" in done.stderr, done
    assert "node-b: " in done.stderr and "Traceback" not in done.stderr
    assert done.returncode


@pytest.mark.parametrize("contract", [0, CONTRACT])
@pytest.mark.parametrize("command", COMMANDS)
def test_near_enough(fake: Callable[..., WholeAgent], command: str, contract: int) -> None:
    """An agent of the same contract, and one from before agents told, is understood by every command."""
    done = run_cli(*COMMANDS[command], "--agent", fake("node-b", contract=contract).address)
    assert "too far apart" not in done.stderr and "Traceback" not in done.stderr


class Recorded(WholeAgent):
    """Says what an agent of 0.1.0 said, byte for byte."""

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """The same run again."""
        yield from (message for _, message in Recording(RECORDED) if isinstance(message, pb.RunReply))


@pytest.mark.parametrize("live", [False, True])
def test_bytes_of_an_older_agent(tmp_path: Path, live: bool) -> None:
    """What an agent of 0.1.0 sends is understood, also when this command line is a later one; and so is a recording."""
    agent = Recorded(tmp_path, "node-a")
    source = ["execsnoop", "--agent", agent.address, "--timeout=10s"] if live else ["replay", str(RECORDED)]
    try:
        done = run_cli(*source, "-o", "json", "--fields", "node,namespace,pod,container,pid,comm,args")
    finally:
        agent.die()
    rows = [tuple(json.loads(line).values()) for line in done.stdout.splitlines()]
    assert rows == [
        ("node-a", "shop", "cart-0", "cart", 1, "sh", ["sh", "-c", "true"]),
        ("node-a", "web", "web-0", "nginx", 2, "ls", ["ls", "\x1b[31mred", "a b"]),
        ("node-a", "shop", "cart-0", "app", 3, "nope", []),
    ]
    assert "3 events from 1 node, 3 containers" in done.stderr
    assert "3 lost: ring full on node-a (app 3)" in done.stderr


def test_status_and_version(fake: Callable[..., WholeAgent]) -> None:
    """Status and version show every agent, and which is too far apart, of which one from before agents told is none."""
    agents = [fake(f"node-{contract}", contract=contract) for contract in (0, CONTRACT, CONTRACT + 1)]
    where = [f"--agent={each.address}" for each in agents]
    rows = [json.loads(line) for line in run_cli("status", "-o", "json", *where).stdout.splitlines()]
    far = "too far apart to understand each other: update the command line"
    assert {row["node"]: row["state"] for row in rows} == {"node-0": "ready", "node-1": "ready", "node-2": far}
    done = run_cli("version", "-o", "json", *where)
    assert done.stderr == f"warning: node-2: {far}\n"
    client, *nodes = map(json.loads, done.stdout.splitlines())
    assert (client["part"], client["version"]) == ("client", __version__)
    assert [(row["part"], row["node"], row["version"]) for row in nodes] == [
        ("agent", f"node-{contract}", "0.0.0") for contract in (0, 1, 2)
    ]


def test_version_of_the_cluster() -> None:
    """In a cluster version shows the API server's, too, before it says that there are no agents."""
    with serve_cluster() as cluster:
        cluster.objects["/version"] = {"gitVersion": "v1.34.4"}
        where = [f"--server={cluster.url}", "--kubeconfig=/dev/null"]
        done = run_cli("version", *where)
        assert done.stdout == f"client  {__version__}\nserver  v1.34.4\n"
        assert done.stderr.startswith("error: no agents in namespace gadget")
        server = json.loads(run_cli("version", "-o", "json", *where).stdout.splitlines()[1])
        assert (server["part"], server["version"]) == ("server", "v1.34.4")
        cluster.refused["GET", "/version"] = (403, "forbidden")
        assert run_cli("version", *where).stdout.splitlines()[1] == "server  the API server: forbidden"


def test_version_without_a_cluster(tmp_path: Path) -> None:
    """Without a cluster version shows my own, and says that there is none."""
    done = run_cli("version", env=os.environ | {"KUBECONFIG": str(tmp_path / "none")})
    assert done.stdout == f"client  {__version__}\n"
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "no cluster to talk to" in done.stderr


def test_failure_that_nobody_foresaw(fake: Callable[..., WholeAgent]) -> None:
    """Status shows the other nodes, whatever goes wrong with one."""

    def fail() -> str:
        raise RuntimeError("never seen before")

    found = about.describe(Targets({"node-a": fake("node-a").reach, "node-b": fail}))
    assert found["node-a"].node == "node-a"
    assert isinstance(found["node-b"], Unreachable) and "node-b: RuntimeError: never seen before" in str(
        found["node-b"]
    )


def test_containers_of_a_node_that_fails(fake: Callable[..., WholeAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """Containers ends, shows the others and says what went wrong, whatever it is and however many fail."""
    from kubectl_gadget.output import make_output
    from kubectl_gadget.stream import containers

    def fail() -> str:
        raise RuntimeError("never seen before")

    def refuse() -> str:
        raise Unreachable("you may not port-forward")

    failing = {"node-b": fail, "node-c": fail, "node-d": refuse, "node-e": refuse}
    targets = Targets({"node-a": fake("node-a").reach, **failing})
    fields = [field for field in containers.FIELDS if field.name in ("node", "pod")]
    with pytest.raises(Unreachable) as raised:
        containers.show(targets, pb.ContainersRequest(), make_output("json", fields, {}), Selection())
    out, err = capsys.readouterr()
    assert json.loads(out) == {"node": "node-a", "pod": "on-node-a"}
    assert sorted([*err.splitlines(), f"warning: {raised.value}"]) == [
        *(f"warning: node-{each}: RuntimeError: never seen before" for each in "bc"),
        "warning: you may not port-forward",
    ]


def test_watch_tells_at_once(fake: Callable[..., WholeAgent], tmp_path: Path) -> None:
    """With containers -w I am told at once when a node fails; the others go on."""
    agents = [fake("node-a"), fake("node-b")]
    where = [f"--agent={each.address}" for each in agents]
    with (tmp_path / "err").open("w") as err:
        cli = Cli("containers", "-w", "-o", "json", *where, stderr=err)
        assert cli.process.stdout
        assert {json.loads(cli.process.stdout.readline())["node"] for _ in agents} == {"node-a", "node-b"}
        agents[0].die()
        wait_until(lambda: "warning: " in (tmp_path / "err").read_text(), "the warning")
        assert cli.process.poll() is None
        cli.finish()
    assert f"warning: {agents[0].address}: no agent answers there\n" in (tmp_path / "err").read_text()
