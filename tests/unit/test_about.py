"""`status`, with what agents say of their services; `list`, with what nodes cannot run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from agent.run.lacking import Lacking
from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.errors import Exhausted, GadgetError, KernelLacks, NoRights
from kubectl_gadget import about
from tests.fakes import FakeAgent


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`status` of agents that answer so."""

    def run(*replies: pb.DescribeReply, form: str = "columns") -> Result:
        monkeypatch.setattr(about, "describe", lambda targets: {reply.node: reply for reply in replies})
        return CliRunner().invoke(about.StatusCommand(), ["--agent", "x", "-o", form], env={"COLUMNS": "250"})

    return run


def reply(node: str, *services: tuple[str, str], **more: Any) -> pb.DescribeReply:
    told = [pb.ServiceStatus(name=name, text=text) for name, text in services]
    return pb.DescribeReply(node=node, contract=CONTRACT, services=told, **more)


def test_services(status: Any) -> None:
    """Each service that some agent says something of has a column, also one that this command line does not know."""
    first = reply("node-a", ("traceloop", "3 of 4"), ("counts", "13 forks"), ("standing", ""))
    second = reply("node-b", ("flows", "7 flows"), ("steps", "1 step"))
    head, *rows = status(first, second).output.splitlines()
    assert head.split()[-4:] == ["TRACELOOP", "FLOWS", "COUNTS", "STEPS"]
    at = [head.index(name) for name in ("TRACELOOP", "FLOWS", "COUNTS", "STEPS")]
    found = [[row[begin:end].strip() for begin, end in zip(at, [*at[1:], None], strict=True)] for row in rows]
    assert found[:2] == [["3 of 4", "-", "13 forks", "-"], ["-", "7 flows", "-", "1 step"]]


def test_problem_is_told(status: Any) -> None:
    """What I should mend is told below the table, however narrow that is; what the state says already is not."""
    broken = pb.ServiceStatus(name="detect", text="0 rules; …", problem="refused: rules: No such file or directory")
    dead = pb.ServiceStatus(name="flows", problem="thread flows died")
    told = status(
        pb.DescribeReply(node="node-a", contract=CONTRACT, services=[broken, dead], problems=["thread flows died"])
    )
    assert "warning: node-a: detect: refused: rules: No such file or directory\n" in told.output
    assert "warning: node-a: flows" not in told.output


def test_older_agent(status: Any) -> None:
    """An agent that knows of no services is shown as before."""
    told = json.loads(status(reply("node-a", traceloop="3 of 4", flows="7 flows"), form="json").output)
    assert (told["traceloop"], told["flows"], told["services"]) == ("3 of 4", "7 flows", [])


def test_problem_of_a_service(status: Any) -> None:
    """In JSON I read of each service what it has lost, and what is wrong with it."""
    losses = [pb.Loss(reason="table full", count=3)]
    service = pb.ServiceStatus(name="flows", text="7 flows", problem="thread flows died", losses=losses)
    told = json.loads(
        status(pb.DescribeReply(node="node-a", contract=CONTRACT, services=[service]), form="json").output
    )
    assert told["services"] == [
        {
            "name": "flows",
            "text": "7 flows",
            "problem": "thread flows died",
            "losses": [{"reason": "table full", "count": 3}],
        }
    ]


LACKS = "this kernel (6.1.0-57) lacks the hook cap_capable, which capable needs"


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """`list` of agents, of which some lack gadgets for a reason each."""
    agents = []

    class Able(FakeAgent):
        lacks: Mapping[str, str]

        def Lacking(self, request: pb.LackingRequest, context: grpc.ServicerContext) -> pb.LackingReply:
            metadata = (("gadget-contract", str(CONTRACT)), ("gadget-node-bin", self.node.encode()))
            context.send_initial_metadata(metadata)
            lacks = [pb.Lack(gadget=name, reason=why) for name, why in self.lacks.items()]
            return pb.LackingReply(node=self.lacks.get("as", self.node), lacks=lacks)

    def run(*nodes: dict[str, str] | None, form: str = "columns") -> Result:
        for number, lacks in enumerate(nodes):
            made = FakeAgent(tmp_path, f"node-{number}") if lacks is None else Able(tmp_path, f"node-{number}")
            made.lacks = lacks  # type: ignore[attr-defined]
            agents.append(made)
        options = [word for each in agents for word in ("--agent", each.address)]
        return CliRunner().invoke(about.ListCommand(), [*options, "-o", form])

    yield run
    for each in agents:
        each.die()


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([{}], []),
        ([{"capable": LACKS}], ["capable: not on node-0: this kernel (6.1.0-57) lacks the hook cap_capable"]),
        ([{"capable": "no\x1b[2J"}, {"sigsnoop": "not"}, {}],
         ["capable: not on node-0: no\\x1b[2J", "sigsnoop: not on node-1: not"]),
        ([{"capable": "no", "zzz": "no"}] * 2, ["capable: not on any of 2 nodes: no"]),
        ([{"capable": "no"}] * 7 + [{}], [f"capable: not on {', '.join(f'node-{at}' for at in range(5))} and 2 more: no"]),
    ],
    ids=["all", "one", "different", "everywhere", "many"],
)  # fmt: skip
def test_what_nodes_cannot_run(listed: Any, nodes: list[dict[str, str]], told: list[str]) -> None:
    """Below the gadgets I read which of them nodes cannot run and why, in a line each, with the nodes that differ."""
    shown = listed(*nodes)
    assert shown.stderr.splitlines() == told
    assert len(shown.stdout.splitlines()) == 1 + len(catalog.load())
    assert shown.exit_code == 0


def test_titles_fit() -> None:
    """On 80 columns `list` cuts no gadget's title."""
    longest = max(len(item.command) for item in catalog.load().values())
    assert [item.name for item in catalog.load().values() if longest + 2 + len(item.title) > 80] == []


def test_lacking_as_json(listed: Any) -> None:
    """In JSON each gadget has the nodes that cannot run it, with the reason; agents that are too old are told."""
    shown = listed({"capable": "no"}, {}, None, form="json")
    found = {row["name"]: row["lacking"] for row in map(json.loads, shown.stdout.splitlines())}
    assert {name for name, lacking in found.items() if lacking} == {"capable"}
    assert found["capable"] == [{"node": "node-0", "reason": "no"}]
    assert "its agent is older and cannot do this" in shown.stderr


def test_an_answer_of_another_name(listed: Any) -> None:
    """An agent that calls itself as another node is takes nothing of what that one cannot run: both are told."""
    shown = listed({"capable": "no"}, {"capable": "never", "as": "node-0"}, form="json")
    (lacking,) = (row["lacking"] for row in map(json.loads, shown.stdout.splitlines()) if row["name"] == "capable")
    assert {each["reason"] for each in lacking} == {"no", "never"}
    assert not {each["node"] for each in lacking} & {"node-0"}


@pytest.mark.parametrize("for_now", [NoRights, Exhausted])
def test_gadgets_are_loaded_once(for_now: type[GadgetError]) -> None:
    """What a kernel cannot run is found out once, however often it is asked; no rights or memory say nothing of it."""
    tried = []

    def check(gadget: Gadget) -> None:
        tried.append(gadget.name)
        if len(tried) == 1:
            raise for_now("not now")
        if gadget.name == "capable":
            raise KernelLacks(LACKS)

    lacking = Lacking(check)
    with pytest.raises(for_now):
        lacking.find(lambda: True)
    assert lacking.find(lambda: False) == {}
    assert lacking.find(lambda: True) == lacking.find(lambda: True) == {"capable": LACKS}
    assert tried[1:] == [*catalog.load()]
