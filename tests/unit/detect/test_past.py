"""What led to an alert: what it takes along, what that may cost, and how I read it."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from click.shell_completion import ShellComplete

from agent.answering import serve
from agent.detect import past as pasts
from agent.detect.always import Always
from agent.detect.past import Pasts, id_of
from agent.detect.rules import load
from agent.detect.service import Detect
from agent.detect.settings import Settings
from agent.server import AgentService
from agent.service import ServiceContext
from agent.traceloop.redact import Redactor
from agent.traceloop.service import TraceloopService
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Malformed
from gadget.rules import messages
from gadget.rules.alerts import Alert
from gadget.rules.processes import Program
from gadget.rules.recent import Happened
from kubectl_gadget import strace
from kubectl_gadget.cli import PROGRAM, cli
from kubectl_gadget.detect.told import AlertStory
from kubectl_gadget.strace import Call
from tests.conftest import events, run_cli, wait_until
from tests.unit.detect.conftest import RULES, Machine
from tests.unit.traceloop.replies import record
from tests.unit.traceloop.test_choice import service

NOW = 10**18
RULE = """
- rule: Urgent
  desc: "It is  urgent."
  condition: evt.type = open
    and fd.name = /etc/shadow
  output: Urgent
  priority: CRITICAL
- {rule: Three, desc: d, condition: evt.type = open, output: o, priority: DEBUG, history: 3}
- {rule: Quiet, desc: d, condition: evt.type = open, output: o, priority: ERROR}
"""
RULESET = load([("rules.yaml", RULE)])
HAPPENED = (
    Happened(NOW - 3, "execve", 7, "sh", ("sh", "-c", "echo secret > x"), 0),
    Happened(NOW - 2, "connect", 7, "sh", ("198.51.100.7:80",), -111, bytes([198, 51, 100, 7])),
)
ANCESTRY = (Program(7, "sh", "sh -c id", "/bin/busybox"), Program(5, "nginx", "nginx -g x", "/usr/sbin/nginx"))
SURROUNDINGS: Any = SimpleNamespace(
    container=lambda cgroup: {"container.image": "shop/web:1"} if cgroup == 7 else None,
    domains=lambda cgroup, address: ("evil.example",),
    answers=lambda cgroup, most: [(bytes([198, 51, 100, 7]), ("evil.example",))],
)


def alert(name: str = "Urgent", **more: Any) -> Alert:
    found = next(each for each in RULESET.rules if each.name == name)
    made = replace(Alert(found, NOW, "says", {}, cgroup_id=7, ancestry=ANCESTRY, happened=HAPPENED), **more)
    return replace(made, id=id_of("node-a", made))


def teller(recorder: Any = None, mask: Any = None) -> Pasts:
    running = {"traceloop": recorder} if recorder else {}
    context = ServiceContext("node-a", Mock(), Path("/none"), Path("/none"), running=running)
    return Pasts(context, RULESET, SURROUNDINGS, mask)


def read(data: bytes) -> pb.Past:
    return pb.Past.FromString(messages.unpack(data))


@pytest.fixture
def recorder(tmp_path: Path) -> TraceloopService:
    """Has 1,000 calls a millisecond apart, the last ten of which came after the alert."""
    records = [record(at, name="read", args=[at], result=1, time=NOW + (at - 990) * 10**6) for at in range(1, 1001)]
    return service(tmp_path, records, running=True)


def arguments(past: pb.Past) -> list[int]:
    """The first arguments of the system calls, which are numbered."""
    reply = pb.KeptAlertReply(node="node-a", alerts=[message(alert(), past)])
    return [each.args[0] for each in AlertStory.of(reply).calls]  # type: ignore[union-attr]


def message(one: Alert, past: pb.Past) -> pb.Alert:
    made = pb.Alert(past=messages.pack(past))
    assert messages.fill(made, one)
    return made


def test_system_calls(recorder: TraceloopService) -> None:
    """An urgent alert has the last 200 system calls before it, one whose rule says so as many as that, others none."""
    assert arguments(read(teller(recorder).of(alert()))) == list(range(791, 991))
    assert arguments(read(teller(recorder).of(alert("Three")))) == [988, 989, 990]
    quiet = read(teller(recorder).of(alert("Quiet")))
    assert not quiet.HasField("calls") and not quiet.no_calls


def test_overwritten(recorder: TraceloopService) -> None:
    """Where all calls before the alert have been overwritten by the time it is judged it has the last that there are."""
    assert arguments(read(teller(recorder).of(alert("Three", time_ns=NOW - 10**12)))) == [998, 999, 1000]


def test_runtime(tmp_path: Path) -> None:
    """What the runtime did in the container before its program takes no room from what the program did."""
    begin = NOW - 2_000
    records = [
        record(1, name="read", args=[1], result=1, time=begin - 50, pid=3, tid=3),
        *(record(at, name="read", args=[at], result=1, time=begin + at, pid=9, tid=9) for at in range(2, 500)),
        record(500, "KIND_EXEC", text=b"/bin/sh", result=begin, time=begin + 500, pid=9, tid=9),
        *(record(at, name="read", args=[at], result=1, time=begin + at, pid=9, tid=9) for at in range(501, 511)),
    ]
    past = read(teller(service(tmp_path, records, running=True)).of(alert()))
    reply = pb.KeptAlertReply(node="node-a", alerts=[message(alert(), past)])
    calls = [strace.text(each) for each in AlertStory.of(reply).calls if isinstance(each, Call)]
    assert len(calls) == len(AlertStory.of(reply).calls) == 12 and calls[1].startswith("exec")
    assert [text.partition(",")[0] for text in (calls[0], *calls[2:])] == [f"read({at}" for at in (1, *range(501, 511))]


@pytest.mark.parametrize(
    ("recorder", "cgroup", "why"),
    [
        (None, 7, "no flight recorder"),
        (TraceloopService("node-a", None), 7, "traceloop is off on node-a: start its agent with --traceloop all"),
        (TraceloopService("node-a", Mock(find=lambda _: None, refused=dict)), 7, "node-a has no recording of that"),
        (TraceloopService("node-a", None), 8, "outside containers"),
    ],
)
def test_no_system_calls(recorder: Any, cgroup: int, why: str) -> None:
    """Where an urgent alert has no system calls it says why, and so do those after it."""
    tells = teller(recorder)
    for _ in range(2):
        past = read(tells.of(alert(cgroup_id=cgroup)))
        assert not past.HasField("calls") and why in past.no_calls


def test_flood(recorder: TraceloopService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of alerts reads the recorder once in 5 s; further ones name the alert that has the calls."""
    now, read_at = [10**12], list[int]()
    monkeypatch.setattr(pasts.time, "monotonic_ns", lambda: now[0])
    last = recorder.last
    monkeypatch.setattr(recorder, "last", lambda *args: read_at.append(now[0]) or last(*args))
    tells, first = teller(recorder), alert()
    assert read(tells.of(first)).HasField("calls")
    for at in range(100):
        now[0] += 40_000_000
        past = read(tells.of(alert(time_ns=NOW + at, happened=None)))
        assert (past.calls_of, past.happened_of, past.no_calls) == (first.id, first.id, "")
    now[0] = 10**12 + 5_000_000_000
    assert read(tells.of(alert(time_ns=NOW + 1000))).HasField("calls")
    assert read_at == [10**12, 10**12 + 5_000_000_000]


def test_many_containers(recorder: TraceloopService, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many containers have urgent alerts at once, the recorder is read some times only."""
    monkeypatch.setattr(pasts.time, "monotonic_ns", lambda: 10**12)
    monkeypatch.setattr(SURROUNDINGS, "container", lambda cgroup: {})
    monkeypatch.setattr(recorder, "last", lambda *args: pb.TraceloopReadReply(machine="x86_64"))
    tells = teller(recorder)
    found = [read(tells.of(alert(cgroup_id=cgroup))) for cgroup in range(1, 50)]
    assert sum(past.HasField("calls") for past in found) == pasts.READINGS
    assert found[-1].no_calls == "too many containers had alerts at once"


def test_what_it_takes_along() -> None:
    """An alert has the rule's own words, the image, what happened, and which names stood for addresses."""
    past = read(teller().of(alert()))
    assert (past.description, past.condition) == ("It is urgent.", "evt.type = open and fd.name = /etc/shadow")
    assert past.image == "shop/web:1" and list(past.happened[0].what) == ["sh", "-c", "echo secret > x"]
    assert list(past.happened[1].domains) == ["evil.example"]
    assert [(each.name, list(each.addresses)) for each in past.resolved] == [("evil.example", ["198.51.100.7"])]


def test_redacted() -> None:
    """What --redact masks is in no alert's past."""
    data = messages.unpack(teller(mask=Redactor(["echo se.*?t"]).mask).of(alert()))
    assert b"secret" not in data and b"***" in data


def test_odd_texts() -> None:
    """What a process was given that is no UTF-8 spoils no alert."""
    odd = Happened(NOW, "openat", 7, "s\udcff", ("/\udcff",), 0)
    past = read(teller().of(alert(happened=(odd,))))
    assert (past.happened[0].name, list(past.happened[0].what)) == ("s���", ["/���"])


def test_too_large(recorder: TraceloopService, monkeypatch: pytest.MonkeyPatch) -> None:
    """System calls that would take too much room are left out, and that is told."""
    large = pb.TraceloopReadReply(machine="x86_64", calls=os.urandom(2 * messages.LONGEST_PAST))
    monkeypatch.setattr(recorder, "last", lambda *args: large)
    past = read(teller(recorder).of(alert()))
    assert not past.HasField("calls") and past.no_calls == "they were too large"


def test_broken(machine: Machine, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert whose past cannot be told, for whatever reason, is kept without."""
    monkeypatch.setattr(Pasts, "_image", lambda *_: 1 // 0)
    machine.put(7)
    wait_until(lambda: run_cli("alerts", "--agent", address).stdout, "the alert")


def test_id() -> None:
    """An id is short and hard to misread, the same wherever the alert is seen, and another one of each alert."""
    ids = {id_of("node-a", alert(time_ns=NOW + at)) for at in range(1_000)}
    assert len(ids) == 1_000 and all(re.fullmatch("[a-km-np-z2-9]{7}", each) for each in ids)
    assert id_of("node-a", alert()) == id_of("node-a", alert()) != id_of("node-b", alert())


@pytest.mark.parametrize(
    "change",
    [
        {"past": b"x"},
        {"past": zlib.compress(bytes(5 << 20))},
        {"past": zlib.compress(b"\xff\xff")},
        {"past": zlib.compress(b"")[:-2]},
        {"past": bytes(200 << 10)},
        {"id": "../../x"},
        {"ancestry": [pb.Program()] * 100},
    ],
)
def test_pasts_that_make_no_sense(change: dict[str, Any]) -> None:
    """An agent that sends a past that no agent makes is refused, by name, whatever it unpacks to."""
    sent = message(alert(), pb.Past())
    sent.MergeFrom(pb.Alert(**change))
    with pytest.raises(Malformed, match="node-a: its agent sends"):
        AlertStory.of(pb.KeptAlertReply(node="node-a", alerts=[sent]))


def test_story(recorder: TraceloopService) -> None:
    """I read what fired, who did it and who started that, what happened before, the calls, and the rule."""
    sent = message(alert(), read(teller(recorder).of(alert())))
    sent.container.MergeFrom(pb.Container(namespace="shop", pod="cart-0", container="app"))
    told = AlertStory.of(pb.KeptAlertReply(node="node-a", alerts=[sent]))
    text = "\n".join(told.lines(None))
    assert re.search(r"^rule: +Urgent\npriority: +Critical\n", text, re.MULTILINE)
    assert "\n[5] nginx -g x\n  └ [7] sh -c id  /bin/busybox\n" in text
    assert re.search(r'\n\S+  exec     sh\[7\] sh -c "echo secret > x"\n', text)
    assert re.search(r"\n\S+  connect  sh\[7\] 198.51.100.7:80 \(evil.example\): ECONNREFUSED\n", text)
    assert len(re.findall(r"^\S+ \[.*\] +read\(\d+, ", text, re.MULTILINE)) == 200
    text, _, further = text.partition("\n\nFurther:\n")
    assert text.endswith("\n  It is urgent.\n\n  evt.type = open and fd.name = /etc/shadow")
    assert max(map(len, told.lines(80))) <= 80
    for each in ("alerts -n shop -p cart-0 ", "story -n shop -p cart-0 ", "traceloop show cart-0 -n shop"):
        assert f"  kubectl gadget {each}" in f"{further}  "
    assert further.endswith("alerts --rule Urgent -o json |\n    kubectl gadget detect tune --least 1 -")


def test_story_of_another() -> None:
    """What another alert has in its place is shown as that one's; if that is gone I am told."""
    first, later = alert(), alert(time_ns=NOW + 5, happened=None)
    tells = teller()
    before = message(first, read(tells.of(first)))
    after = message(later, pb.Past(happened_of=first.id, calls_of=first.id))
    both = "\n".join(AlertStory.of(pb.KeptAlertReply(node="n", alerts=[after, before])).lines(None))
    assert (
        f"What the container did before, up to the alert {first.id} shortly before this one:\n" in both
        and "exec     sh[7]" in both
    )
    alone = "\n".join(AlertStory.of(pb.KeptAlertReply(node="n", alerts=[after])).lines(None))
    assert "that alert is kept no more" in alone and f"with the alert {first.id}, which is kept no more" in alone


@pytest.fixture
def address(machine: Machine, tmp_path: Path) -> Iterator[str]:
    """Of an agent in this process, whose own rules say something of each event."""
    (tmp_path / "rules.yaml").write_text(RULES)
    always = Always(machine.context, Settings(rules=(str(tmp_path),)))
    wait_until(lambda: machine.sources, "the run")
    services = {"detect": Detect(machine.context, always)}
    agent = AgentService("node-a", machine.context.tracker, services, machine.context.runs)
    server = serve(f"unix://{tmp_path}/agent.sock", agent)
    yield f"unix://{tmp_path}/agent.sock"
    agent.finish()
    server.stop(1).wait()
    always.close()


def test_show(machine: Machine, address: str) -> None:
    """The id that `alerts` has in columns and JSON is the one that `alerts show` takes, and Tab offers."""
    machine.put(7, 2)

    def kept() -> list[str]:
        return [each["id"] for each in events(run_cli("alerts", "-o", "json", "--agent", address).stdout)]

    wait_until(lambda: len(kept()) == 2, "the alerts")
    ids = kept()
    lines = run_cli("alerts", "--agent", address).stdout.splitlines()
    assert [re.split(" {2,}", line)[1] for line in lines] == ids
    shown = run_cli("alerts", "show", ids[1], "--agent", address)
    assert shown.returncode == 0 and f"alert:     {ids[1]}\nrule:      Shell\n" in shown.stdout
    (said,) = events(run_cli("alerts", "show", ids[0], "-o", "json", "--agent", address).stdout)
    assert (said["id"], said["pod"], said["condition"]) == (ids[0], "cart-0", "evt.type = execve")
    assert said["image"] == "shop/web:1"
    offered = ShellComplete(cli, {}, PROGRAM, "").get_completions(["alerts", "show", "--agent", address], ids[0][:5])
    assert [item.value for item in offered] == [ids[0]]


def test_unknown_id(machine: Machine, address: str) -> None:
    """Of an id that nobody has I am told in one line, and where to find those that there are."""
    done = run_cli("alerts", "show", "nobody7", "--agent", address)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no alert 'nobody7' is kept: `kubectl gadget alerts` shows the ids of those that are\n"


def test_part_of_an_id(machine: Machine, address: str) -> None:
    """The first letters of an id are enough, in any case; where several ids begin so I see them."""
    machine.put(7, 40)  # more than there are letters

    def ids() -> list[str]:
        return sorted(each["id"] for each in events(run_cli("alerts", "-o", "json", "--agent", address).stdout))

    wait_until(lambda: len(ids()) == 40, "the alerts")
    kept = ids()
    done = run_cli("alerts", "show", kept[0][:6].upper(), "--agent", address)
    assert done.stdout.startswith(f"alert:     {kept[0]}\n")
    first = next(each[0] for each, later in pairwise(kept) if each[0] == later[0])
    done = run_cli("alerts", "show", first, "--agent", address)
    assert done.returncode == 2 and f"ids of several alerts begin with '{first}': {first}" in done.stderr


def test_off(machine: Machine, tmp_path: Path) -> None:
    """Where no rules always judge I am told so, and how to begin."""
    services = {"detect": Detect(machine.context)}
    server = serve(f"unix://{tmp_path}/off.sock", AgentService("node-a", machine.context.tracker, services))
    done = run_cli("alerts", "show", "abcdefg", "--agent", f"unix://{tmp_path}/off.sock")
    server.stop(1).wait()
    assert "no rules always judge on node-a: give it rules" in done.stderr and done.stderr.count("\n") == 1
