"""list, status, version."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from gadget import __version__, catalog
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget import about
from kubectl_gadget.cli import cli
from tests.conftest import Agent, events, run_cli, wait_until


def test_list() -> None:
    """`list` shows every gadget with what it is for."""
    lines = run_cli("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", *catalog.load()]


def test_status(agent: Agent, start_cli, make_pod) -> None:
    """`status` shows what an agent knows, what it runs and loses, and what memory it takes."""
    make_pod().container("app", "/bin/sleep", "60")
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json")
    wait_until(lambda: "execsnoop: started" in agent.log.read_text(), "the stream's start")
    (row,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
    assert (row["node"], row["state"], row["agent"], row["btf"]) == ("node-a", "ready", __version__, "yes")
    assert row["containers"] >= 1
    assert (row["runs"], row["lost"]) == (1, 0)
    assert 20 << 20 < row["memory"] < 400 << 20
    assert row["traceloop"] == "off: start its agent with --traceloop all"
    assert row["flows"] == "off: start its agent with --flows"
    assert {(each["object"], each["name"]) for each in row["programs"]} >= {
        ("tracker", "cgroup_made"),
        ("execsnoop", "exec_success"),
    }
    busy = make_pod("shop", "busy-0")
    busy.container("app", "/bin/sh", "-c", "while /bin/true; do /bin/sleep 0.02; done")
    rate = lambda: events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)[0]["rate"]  # noqa: E731
    wait_until(lambda: rate() > 5, "events per second")
    cli.finish()
    shown = run_cli("status", "--agent", agent.address, "--agent", "127.0.0.1:1")
    assert "node-a" in shown.stdout and "no agent answers there" in shown.stdout
    assert (shown.returncode, shown.stderr) == (1, "error: 1 of 2 agents did not answer\n")


def test_version(agent: Agent) -> None:
    """`version` shows my own and each node's."""
    shown = run_cli("version", "--agent", agent.address)
    assert shown.stdout.splitlines()[0] == f"client  {__version__}"
    assert shown.stdout.splitlines()[1].startswith(f"node-a  {__version__}, Linux ")
    assert shown.stderr == ""


@pytest.mark.parametrize(("contract", "what"), [(0, "agent"), (9, "command line")])
def test_too_far_apart(contract: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`version` warns if an agent and I cannot understand each other, and says which is to be updated."""
    reply = pb.DescribeReply(node="node-b", version="7.0", kernel="6.1", contract=contract)
    monkeypatch.setattr(about, "describe", lambda targets: {"node-b": reply})
    shown = CliRunner().invoke(cli, ["version", "--agent", "x"])
    assert f"warning: node-b: too far apart to understand each other: update the {what}" in shown.output
