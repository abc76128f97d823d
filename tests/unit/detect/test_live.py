"""`kubectl gadget detect` on nodes: what I see of alerts, and how I learn what is missing."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from grpc import Server

from agent.answering import serve
from agent.detect.service import Detect
from agent.server import AgentService
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Incomplete, Malformed, Unreachable, Unsupported
from gadget.rules.channels import Channels
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.detect.live import AlertCheck, RulesQuery, live, who
from kubectl_gadget.detect.written import texts
from kubectl_gadget.stream.request import Selection
from tests.conftest import CLI, run_cli, wait_until
from tests.fakes import AlertAgent, FakeAgent
from tests.unit.detect.conftest import HOST, RULES, Machine


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., AlertAgent]]:
    """Makes agents that are gone after the test."""
    made: list[AlertAgent] = []

    def make(node: str, **settings: Any) -> AlertAgent:
        made.append(AlertAgent(tmp_path, node, **settings))
        return made[-1]

    yield make
    for each in made:
        each.die()


def run(targets: Targets, do: Callable[[], None], form: str = "text", **settings: Any) -> None:
    """Show the alerts that come while do runs."""
    asked = RulesQuery(
        [("a.yaml", RULES)], ["Shell", "Talk"], False, False, Selection(), **{"timeout": 1.0, **settings}
    )
    errors: list[BaseException] = []

    def script() -> None:
        try:
            do()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=script)
    thread.start()
    try:
        live(asked, targets, texts(form), Channels([], 0.1))
    finally:
        thread.join()
    assert not errors


def of(*agents: FakeAgent) -> Targets:
    return Targets({each.node: each.reach for each in agents})


def test_alerts_of_nodes(agent: Callable[..., AlertAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """Alerts of all nodes come in the order of their time, and the last line counts them by rule, with the events."""
    agents = [agent("node-a"), agent("node-b")]

    def do() -> None:
        for each in agents:
            assert each.started.wait(5)
        agents[0].fire(agents[0].alert(at_ns=10**18 + 2, output="second"), judged=100)
        agents[1].fire(agents[1].alert("Talk", 10**18 + 1, "first"), agents[1].alert(at_ns=10**18 + 3), judged=7)

    run(of(*agents), do)
    out, err = capsys.readouterr()
    assert [line.partition(": Warning ")[2] for line in out.splitlines()] == [
        "first",
        "second",
        "A shell in a container",
    ]
    assert re.fullmatch(
        r"3 alerts \(2 Shell, 1 Talk\) of 107 events from 2 nodes, 2 containers, in \d\.\d s; nothing lost\.\n", err
    )


def test_json(agent: Callable[..., AlertAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is Falco's, and its hostname is the node."""
    one = agent("node-a")
    run(of(one), lambda: one.started.wait(5) and one.fire(one.alert(tags=["x"])), "json")
    said = orjson.loads(capsys.readouterr().out)
    assert said["hostname"] == "node-a" and said["rule"] == "Shell" and said["tags"] == ["x"]
    assert said["output_fields"] == {"proc.name": "sh", "evt.time": 10**18}
    assert re.fullmatch(r"\d\d:\d\d:40\.000000000: Warning A shell in a container", said["output"])


def test_columns(agent: Callable[..., AlertAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """Columns say when, how urgent, which pod and container, the rule and what it says."""
    one = agent("node-a")
    outside = one.alert("Talk", output="Talk with x")
    outside.ClearField("container")
    run(of(one), lambda: one.started.wait(5) and one.fire(one.alert(), outside), "columns")
    lines = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert [line[1:] for line in lines] == [
        ["Warning", "shop/on-node-a (app)", "Shell: A shell in a container"],
        ["Warning", "node-a", "Talk with x"],
    ]


def test_who() -> None:
    """A container without a pod is called by its name, else by the beginning of its id."""
    assert who(pb.Container(container="web", id="c" * 64), "n") == "web"
    assert who(pb.Container(id="c" * 64), "n") == "c" * 12
    assert who(pb.Container(namespace="shop", pod="cart-0"), "n") == "shop/cart-0"


def test_losses(agent: Callable[..., AlertAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """What was lost is told by reason, node and container, with what helps; --strict makes it exit code 3."""
    one = agent("node-a")
    with pytest.raises(Incomplete):
        run(of(one), lambda: one.started.wait(5) and one.fire(lost=5), strict=True)
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("; 5 lost: ring full on node-a (app 5). Ask fewer rules: --priority, --tag, --rule.")
    )


def test_node_without_agent(agent: Callable[..., AlertAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a node that has no agent I am told, and see the alerts of the others."""
    one = agent("node-a")

    def fail() -> str:
        raise Unreachable("node-b: no agent")

    targets = Targets({"node-a": one.reach, "node-b": fail})
    run(targets, lambda: one.started.wait(5) and one.fire(one.alert()))
    out, err = capsys.readouterr()
    assert out and "warning: node-b: no agent" in err and err.splitlines()[-1] == "incomplete: node-b: no agent"


class Older(FakeAgent):
    """An agent that does not know rules."""

    def Run(self, requests: Any, context: Any) -> Any:
        import grpc

        assert next(requests)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a run begins with start or attach")
        yield pb.RunReply()


def test_older_agent(tmp_path: Path) -> None:
    """An agent that is too old to ask rules is told as that."""
    one = Older(tmp_path, "node-a")
    with pytest.raises(Unsupported, match="node-a: its agent is older"):
        run(of(one), lambda: None)
    one.die()


@pytest.mark.parametrize(
    "change",
    [
        {"priority": "Loud"},
        {"rule": "Another"},
        {"rule": ""},
        {"at_ns": -1},
        {"fields_json": b"[1]"},
        {"fields_json": b"{"},
        {"fields_json": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"},
        {"fields_json": b'{"a":{"b":1}}'},
        {"output": "x" * (257 << 10)},
        {"tags": ["t"] * 300},
    ],
)
def test_alerts_that_make_no_sense(agent: Callable[..., AlertAgent], change: dict[str, Any]) -> None:
    """An agent that sends what no agent does is refused, by name."""
    alert = agent("node-a").alert(**change)
    check = AlertCheck({"Shell"}, "node-a")
    check(pb.RunReply(started=pb.Started()))
    with pytest.raises(Malformed, match="node-a: its agent sends alerts"):
        check(pb.RunReply(batch=pb.Batch(alerts=[alert])))


def test_other_replies() -> None:
    """An agent that answers rules with events, or before it has begun, is refused."""
    with pytest.raises(Malformed):
        AlertCheck({"Shell"}, "node-a")(pb.RunReply(batch=pb.Batch()))
    check = AlertCheck({"Shell"}, "node-a")
    check(pb.RunReply(started=pb.Started()))
    with pytest.raises(Malformed):
        check(pb.RunReply(batch=pb.Batch(sections=[pb.Section(count=1)])))


def test_long_and_odd_outputs(agent: Callable[..., AlertAgent], capsys: pytest.CaptureFixture[str]) -> None:
    """What a process chose to be called moves no cursor, and a long alert is whole."""
    one = agent("node-a")
    run(of(one), lambda: one.started.wait(5) and one.fire(one.alert(output="\x1b[2J" + "x" * 5000)))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "x" * 5000 in out


@pytest.fixture
def rules(tmp_path: Path) -> str:
    (tmp_path / "rules.yaml").write_text(RULES)
    return str(tmp_path / "rules.yaml")


def test_command(agent: Callable[..., AlertAgent], rules: str) -> None:
    """Agents are asked the rules that I chose of my files, and of the containers that I chose."""
    one = agent("node-a")
    done = run_cli("detect", "--agent", one.address, "--rules", rules, "--rule", "talk", "-n", "shop", "-p", "cart*",
                   "--host", "--timeout", "300ms")  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "") and done.stderr.startswith("0 alerts of 0 events from 1 node")
    asked = one.detect
    assert [(each.name, each.text) for each in asked.files] == [(rules, RULES)]
    assert list(asked.rules) == ["Talk"] and (asked.first, asked.host) == (False, True)
    assert list(asked.selection.namespaces) == ["shop"] and asked.selection.any_of[0].pattern == "cart*"


def test_falco_rules(agent: Callable[..., AlertAgent], rules: str) -> None:
    """--falco-rules is --rules with Falco's way to match, unless I say otherwise."""
    one = agent("node-a")
    run_cli("detect", "--agent", one.address, "--falco-rules", rules, "--timeout", "200ms")
    assert one.detect.first and list(one.detect.rules) == ["Shell", "Talk"]
    run_cli("detect", "--agent", one.address, "--falco-rules", rules, "--rule-matching", "all", "--timeout", "200ms")
    assert not one.detect.first


def test_default_rules(agent: Callable[..., AlertAgent]) -> None:
    """Where I name no rules, those judge that come with it, but for those on audit events and those that are off."""
    one = agent("node-a")
    done = run_cli("detect", "--agent", one.address, "--timeout", "300ms")
    assert done.returncode == 0 and len(one.detect.rules) > 20 and len(one.detect.files) > 3


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--k8s-audit", "-", "-c", "web"], "--container"),
        (["--k8s-audit", "-", "--host"], "--host"),
        (["--rule", "Nobody", "--local"], "there is no rule 'Nobody'"),
        (["-n", "a", "-A"], "choose one"),
    ],
)
def test_refused(arguments: list[str], why: str) -> None:
    """Options that do not go together are refused before any agent is asked."""
    done = run_cli("detect", *arguments, input="")
    assert done.returncode == 2 and re.search(why, done.stderr)


def test_ctrl_c(agent: Callable[..., AlertAgent], rules: str, tmp_path: Path) -> None:
    """Ctrl-C ends it within a second, after the last line, and what was sent elsewhere is told."""
    one = agent("node-a")
    command = [str(CLI), "detect", "--agent", one.address, "--rules", rules, "--to", f"file:{tmp_path}/alerts"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert one.started.wait(20) and process.stdout and process.stderr
        one.fire(one.alert(), judged=3)
        assert "A shell in a container" in process.stdout.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0 and time.monotonic() - began < 3.0
        err = process.stderr.read().splitlines()
    assert err[0].startswith("1 alert (1 Shell) of 3 events from 1 node, 1 container, in ")
    assert err[1].startswith("1 alert sent to file:")
    assert orjson.loads((tmp_path / "alerts").read_bytes())["hostname"] == "node-a"


def test_stdout_that_nobody_reads(agent: Callable[..., AlertAgent], rules: str, tmp_path: Path) -> None:
    """Where my pager stands still, alerts reach the file all the same, and Ctrl-C ends it and tells what was lost."""
    one, sent = agent("node-a"), tmp_path / "alerts"
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    command = [str(CLI), "detect", "--agent", one.address, "--rules", rules, "--to", f"file:{sent}"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        assert one.started.wait(20) and process.stderr
        for at in range(10):
            one.fire(*(one.alert(at_ns=10**18 + at * 100 + each) for each in range(30)), judged=1)
        wait_until(lambda: sent.exists() and sent.read_bytes().count(b"\n") == 300, "the alerts in the file", 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
        told = process.stderr.read()
    with open(ours, "rb") as pipe:
        written = pipe.read().count(b"A shell in a container")
    assert 0 < written < 300
    assert f"{300 - written} lost: nobody reads it" in told and "300 alerts sent to file:" in told


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing until somebody reads."""
    ours, theirs = os.pipe()
    size = fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    os.write(theirs, b"." * size)
    return ours, theirs


def test_one_pipe_that_nobody_reads(agent: Callable[..., AlertAgent], rules: str, tmp_path: Path) -> None:
    """With 2>&1 into a pager that stands still alerts reach the file all the same, and Ctrl-C ends it; a reader has the rest."""
    one, sent = agent("node-a"), tmp_path / "alerts"
    ours, theirs = full_pipe()
    command = [str(CLI), "detect", "--agent", one.address, "--rules", rules, "--to", f"file:{sent}",
               "--to", "http://127.0.0.1:1/"]  # fmt: skip
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        assert one.started.wait(20)
        for at in range(2):  # that the receiver fails is told between them
            one.fire(one.alert(at_ns=10**18 + at), judged=1)
            wait_until(lambda: sent.exists() and sent.read_bytes().count(b"\n") == at + 1, "the alert in the file", 20)  # noqa: B023
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
    with open(ours, "rb") as pipe:
        assert set(pipe.read()) == {ord(".")}


def test_said_later(agent: Callable[..., AlertAgent], rules: str) -> None:
    """What is told while nobody reads is there, in order, once somebody does."""
    one = agent("node-a")
    ours, theirs = full_pipe()
    command = [str(CLI), "detect", "--agent", one.address, "--rules", rules, "--timeout", "2s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert one.started.wait(20) and process.stdout
        one.fire(one.alert(), judged=3)
        assert b"A shell in a container" in process.stdout.readline()
        with open(ours, "rb") as pipe:
            said = pipe.read().decode().lstrip(".")
        assert process.wait(20) == 0
    assert said.startswith("1 alert (1 Shell) of 3 events from 1 node") and said.count("\n") == 1


@pytest.fixture
def served(machine: Machine, tmp_path: Path) -> Iterator[str]:
    """The address of an agent in this process."""
    service = AgentService("node-a", machine.context.tracker, {"detect": Detect(machine.context)}, machine.context.runs)
    server: Server = serve(f"unix://{tmp_path}/agent.sock", service)
    yield f"unix://{tmp_path}/agent.sock"
    service.finish()
    server.stop(1).wait()


def test_whole_way(machine: Machine, served: str, rules: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What happens in a container becomes a line on my screen; what was lost in the kernel is in the last line."""
    from agent.run.batch import Loss

    def do() -> None:
        wait_until(lambda: machine.sources, "the run")
        machine.put(7, 2)
        machine.put(HOST)
        machine.sources[0].lost = [Loss("ring full", 8, 3)]

    run(Targets({"node-a": lambda: served}), do, "columns", timeout=2.5)
    out, err = capsys.readouterr()
    shells, lost = ([line for line in out.splitlines() if each in line] for each in ("Shell", "lost"))
    assert len(shells) == 2 and all("shop/cart-0 (c7)  Shell: A shell in c7" in line for line in shells)
    assert len(lost) == 1 and lost[0].endswith("shop/web-0 (c8)  Events or alerts were lost | count=3 reason=ring full")
    assert "3 alerts (2 Shell, 1 Events or alerts were lost) of 3 events from 1 node, 2 containers" in err
    assert "3 lost: ring full on node-a (c8 3)." in err
