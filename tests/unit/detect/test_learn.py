"""Learning what containers do: what an agent tells of it, and the baseline that a command line makes of that."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pytest

from agent.detect import learning, surroundings
from agent.detect.service import Detect
from agent.run.batch import Packed
from gadget._generated import gadget_pb2 as pb
from gadget.container_facts import ContainerFacts
from gadget.errors import Malformed
from gadget.rules import baseline
from gadget.rules.seen import PEERS, PROGRAMS, Seen
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.detect.learn import LearnCheck, Learned, learn
from kubectl_gadget.stream.request import Selection
from tests.conftest import CLI, run_cli, wait_until
from tests.fakes import AlertAgent
from tests.unit.detect.conftest import HOST, Machine
from tests.unit.test_completion import offered
from tests.unit.test_run import CONTAINERS, GADGET


class FakeLearner:
    """Learns of each event that its container runs a shell, in the place of gadget.rules.learner.Learner."""

    made: ClassVar[list[FakeLearner]] = []

    def __init__(self, schema: object, surroundings: Any) -> None:
        self._surroundings = surroundings
        self.parameters: dict[str, str] = {}
        self.judged = self.forgotten = self.crowded = 0
        self.cgroups: dict[str, int] = {}
        self._seen, self._new = dict[str, Seen](), dict[str, dict[str, list[str]]]()
        self.broken = False
        FakeLearner.made.append(self)

    def learn(self, sections: Sequence[Packed], clock_offset_ns: int) -> None:
        if self.broken and sections:
            raise ValueError("broken")
        for section in sections:
            rows = np.frombuffer(section.rows, GADGET.schema.dtype(section.record_size), section.count)
            self.judged += section.count
            for cgroup in rows["cgroup_id"].tolist():
                if self._surroundings.container(cgroup):
                    self.cgroups[f"c{cgroup}"] = cgroup
                    self.add(f"c{cgroup}", PROGRAMS, "/bin/sh")

    def add(self, key: str, kind: str, value: str) -> None:
        if new := self._seen.setdefault(key, Seen()).add(kind, value):
            self._new.setdefault(key, {}).setdefault(kind, []).append(new)

    def collect(self, *, whole: bool = False) -> dict[str, dict[str, list[str]]]:
        new, self._new = self._new, {}
        return new

    def more(self, key: str) -> dict[str, int]:
        return {}


class Asking:
    """A client that learns."""

    def __init__(self, machine: Machine, **selection: Any) -> None:
        self.active, request = True, pb.Learn(selection=pb.Selection(**selection))
        self._replies = Detect(machine.context).beginnings()["learn"](request, lambda: self.active)
        self.started = next(self._replies).started

    def learnt(self) -> list[pb.Learnt]:
        """The next that is not empty."""
        return next(found for reply in self._replies if (found := list(reply.batch.learnt)))

    def end(self) -> tuple[list[pb.Learnt], pb.Summary]:
        self.active, rest = False, list[pb.Learnt]()
        for reply in self._replies:
            rest += reply.batch.learnt
        return rest, reply.summary


@pytest.fixture
def node(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A machine whose containers run /sbin/init."""
    monkeypatch.setattr(learning, "Learner", FakeLearner)
    monkeypatch.setattr(learning, "before", lambda folder, proc: [(PROGRAMS, "/sbin/init")])
    monkeypatch.setattr(surroundings, "Follower", lambda *_: None)
    monkeypatch.setattr(FakeLearner, "made", [])
    machine.folder = lambda cgroup: tmp_path  # type: ignore[assignment]
    machine.facts = lambda cgroup: ContainerFacts(cgroup.container, repository="a/b")  # type: ignore[attr-defined]
    return machine


def test_told(node: Machine) -> None:
    """I am told at once what runs, then what is new alone, and in the end whose each container is."""
    client = Asking(node)
    first = client.learnt()
    assert {each.container.id: list(each.programs) for each in first} == {"c7": [b"/sbin/init"], "c8": [b"/sbin/init"]}
    assert {each.container.pod for each in first} == {"cart-0", "web-0"} and first[0].repository == "a/b"
    for _ in range(2):
        node.put(7, 3)
    (second,) = client.learnt()
    assert (second.container.id, list(second.programs)) == ("c7", [b"/bin/sh"]) and second.since_ns == first[0].since_ns
    node.put(7)
    rest, summary = client.end()
    assert sorted((each.container.id, list(each.programs)) for each in rest) == [("c7", []), ("c8", [])]
    assert not summary.losses
    wait_until(lambda: not node.context.runs.all(), "the end of the run")


def test_chosen(node: Machine) -> None:
    """Of pods that I did not choose, and of the host, nothing is told."""
    client = Asking(node, pods=["web-0"])
    node.put(7)
    node.put(HOST)
    node.put(8)
    assert {each.container.id for each in client.end()[0]} == {"c8"}


def test_labels_come_late(node: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -l nothing is told of a pod until its labels are known."""
    for cgroup, container in list(CONTAINERS.items()):
        monkeypatch.setitem(CONTAINERS, cgroup, replace(container, pod_uid="u"))
    client = Asking(node, labels="app=shop")
    node.labels_of["c7"] = {"app": "shop"}
    assert [each.container.id for each in client.learnt()] == ["c7"]
    node.labels_of["c8"] = {"app": "other"}
    rest, summary = client.end()
    assert {each.container.id for each in rest} == {"c7"} and not summary.undecided


def test_broken_batch(node: Machine) -> None:
    """Events that could not be looked at are counted, and hide no others."""
    client = Asking(node)
    client.learnt()
    FakeLearner.made[0].broken = True
    node.put(7, 5)
    _, summary = client.end()
    assert [(each.reason, each.count) for each in summary.losses] == [("could not be judged", 5)]


# the command line


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Callable[..., AlertAgent]]:
    """Makes agents that are gone after the test."""
    made: list[AlertAgent] = []

    def make(name: str, kind: type[AlertAgent] = AlertAgent) -> AlertAgent:
        made.append(kind(tmp_path, name))
        return made[-1]

    yield make
    for each in made:
        each.die()


def did(pod: str, **more: Any) -> pb.Learnt:
    who = pb.Container(cgroup_id=7, namespace="shop", pod=pod, container="app", id=pod)
    usual = {"owner": "ReplicaSet/web-6c9f", "revision": "6c9f", "since_ns": time.time_ns(), "repository": "a/b"}
    return pb.Learnt(container=who, **{**usual, **more})


class Teller(AlertAgent):
    """An agent that tells what it has learnt as soon as it is asked."""

    learnt: pb.Learnt

    def Run(self, requests: Iterator[pb.RunRequest], context: object) -> Iterator[pb.RunReply]:
        """A run."""
        next(requests)
        yield pb.RunReply(node=self.node, started=pb.Started(selects=1), sent_ns=time.time_ns())
        yield pb.RunReply(node=self.node, batch=pb.Batch(learnt=[self.learnt]), sent_ns=time.time_ns())
        next(requests)
        yield pb.RunReply(node=self.node, summary=pb.Summary(), sent_ns=time.time_ns())


def learn_of(agents: Sequence[Teller], output: Path | None, *learnt: pb.Learnt) -> None:
    for one, each in zip(agents, learnt, strict=True):
        one.learnt = each
    learn(Selection(), Targets({each.node: each.reach for each in agents}), 1.0, output, strict=False)


WANTED = """\
baseline: 1
workloads:
- namespace: shop
  workload: Deployment/web
  container: app
  image: a/b
  containers: 2
  seconds: 1
  programs:
  - /bin/a
  - '/bin/\\xff'
  files:
  - /tmp/x/
  ports:
  - tcp/80
  peers:
  - api.shop
  more: {files: 3}
"""


def test_baseline(agent: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pods of a workload on two nodes have one baseline, the same bytes each time; JSON says the same."""
    agents = [agent("node-a", Teller), agent("node-b", Teller)]
    for output in ("a.yaml", "b.yaml", "c.json"):
        pods = (
            did("web-6c9f-1", programs=[b"/bin/\xff"], ports=["tcp/80"], more={"files": 1}),
            did(
                "web-6c9f-2",
                programs=[b"/bin/a"],
                files=[b"/tmp/x/", b"/tmp/x/y"],
                peers=["api.shop"],
                more={"files": 2},
            ),
        )
        learn_of(agents, tmp_path / output, *(pods if output == "a.yaml" else reversed(pods)))
    text = (tmp_path / "a.yaml").read_text()
    assert text == baseline.HEAD + WANTED
    assert (tmp_path / "b.yaml").read_text() == text
    as_json = (tmp_path / "c.json").read_text()
    assert orjson.loads(as_json)["workloads"][0]["programs"] == ["/bin/a", "/bin/\\xff"]
    assert baseline.is_baseline(as_json) and baseline.read(as_json, "c") == baseline.read(text, "a")
    err = capsys.readouterr().err
    assert "2 programs, 1 file, 1 port, 1 peer from 2 nodes, 2 containers, in 1." in err
    assert "warning: more files of shop/web (app) than a baseline keeps" in err and "1 workload in " in err


def test_interrupted(agent: Callable[..., AlertAgent], tmp_path: Path) -> None:
    """Ctrl-C ends it early, and what was learnt is written."""
    one = agent("node-a")
    command = [str(CLI), "detect", "learn", "--agent", one.address, "-n", "shop", "--duration", "1h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert one.started.wait(20)
        one._replies.put(pb.Batch(learnt=[did("web-0", owner="", programs=[b"/bin/sh"])]))
        wait_until(one._replies.empty, "that it was sent")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert "workload: Pod/web-0" in out and "- /bin/sh" in out and "1 program, 0 files" in err


@pytest.mark.parametrize(
    "learnt",
    [
        did("x", ports=["tcp/80; x"]),
        did("x", ports=["tcp/70000"]),
        did("x", programs=[b"/" * 5000]),
        did("x", more={"what": 1}),
        did("x", more={"files": 1 << 63}),
        did("x", since_ns=0),
    ],
    ids=["port", "port number", "path", "kind", "times", "since"],
)
def test_agent_that_lies(learnt: pb.Learnt) -> None:
    """What an agent sends that makes no sense is refused."""
    check = LearnCheck("node-a")
    check(pb.RunReply(started=pb.Started()))
    with pytest.raises(Malformed):
        check(pb.RunReply(batch=pb.Batch(learnt=[learnt])))


def test_owner_known_later() -> None:
    """A pod whose owner is known only in the end is of its workload all the same."""
    learned = Learned()
    learned.take("n", did("web-6c9f-x2x4z", owner="", revision="", programs=[b"/bin/a"]))
    learned.take("n", did("web-6c9f-x2x4z", peers=["::1"]))
    ((who, learnt),) = learned.baseline(time.time_ns(), 0).items()
    assert (who.workload, learnt.values[PEERS], learnt.values[PROGRAMS]) == ("Deployment/web", ["::1"], ["/bin/a"])


def test_check_shows_rules(tmp_path: Path) -> None:
    """`detect check` on a baseline shows the rules that it means; they can be asked for one by one, and in JSON."""
    file = tmp_path / "b.yaml"
    file.write_text(WANTED.replace("  more: {files: 3}\n", ""))
    done = run_cli("detect", "check", str(file))
    assert "4 rules (4 enabled)" in done.stdout and not done.stderr
    assert "- rule: 'Peer that was not seen before in shop/web (app)'" in done.stdout
    shown = run_cli("detect", "check", str(file), "--rule", "Program*").stdout
    assert "proc.exepath in (/bin/a, " in shown and "/bin/sh" not in shown
    assert orjson.loads(run_cli("detect", "check", str(file), "--rule", "Port*", "-o", "json").stdout)["tags"] == [
        "baseline",
        "ports",
    ]


def test_wrong_baseline(tmp_path: Path) -> None:
    """A rule file as --baseline, one that is not there, and two with the same workload are refused at once."""
    rules, one = tmp_path / "r.yaml", tmp_path / "b.yaml"
    rules.write_text("- list: a\n  items: []\n")
    one.write_text(WANTED)
    done = run_cli("detect", "--baseline", str(rules), "--agent", "127.0.0.1:1")
    assert done.returncode == 2 and "is no baseline" in done.stderr
    assert run_cli("detect", "--baseline", str(tmp_path / "none"), "--agent", "127.0.0.1:1").returncode == 1
    done = run_cli("detect", "--baseline", str(one), "--baseline", str(one), "--agent", "127.0.0.1:1")
    assert "is in a baseline before it, too" in done.stderr


def test_help() -> None:
    """Help tells of learning and of baselines, and the shell completes them."""
    text = run_cli("detect", "--help").stdout
    assert "--baseline FILE" in text and "learn " in text
    assert offered("detect", "lea") == ["learn"] and offered("detect", "learn", "--dur") == ["--duration"]
