"""`status`, with what agents say of their services."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gadget import CONTRACT
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget import about


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
