"""list, status, version."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from gadget import __version__, catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from kubectl_gadget import about
from kubectl_gadget.cli import cli
from tests.conftest import Agent, events, run_cli, wait_until


def test_list() -> None:
    """`list` shows every gadget with what it is for."""
    lines = run_cli("list").stdout.splitlines()
    names = ["NAME", *(name.replace("_", " ") for name in catalog.load())]
    assert [line.partition("  ")[0] for line in lines] == names


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
    assert "node-a" in shown.stdout and "no agent" in shown.stdout
    assert shown.stderr.splitlines() == [
        "127.0.0.1:1: no agent answers there",
        "error: 1 of 2 agents did not answer",
    ]
    assert shown.returncode == 1


def test_status_of_recorders(start_agent, bpffs) -> None:
    """`status` shows the programs of the recorders too, with what they have cost if the kernel measures that."""
    agent = start_agent("--bpffs", str(bpffs), "--state", str(bpffs.parent / "state"))
    measured = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = measured.read_text()
    measured.write_text("1")
    try:
        run_cli("list")  # it opens files
        (row,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
    finally:
        measured.write_text(before)
    programs = {(each["object"], each["name"]): each for each in row["programs"]}
    assert {each for each, _ in programs} == {"tracker", "traceloop", "flows"}
    busy = programs["traceloop", "call_returned"]
    assert busy["runs"] > 100 and busy["run_time_ns"] > busy["runs"]


def test_status_while_runs_come_and_go(agent) -> None:
    """I may ask for the status as often as I like while streams begin and end: the agent answers and lives."""
    over = threading.Event()
    asked = []

    def ask() -> None:
        with grpc.insecure_channel(agent.address) as channel:
            while not over.is_set():
                asked.append(rpc.AgentStub(channel).Describe(pb.DescribeRequest(), timeout=20).node)

    def run(_: int) -> None:
        with grpc.insecure_channel(agent.address) as channel:
            call = rpc.AgentStub(channel).Run(iter([pb.RunRequest(start=pb.Start(gadget="execsnoop"))]))
            assert [reply.WhichOneof("what") for reply in call][-1] == "summary"

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            list(pool.map(run, range(41)))
        finally:
            over.set()
        for each in asking:
            each.result()
    assert len(asked) > 41 and set(asked) == {"node-a"}
    assert agent.process.poll() is None
    assert "Traceback" not in agent.log.read_text()


def test_version(agent: Agent) -> None:
    """`version` shows my own and each node's."""
    shown = run_cli("version", "--agent", agent.address)
    assert shown.stdout.splitlines()[0] == f"client  {__version__}"
    assert shown.stdout.splitlines()[1].startswith(f"node-a  {__version__}, Linux ")
    assert shown.stderr == ""


@pytest.mark.parametrize(("contract", "what"), [(6, "agent"), (9, "command line")])
def test_too_far_apart(contract: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`version` warns if an agent and I cannot understand each other, and says which is to be updated."""
    reply = pb.DescribeReply(node="node-b", version="7.0", kernel="6.1", contract=contract)
    monkeypatch.setattr(about, "describe", lambda targets: {"node-b": reply})
    monkeypatch.setattr(about, "CONTRACT", 7)
    shown = CliRunner().invoke(cli, ["version", "--agent", "x"])
    assert f"warning: node-b: too far apart to understand each other: update the {what}" in shown.output
