"""Rules that always judge: what is kept, what becomes of changed rules, and how I read it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest

from agent.answering import serve
from agent.detect import judging, watching
from agent.detect.always import Always
from agent.detect.judging import masked
from agent.detect.service import Detect
from agent.detect.settings import Settings
from agent.detect.watching import NOT_JUDGED
from agent.run.run import Run
from agent.server import AgentService
from agent.standing.history import History
from agent.traceloop.redact import Redactor
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported
from gadget.recorded import NOT_KEPT
from gadget.rules.alerts import Alert
from gadget.rules.messages import SentRule
from kubectl_gadget.detect.kept import AlertsCommand
from kubectl_gadget.detect.live import MANY, _tell_more
from tests.conftest import CLI, run_cli, wait_until
from tests.fakes import FakeJudge
from tests.terminal import Terminal
from tests.unit.detect.conftest import RULES, Machine
from tests.unit.detect.test_live import full_pipe
from tests.unit.rules.test_rules import rule


class Node:
    """Agents, one after the other, that judge by the rules of a folder."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.rules = machine, folder / "rules"
        self.rules.mkdir()
        (self.rules / "a.yaml").write_text(RULES)
        self.settings = Settings((str(self.rules),), keep=1, look_seconds=0.02, again_seconds=0.05)
        self._agent: Always | None = None

    def agent(self) -> Always:
        """The next one, at work."""
        self.end()
        begun = len(self.machine.sources)
        self._agent = Always(self.machine.context, self.settings)
        wait_until(lambda: len(self.machine.sources) > begun, "the run")
        return self._agent

    def end(self) -> None:
        if self._agent:
            self._agent.close()
        self._agent = None

    def kept(self, since_ns: int = 0) -> list[pb.RunReply]:
        assert self._agent
        return list(self._agent.read(pb.KeptAlerts(since_ns=since_ns), lambda: True))

    def alerts(self) -> list[pb.Alert]:
        return [alert for reply in self.kept() for alert in reply.batch.alerts]


@pytest.fixture
def node(machine: Machine, tmp_path: Path) -> Iterator[Node]:
    made = Node(machine, tmp_path)
    yield made
    made.end()


def said(node: Node) -> list[str]:
    return [f"{alert.rule} {alert.output}" for alert in node.alerts()]


def test_kept(node: Node) -> None:
    """Alerts are kept without a client, and those of earlier agents stay; that nobody watched in between is told."""
    node.agent()
    node.machine.put(7)
    wait_until(lambda: said(node) == ["Shell A shell in c7"], "the alert")
    node.agent()
    node.machine.put(8)
    wait_until(lambda: said(node) == ["Shell A shell in c7", "Shell A shell in c8"], "the second alert")
    (gap,) = [reply.interrupted for reply in node.kept() if reply.WhichOneof("what") == "interrupted"]
    assert gap.reason == "node-a: the agent was not there" and gap.heard_ns


def test_ready(machine: Machine, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is ready judges already, and knows which processes run: what I start then has no false alert."""
    begin = machine.begin

    def slow(*rest: object) -> Run:
        time.sleep(0.3)  # as to load programs into the kernel
        return begin(*rest)

    monkeypatch.setattr(watching, "begin", slow)
    node._agent = agent = Always(machine.context, node.settings)
    assert len(machine.sources) == 1 and FakeJudge.made[0].has_begun and "2 rules;" in agent.describe()


def test_ready_without_rules(node: Node) -> None:
    """An agent whose rules make no sense is ready, and `status` says what is wrong with them."""
    (node.rules / "a.yaml").write_text(rule("proc.nme = sh"))
    node._agent = agent = Always(node.machine.context, node.settings)
    assert "refused: a.yaml:3:" in agent.describe()


def test_before_it_is_known_what_runs(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens before it is known which processes run is not judged: whose ancestors are not known may be anybody."""
    monkeypatch.setattr(FakeJudge, "at_ns", 1)
    node.agent()
    node.machine.put(7)
    wait_until(lambda: FakeJudge.made[0].judged == 1, "the early event")
    monkeypatch.setattr(FakeJudge, "at_ns", 0)
    node.machine.put(8)
    wait_until(lambda: said(node) == ["Shell A shell in c8"], "the later alert")


def test_end_keeps_the_last_alerts(node: Node) -> None:
    """What happened just before the agent ended is judged and kept."""
    node.agent()
    node.machine.put(7, 5)
    node.end()
    node.agent()
    assert len(said(node)) == 5


def test_changed_rules(node: Node) -> None:
    """When the folder changes the new rules judge, each event by the old or by the new ones, and none twice."""
    agent = node.agent()
    node.machine.put(7)
    wait_until(lambda: len(said(node)) == 1, "the first alert")
    (node.rules / "a.yaml").write_text(rule("evt.type = open", name="Open"))
    wait_until(lambda: "1 rule;" in agent.describe(), "the new rules")
    node.machine.put(8)
    wait_until(lambda: said(node) == ["Shell A shell in c7", "Open A shell in c8"], "the second alert")
    assert len(node.machine.context.runs.all()) == 1


def test_broken_rules(node: Node) -> None:
    """Rules that make no sense are refused in `status`, with the place, and those before go on; until they are mended."""
    agent = node.agent()
    (node.rules / "b.yaml").write_text(rule("proc.nme = sh", name="B"))
    wait_until(lambda: "b.yaml:3:" in agent.describe(), "the refusal")
    assert "the rules before go on, as new ones are refused" in agent.describe() and "\n" not in agent.describe()
    assert "b.yaml:3:" in Detect(node.machine.context, agent).problem()
    node.machine.put(7)
    wait_until(lambda: len(said(node)) == 1, "the alert")
    (node.rules / "b.yaml").unlink()
    wait_until(lambda: "refused" not in agent.describe(), "the end of the refusal")
    assert not agent.worker.problem and not agent.problem()


def test_folder_that_comes_later(machine: Machine, node: Node) -> None:
    """A folder that is not there yet, or empty, is told, and taken when it has rules."""
    (node.rules / "a.yaml").rename(node.rules.parent / "a.yaml")
    node._agent = agent = Always(machine.context, node.settings)
    wait_until(lambda: "refused: " in agent.describe(), "the refusal")
    with pytest.raises(Unsupported, match=r"no rules judge on node-a: .*/rules: 0 \.yaml files"):
        node.kept()
    (node.rules.parent / "a.yaml").rename(node.rules / "a.yaml")
    wait_until(lambda: "2 rules; 0 alerts kept" in agent.describe(), "the rules")


def test_folder_that_is_not_there(machine: Machine, node: Node) -> None:
    """A folder that I mistyped is named in `status` and by `alerts`."""
    settings = replace(node.settings, rules=("defualt",))
    node._agent = agent = Always(machine.context, settings)
    wait_until(lambda: "refused: defualt: No such file or directory" in agent.describe(), "the refusal")
    with pytest.raises(Unsupported, match="no rules judge on node-a: defualt: No such file or directory"):
        node.kept()


def test_nothing_kept_yet(machine: Machine, node: Node) -> None:
    """`alerts` at once after the agent's begin shows nothing, and is no error."""
    node._agent = agent = Always(machine.context, replace(node.settings, look_seconds=60.0))
    agent.worker.stop()
    agent._followed.refused = ""
    agent.kept.history.delete()
    agent.kept.history = History(node.machine.folder / "none", "detect", "node-a", 1 << 20)
    assert [reply.WhichOneof("what") for reply in node.kept()] == ["started", "summary"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"- " * 5000, b"#" * (4 << 20), b"- rule: {}\n", b"- rule: [\n"])
def test_hostile_rules(node: Node, content: bytes) -> None:
    """Whatever is in a file, the agent goes on with the rules before, and tells what is wrong in one line."""
    agent = node.agent()
    (node.rules / "odd.yaml").write_bytes(content)
    wait_until(lambda: "refused" in agent.describe(), "the refusal")
    assert agent.describe().isprintable() and not agent.worker.problem


def test_kernel_that_cannot(machine: Machine, node: Node) -> None:
    """Where events cannot be had now that is told, and tried again."""
    machine.refuses = Unsupported("no ring buffers here")
    node._agent = agent = Always(machine.context, node.settings)
    wait_until(lambda: "not judging: no ring buffers here" in agent.describe(), "the reason")
    machine.refuses = None
    wait_until(lambda: "not judging" not in agent.describe(), "the run")


def test_kernel_that_cannot_keeps_no_threads(machine: Machine, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried in vain, no thread of a try stays behind in the agent."""
    made: list[Opened] = []
    monkeypatch.setattr(judging, "Surroundings", lambda *_, **__: made.append(Opened()) or made[-1])
    machine.refuses = Unsupported("no ring buffers here")
    node._agent = Always(machine.context, node.settings)
    wait_until(lambda: len(made) > 2, "the third try")
    assert [each.closed for each in made[:2]] == [1, 1]


class Opened:
    """Surroundings, and how often they were closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_run_that_dies(node: Node) -> None:
    """When a run dies another one begins, and the gap is told."""
    node.agent()
    node.machine.put(7)
    wait_until(lambda: len(said(node)) == 1, "the alert")
    node.machine.sources[0].broken = OSError("the ring is gone")
    node.machine.put(7)
    wait_until(lambda: len(node.machine.sources) == 2, "another run")
    node.machine.put(8)
    wait_until(lambda: len(said(node)) == 2, "an alert after it")
    reasons = [reply.interrupted.reason for reply in node.kept() if reply.WhichOneof("what") == "interrupted"]
    assert any("the ring is gone" in reason for reason in reasons)


def test_agent_that_ends(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that ends in order warns of nothing, and keeps what happened by then."""
    node.agent()
    node.machine.put(7)
    node.machine.context.runs.finish()
    wait_until(lambda: len(said(node)) == 1, "the alert")
    node.end()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_losses_add_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not judged is in `status` and in what is read, also once other rules judge."""
    agent = node.agent()
    monkeypatch.setattr(FakeJudge, "broken", ZeroDivisionError("odd"))
    node.machine.put(7, 3)
    wait_until(lambda: agent.losses() == {NOT_JUDGED: 3}, "the loss")
    assert "events were not judged: ZeroDivisionError: odd" in agent.describe()
    (node.rules / "b.yaml").write_text(rule("evt.type = open", name="Open"))
    wait_until(lambda: "3 rules" in agent.describe(), "the new rules")
    node.machine.put(7, 2)
    wait_until(lambda: agent.losses() == {NOT_JUDGED: 5}, "both losses")
    wait_until(lambda: [each.count for each in node.kept()[-1].summary.losses] == [5], "both losses, kept")


def test_bounded(node: Node) -> None:
    """What is kept has a bound; the oldest goes first, and how many have gone is told."""
    agent = node.agent()
    alert = pb.Alert(rule="Shell", time_ns=1, priority="Warning", output="x" * 20_000, fields_json=b"{}")
    wait_until(lambda: agent.kept.history.kept[1], "the first file")
    agent.worker.stop()
    assert agent._judging
    for _ in range(100):
        agent._from_ns = 0
        agent._keep(agent._judging, [alert], time.time_ns())
    events, size, _ = agent.kept.history.kept
    assert size <= 1 << 20 and events < 60 and agent.kept.history.overwritten == 100 - events
    assert f"{100 - events} overwritten" in agent.describe()
    assert [(each.reason, each.count) for each in node.kept()[-1].summary.losses] == [("overwritten", 100 - events)]


def test_disk_full(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts that cannot be written are counted, and told with the reason."""
    agent = node.agent()
    wait_until(lambda: agent.kept.history.kept[1], "the first file")

    def fail(reply: pb.RunReply) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(agent.kept.history, "append", fail)
        node.machine.put(7, 3)
        wait_until(lambda: "3 alerts could not be kept: No space left on device" in agent.describe(), "the reason")
    node.machine.put(8)
    wait_until(lambda: agent.losses() == {NOT_KEPT: 3} and said(node) == ["Shell A shell in c8"], "the next alert")


def test_two_agents(machine: Machine, node: Node) -> None:
    """A second agent on the machine does not write where the first one does."""
    node.agent()
    with pytest.raises(Unsupported, match="another agent"):
        Always(machine.context, node.settings)


def test_end_leaves_nothing(node: Node) -> None:
    """`undeploy` removes the alerts too."""
    agent = node.agent()
    wait_until(lambda: agent.kept.history.kept[1], "the first file")
    detect = Detect(node.machine.context, agent)
    node._agent = None
    detect.end()
    detect.close()
    assert not (node.machine.folder / "detect").exists()
    with pytest.raises(Unsupported, match="it has been removed there"):
        next(detect.beginnings()["kept_alerts"](pb.KeptAlerts(), lambda: True))


def test_end_of_an_agent_without_rules_leaves_nothing(node: Node) -> None:
    """`undeploy` removes the alerts of an earlier agent, too, but not those that another agent still keeps."""
    agent = node.agent()
    wait_until(lambda: agent.kept.history.kept[1], "the first file")
    kept, detect = node.machine.folder / "detect", Detect(node.machine.context)
    detect.end()
    assert [*kept.rglob("*.gadget")]
    node.end()
    detect.end()
    assert not kept.exists()


def test_nobody_asked(machine: Machine) -> None:
    """An agent without rules says how to give it some."""
    with pytest.raises(Unsupported, match="no rules always judge on node-a: give it rules: gadget-agent --detect DIR"):
        next(Detect(machine.context).beginnings()["kept_alerts"](pb.KeptAlerts(), lambda: True))


def test_redacted() -> None:
    """What --redact matches leaves the machine in no alert, neither in its text nor in its fields."""
    alert = Alert(SentRule("Shell", "Warning", "syscall", frozenset()), 1, "cmd=x password=secret", {
        "proc.cmdline": "x password=secret", "proc.aname": ("password=secret",), "proc.pid": 7})  # fmt: skip
    made = masked(alert, Redactor(["password=[^ ]*"]).mask)
    assert made.text == f"cmd=x {'*' * 15}"
    assert made.fields == {"proc.cmdline": f"x {'*' * 15}", "proc.aname": ["*" * 15], "proc.pid": 7}


@pytest.fixture
def served(node: Node, tmp_path: Path) -> Iterator[str]:
    """The address of an agent whose rules have fired on shop/cart-0 and shop/web-0."""
    agent = node.agent()
    service = AgentService(
        "node-a",
        node.machine.context.tracker,
        {"detect": Detect(node.machine.context, agent)},
        node.machine.context.runs,
    )
    server = serve(f"unix://{tmp_path}/agent.sock", service)
    node.machine.put(7, 2)
    node.machine.put(8)
    wait_until(lambda: len(said(node)) == 3, "the alerts")
    yield f"unix://{tmp_path}/agent.sock"
    service.finish()
    server.stop(1).wait()


def test_command(served: str) -> None:
    """`alerts` shows what was kept, of the pods and rules that I choose, and says of how many events it is."""
    done = run_cli("alerts", "--agent", served)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3, done.stderr
    assert re.fullmatch(
        r"3 alerts \(3 Shell\) of 3 events from 1 node, 2 containers, as kept; nothing lost\.\n", done.stderr
    )
    chosen = run_cli("alerts", "--agent", served, "-p", "web*", "-o", "json", "--rule", "sh*", "--priority", "error")
    assert chosen.returncode == 0 and not chosen.stdout
    chosen = run_cli("alerts", "--agent", served, "-p", "web*", "-o", "json", "--rule", "sh*", "--since", "1h")
    assert orjson.loads(chosen.stdout)["hostname"] == "node-a"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--rule", "shel"), "no kept alert is of a rule 'shel'; there is Shell"),
        (("-n", "shpo"), "no kept alert is of namespace shpo; there is shop"),
        (
            ("-n", "shop", "-p", "crat*"),
            "no kept alert is of a pod crat* in namespace shop; there is cart-0 and 1 more",
        ),
        (("--priority", "error"), "3 kept alerts are of other rules, priorities, pods or containers"),
        (("--since", "1ms"), ""),
    ],
)
def test_nothing_is_as_asked(served: str, options: tuple[str, ...], why: str) -> None:
    """When no alert is of what I asked for I learn what there is: I may have mistyped it."""
    time.sleep(0.01)
    done = run_cli("alerts", "--agent", served, *options)
    last, *more = done.stderr.splitlines()
    assert done.returncode == 0 and last.startswith("0 alerts of ")
    assert "".join(more).startswith(why) and len(more) == bool(why)


def test_first_words(served: str) -> None:
    """`alerts -A` is what I have in my fingers; an id alone tells what to type, and any other word that it is none."""
    assert len(run_cli("alerts", "-A", "--agent", served).stdout.splitlines()) == 3
    done = run_cli("alerts", "--agent", served, "k7m2qp4")
    assert done.returncode == 2 and "'k7m2qp4': one alert is `kubectl gadget alerts show k7m2qp4`" in done.stderr
    assert "no such command 'list'" in run_cli("alerts", "--agent", served, "list").stderr


def test_on_a_terminal(served: str) -> None:
    """The last lines on a terminal end between words, and say how I learn more of an alert."""
    with Terminal(str(CLI), "alerts", "--agent", served, columns=60) as terminal:
        terminal.wait()
        *_, first, second, hint = terminal.lines
    assert first == "3 alerts (3 Shell) of 3 events from 1 node, 2 containers, as" and second == "kept; nothing lost."
    assert hint == "What led to an alert: kubectl gadget alerts show ID"


@pytest.mark.parametrize("named", [MANY, MANY + 1])
def test_more_than_a_screen(named: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """After more alerts than a screen has room for I am told how to count them, as nobody reads hundreds."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _tell_more(Mock(named=named))
    assert ("alerts --by rule,pod" in capsys.readouterr().err) == (named > MANY)


@pytest.mark.parametrize("arguments", [[], ["show", "k7m2qp4"]])
def test_no_agent(arguments: list[str], agent_socket: Path) -> None:
    """Where no agent runs on my machine `alerts --local` starts none, which would know nothing, and says how to have one."""
    how = f"no alerts are kept: start one, as root: gadget-agent --listen unix://{agent_socket} --detect default"
    with pytest.raises(Unsupported, match=re.escape(how)):
        AlertsCommand().main([*arguments, "--local"], standalone_mode=False)


def test_counted(served: str) -> None:
    """--by counts them by rule and pod, the most frequent first."""
    done = run_cli("alerts", "--agent", served, "--by", "rule,pod")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["COUNT", "RULE", "POD"],
        ["2", "Shell", "cart-0"],
        ["1", "Shell", "web-0"],
    ]
    wrong = run_cli("alerts", "--agent", served, "--by", "pods")
    assert wrong.returncode == 2 and "did you mean pod?" in wrong.stderr


def test_sent_elsewhere(served: str, tmp_path: Path) -> None:
    """What agents keep goes to a receiver of mine with --to, and what does not arrive makes the exit code 1."""
    done = run_cli("alerts", "--agent", served, "--to", f"file:{tmp_path}/sent")
    assert done.returncode == 0 and "3 alerts sent to file:" in done.stderr
    assert [orjson.loads(line)["rule"] for line in (tmp_path / "sent").read_bytes().splitlines()] == ["Shell"] * 3
    nowhere = run_cli("alerts", "--agent", served, "--to", f"file:{tmp_path}/no/sent")
    assert nowhere.returncode and "Traceback" not in nowhere.stderr


def test_counts_that_nobody_reads(served: str, tmp_path: Path) -> None:
    """A table of counts on a terminal that stands still does not keep Ctrl-C from ending it; I am told that it is lost."""
    (ours, theirs), sent = full_pipe(), tmp_path / "sent"
    command = [str(CLI), "alerts", "-f", "--by", "rule", "--agent", served, "--to", f"file:{sent}"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        wait_until(lambda: sent.exists() and sent.read_bytes().count(b"\n") == 3, "the alerts in the file", 60)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=20)[1]
    os.close(ours)
    assert process.returncode == 1 and "3 alerts were not sent" in told
    assert "0 tables written to standard output, 1 lost: nobody reads it" in told


def test_follow(served: str, node: Node) -> None:
    """With -f those that come are shown, too."""
    timer = threading.Timer(2.0, node.machine.put, [8])
    timer.start()
    done = run_cli("alerts", "--agent", served, "-f", "--timeout", "4s", "-o", "text")
    timer.join()
    assert len(done.stdout.splitlines()) == 4, done.stderr
