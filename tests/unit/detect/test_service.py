"""Rules of a client in an agent: which alerts it gets, what it is told of losses, and when that ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from threading import BoundedSemaphore

import pytest

from agent.detect import judging, service, waiting
from agent.detect.choice import NOT_KNOWN, AlertChoice
from agent.detect.judging import TOO_LARGE, TOO_SLOW
from agent.detect.service import Detect
from agent.detect.watching import NOT_JUDGED
from agent.run.batch import Loss
from agent.selection import Selection
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted, GadgetError, Unsupported, UsageError
from gadget.rules import grouping, messages
from gadget.rules.alerts import INTERNAL, Alert
from tests.conftest import wait_until
from tests.fakes import FakeJudge
from tests.unit.detect.conftest import HOST, RULES, Machine
from tests.unit.rules.test_rules import rule
from tests.unit.test_run import CONTAINERS


def of_rules(reply: pb.RunReply) -> list[pb.Alert]:
    """The alerts that do not tell of losses."""
    return [each for each in reply.batch.alerts if each.source != INTERNAL]


class Client:
    """One who has asked for alerts, and says when it has enough."""

    def __init__(self, machine: Machine, detect: Detect | None = None, **asked: object) -> None:
        files = [pb.RuleFile(name="rules.yaml", text=RULES)]
        request = pb.Detect(**{"files": files, "rules": ["Shell"], **asked})  # type: ignore[arg-type]
        self.active = True
        self._replies = (detect or Detect(machine.context)).beginnings()["detect"](request, lambda: self.active)

    def begin(self) -> pb.Started:
        return next(self._replies).started

    def alerts(self, number: int) -> list[pb.Alert]:
        """The next alerts, so many."""
        found: list[pb.Alert] = []
        while len(found) < number:
            found += of_rules(next(self._replies))
        return found

    def until(self, loss: str) -> int:
        """How many were lost by a reason, once it is told that some were."""
        for reply in self._replies:
            for each in reply.batch.losses:
                if each.reason == loss:
                    return each.count
        raise AssertionError(f"no {loss}")

    def end(self) -> tuple[list[pb.Alert], pb.Summary]:
        """The rest, and the summary."""
        self.active, rest = False, []
        for reply in self._replies:
            rest += of_rules(reply)
        return rest, reply.summary

    def replies(self) -> Iterator[pb.RunReply]:
        """Those up to the end, which comes once something has been lost."""
        for reply in self._replies:
            self.active = self.active and not reply.batch.losses
            yield reply

    def close(self) -> None:
        self._replies.close()  # type: ignore[attr-defined]


@pytest.fixture
def client(machine: Machine) -> Iterator[Client]:
    made = Client(machine)
    made.begin()
    yield made
    made.close()


def test_alerts(machine: Machine, client: Client) -> None:
    """An alert has its rule, what it says, its fields as JSON, and the names of the container."""
    machine.put(7)
    (alert,) = client.alerts(1)
    assert (alert.rule, alert.priority, alert.source, alert.output) == ("Shell", "Warning", "syscall", "A shell in c7")
    assert alert.fields_json == b'{"container.id":"c7","proc.name":"sh"}'
    assert (alert.container.namespace, alert.container.pod, alert.container.cgroup_id) == ("shop", "cart-0", 7)
    assert abs(alert.time_ns - time.time_ns()) < 10**10


def test_summary(machine: Machine, client: Client) -> None:
    """When I say stop the alerts of what has happened come, then the number of them, within a second."""
    machine.put(7, 3)
    began = time.monotonic()
    rest, summary = client.end()
    assert (len(rest), summary.events, time.monotonic() - began < 1) == (3, 3, True)
    wait_until(lambda: not machine.context.runs.all(), "the end of the run")


def test_beat(client: Client) -> None:
    """Where nothing fires I still hear of the agent each second, and how many events were judged."""
    began = time.monotonic()
    assert next(client._replies).batch.judged == 0 and 0.5 < time.monotonic() - began < 3


def test_started(machine: Machine) -> None:
    """What I get first has the containers that I chose, and no schema: no events come."""
    client = Client(machine, selection=pb.Selection(namespaces=["shop"], pods=["web-0"]))
    started = client.begin()
    assert [each.pod for each in started.containers] == ["web-0"] and not started.schema and started.beat_ms == 1000
    client.close()


def test_selection(machine: Machine) -> None:
    """I get alerts of the pods that I chose alone, and none from outside containers."""
    client = Client(machine, selection=pb.Selection(pods=["web-0"]))
    client.begin()
    for cgroup in (7, 8, HOST):
        machine.put(cgroup)
    rest, summary = client.end()
    assert [each.output for each in rest] == ["A shell in c8"] and not summary.losses


def test_host(machine: Machine) -> None:
    """With --host I get those from outside containers too, without a container."""
    client = Client(machine, host=True)
    client.begin()
    for cgroup in (7, HOST):
        machine.put(cgroup)
    rest, _ = client.end()
    assert [each.container.pod for each in rest] == ["cart-0", ""] and not rest[1].HasField("container")
    assert FakeJudge.made[0].host


def test_container_not_known(machine: Machine, client: Client) -> None:
    """An alert of a cgroup that nobody knows is left out without --host, and counted."""
    machine.put(12345, 2)
    rest, summary = client.end()
    assert not rest
    assert [(each.reason, each.cgroup_id, each.count) for each in summary.losses] == [(NOT_KNOWN, 12345, 2)]


def test_labels_that_come_later(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -l an alert waits for its pod's labels; if they do not come in time I get it, and am told that."""
    for cgroup in (7, 8):
        monkeypatch.setitem(CONTAINERS, cgroup, replace(CONTAINERS[cgroup], pod_uid=f"uid-{cgroup}"))
    machine.labels_of["c8"] = {"app": "web"}
    said = messages.SentRule("Shell", "Warning", "syscall", frozenset())
    cart, web = Alert(said, 1, "", {}, cgroup_id=7), Alert(said, 1, "", {}, cgroup_id=8)
    choose = AlertChoice(machine.context.tracker, Selection(labels="app=cart"), host=False)
    assert not list(choose([cart, web]))
    machine.labels_of["c7"] = {"app": "cart"}
    assert [alert for alert, _ in choose([])] == [cart]
    del machine.labels_of["c7"]
    assert not list(choose([cart])) and choose.undecided == 0
    assert [alert for alert, _ in choose.rest()] == [cart] and choose.undecided == 1


def test_no_labels_here(machine: Machine) -> None:
    """With -l on an agent that watches no pods I am told that it cannot."""
    machine.knows_labels = False
    with pytest.raises(Unsupported, match="-l needs labels"):
        Client(machine, selection=pb.Selection(labels="app=cart")).begin()


def test_broken_judge(machine: Machine, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that fails on some events hides no others: what was not judged is counted and told."""
    monkeypatch.setattr(FakeJudge, "broken", ZeroDivisionError("odd"))
    machine.put(7, 3)
    assert client.until(NOT_JUDGED) == 3
    monkeypatch.setattr(FakeJudge, "broken", None)
    machine.put(8)
    rest, summary = client.end()
    assert [each.output for each in rest] == ["A shell in c8"]
    assert [(each.reason, each.count) for each in summary.losses] == [(NOT_JUDGED, 3)]


class SmallQueue(waiting.Waiting):
    """One that keeps which alerts had room."""

    def __init__(self) -> None:
        super().__init__(10_000)
        self.came: list[bool] = []

    def put(self, alert: pb.Alert) -> bool:
        self.came.append(super().put(alert))
        return self.came[-1]


def test_slow_client(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where I am too slow for a flood of alerts the agent's memory is bounded, and what I do not get is told."""
    queue = SmallQueue()
    monkeypatch.setattr(judging, "Waiting", lambda: queue)
    monkeypatch.setattr(judging, "Groups", partial(grouping.Groups, most_of_one=1000))
    client = Client(machine)
    client.begin()
    machine.put(7, 1000)
    wait_until(lambda: len(queue.came) >= 1000, "the flood")
    rest, summary = client.end()
    (lost,) = summary.losses
    assert (lost.reason, lost.count + len(rest)) == (TOO_SLOW, 1000) and rest
    client.close()


def test_bounded_queue() -> None:
    """Alerts that nobody takes take no more memory than they may, and give it back when they are taken."""
    queue, alert = waiting.Waiting(10_000), pb.Alert(output="x" * 488)
    assert sum(queue.put(alert) for _ in range(1000)) == 9
    assert len(queue.take(0)) == 9 and queue.put(alert)


def test_queue_of_one() -> None:
    """Alerts of a container that floods leave room in the queue for those of others."""
    queue = waiting.Waiting(10_000)
    flood, other = (pb.Alert(output="x" * 488, container=pb.Container(cgroup_id=cgroup)) for cgroup in (7, 8))
    assert 2 < sum(queue.put(flood) for _ in range(1000)) < 6
    assert queue.put(other)
    queue.take(0)
    assert queue.put(flood)


def test_large_alert(machine: Machine, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert that is too large to be sent is counted, and the next one comes."""
    monkeypatch.setattr(FakeJudge, "adds", "x" * messages.LONGEST)
    machine.put(7)
    assert client.until(TOO_LARGE) == 1


def test_losses_of_the_run(machine: Machine, client: Client) -> None:
    """What was lost before rules could see it is told, with the container."""
    machine.sources[0].lost = [Loss("ring full", 7, 5)]
    machine.put(7)
    assert client.until("ring full") == 5


def test_losses_are_alerts(machine: Machine, client: Client) -> None:
    """What was lost is an alert of its own, with how much of which container, so that whoever gets alerts knows."""
    machine.sources[0].lost = [Loss("ring full", 7, 5)]
    machine.put(7)
    found = [each for reply in client.replies() for each in reply.batch.alerts if each.source == INTERNAL]
    assert [(each.output, each.fields_json, each.container.pod) for each in found] == [
        (
            "Events or alerts were lost | count=5 reason=ring full",
            b'{"lost.count":5,"lost.reason":"ring full"}',
            "cart-0",
        )
    ]


def test_losses_are_told_at_once(machine: Machine, client: Client) -> None:
    """An alert of what was lost comes when it is lost, and not only in the end."""
    machine.sources[0].lost = [Loss("ring full", 7, 5)]
    machine.put(7)
    found = wait_until(lambda: [each for each in next(client._replies).batch.alerts if each.source == INTERNAL], "it")
    assert len(found) == 1 and client.active


def test_rules_on_labels(machine: Machine) -> None:
    """Rules that ask about labels are asked anew when what is known of containers has changed; others go on."""
    told = {}
    for condition in ("evt.type = execve", "evt.type = execve and k8s.pod.label[app] = cart"):
        client = Client(machine, files=[pb.RuleFile(name="a.yaml", text=rule(condition))], rules=[])
        client.begin()
        machine.generation += 1
        machine.put(7)
        client.end()
        told[condition] = FakeJudge.made[-1].changes
    assert [*told.values()] == [0, 1]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"files": []}, "no rule"),
        ({"rules": ["Nobody"]}, "no rule on system calls 'Nobody'"),
        ({"files": [pb.RuleFile(name="a.yaml", text=rule("proc.nme = sh"))], "rules": []}, "a.yaml:3"),
        ({"files": [pb.RuleFile(name="a.yaml", text="#" * (messages.MOST_RULE_BYTES + 1))]}, "too long"),
        ({"files": [pb.RuleFile(name="a.yaml", text="- " * 5000)]}, "a.yaml"),
        ({"selection": pb.Selection(labels="a in (")}, "a in"),
    ],
)
def test_refused(machine: Machine, asked: dict[str, object], why: str) -> None:
    """Rules that make no sense, are too long or not there are refused with the reason, and nothing runs."""
    with pytest.raises(UsageError, match=why):
        Client(machine, **asked).begin()
    assert not machine.sources


def test_rules_that_were_named_are_on(machine: Machine) -> None:
    """A rule that its file has off is asked if I name it, and of the others none."""
    off = rule("evt.type = execve", name="Off") + "  enabled: false\n"
    client = Client(machine, files=[pb.RuleFile(name="a.yaml", text=RULES + off)], rules=["Off"])
    client.begin()
    assert [(each.name, each.enabled) for each in FakeJudge.made[0].rules.rules] == [("Off", True)]
    client.close()
    with pytest.raises(UsageError, match="enabled"):
        Client(machine, files=[pb.RuleFile(name="a.yaml", text=off)], rules=[]).begin()


def test_run_that_ends(machine: Machine, client: Client) -> None:
    """When the run dies I am told why, rather than that nothing happens."""
    machine.sources[0].broken = OSError("the ring is gone")
    machine.put(7)
    with pytest.raises(GadgetError, match="the ring is gone"):
        client.end()


def test_many_clients(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many clients have rules asked at once; each that goes gives its place back."""
    monkeypatch.setattr(service, "BoundedSemaphore", lambda most: BoundedSemaphore(1))
    detect = Detect(machine.context)
    first = Client(machine, detect)
    first.begin()
    with pytest.raises(Exhausted, match="end one first"):
        Client(machine, detect).begin()
    first.close()
    second = Client(machine, detect)
    second.begin()
    second.close()


class Keeper:
    """One who keeps the alerts of a rule, some time after they have come."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def keeps(self, rule: str) -> bool:
        return rule == "Shell"

    def has(self, name: str) -> bool:
        return name in self.ids


def test_ids() -> None:
    """An alert has an id only if the agent keeps it under that; it waits for that a moment, and others behind it."""
    keeper = Keeper()
    named = waiting.WithIds(keeper)
    assert [each.id for each in named([pb.Alert(rule="Talk", id="a")])] == [""]
    assert named([pb.Alert(rule="Shell", id="b"), pb.Alert(rule="Talk", id="c")]) == []
    keeper.ids.add("b")
    assert [each.id for each in named([])] == ["b", ""]
    assert named([pb.Alert(rule="Shell", id="d")]) == []
    assert [each.id for each in named([], rest=True)] == [""]
    named([pb.Alert(rule="Shell", id="e")])
    wait_until(lambda: bool(named([])), "the end of its patience", 5)


def test_no_ids(machine: Machine, client: Client) -> None:
    """Where no rules always judge an alert promises nothing."""
    machine.put(7)
    assert [each.id for each in client.alerts(1)] == [""]
