"""A recording of `detect` is judged again, by whichever rules, on a machine that knows nothing of its node."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.containers.identity import Container
from gadget._generated import gadget_pb2 as pb
from gadget.container_facts import ContainerFacts, Mount
from gadget.recorded import MAGIC, header, packed
from gadget.rules import told
from gadget.rules.processes import Key, KnownProcess
from gadget.rules.told import ToldSurroundings
from tests.conftest import run_cli
from tests.unit.rules.test_live import CONTAINER, SCHEMA, exec_of
from tests.unit.rules.test_live import packed as rows
from tests.unit.rules.test_rules import rule

NAMES = Container("c" * 64, "containerd", "shop", "cart-0", "app", pod_uid="u")
FACTS = ContainerFacts(
    NAMES, "shop/web:1", "shop/web", "1", privileged=True, mounts=(Mount("/", "/host"),), labels={"app": "web"}
)
SETTINGS = {"calls": "execve,execveat,openat", "host_calls": "false", "buffers": "false", "environment": "false"}
SHELLS = rule("evt.type = execve and proc.name = sh", name="Shell").replace("output: o", "output: o %proc.pname")


def started() -> pb.Started:
    return pb.Started(schema=orjson.dumps(SCHEMA.to_json()).decode(), contract=1, parameters=SETTINGS)


def known(*processes: KnownProcess, facts: ContainerFacts | None = FACTS, chosen: bool = True) -> pb.Told:
    message = pb.Told()
    one = message.containers.add(cgroup_id=CONTAINER, chosen=chosen)
    if facts:
        told.tell_container(one, facts)
    for each in processes:
        told.tell_process(message.running.add(), each)
    message.names.add(cgroup_id=CONTAINER, number=0, name="root")
    return message


def batch(*events: dict[str, Any], about: pb.Told | None = None) -> pb.Batch:
    made = pb.Batch(told=about or known(), clock_offset_ns=10**18)
    section = rows(*events)
    made.sections.add(record_size=section.record_size, count=section.count, rows=section.rows)
    return made


@pytest.fixture
def dry(tmp_path: Path) -> Any:
    """What a dry run of batches says: the alerts, and what is told beside them."""

    def run(*batches: pb.Batch, rules: str = SHELLS, more: Iterable[str] = ()) -> tuple[list[Any], str]:
        replies = [pb.RunReply(node="node-a", started=started())]
        replies += [pb.RunReply(node="node-a", batch=each, sent_ns=10**18 + 100) for each in batches]
        replies += [pb.RunReply(node="node-a", summary=pb.Summary())]
        entries = [header("detect"), *(pb.RecordingEntry(reply=pb.RecordedReply(target="t", reply=x)) for x in replies)]
        file, named = tmp_path / "a.gadget", tmp_path / "rules.yaml"
        file.write_bytes(MAGIC + b"".join(map(packed, [*entries, pb.RecordingEntry(end=pb.RecordedEnd())])))
        named.write_text(rules)
        done = run_cli("detect", "--dry-run", str(file), "--rules", str(named), "-o", "json", *more)
        return [orjson.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run


SHELL = exec_of("sh", "sh", "-c", "id", ppid=5, parent_start=50)


def test_alert(dry: Any) -> None:
    """What the recording knows of processes, containers and users is in alerts as it was then."""
    asked = rule("evt.type = execve and proc.name = sh and container.privileged = true", name="Shell").replace(
        "output: o", "output: o %proc.cmdline %k8s.pod.name %container.image.repository %container.mounts %user.name"
    )
    (alert,), said = dry(batch(SHELL), rules=asked)
    assert (alert["hostname"], alert["rule"]) == ("node-a", "Shell")
    assert alert["output_fields"] == {
        "proc.cmdline": "sh -c id", "k8s.pod.name": "cart-0", "container.image.repository": "shop/web",
        "container.mounts": "/:/host::true:", "user.name": "root", "proc.name": "sh", "evt.time": 10**18 + 1,
    }  # fmt: skip
    assert said == "1 alert (1 Shell) of 1 event from 1 node, 1 container, as recorded; nothing lost.\n"


def test_counts(dry: Any) -> None:
    """Equal alerts are one with a count, as live, and the count comes at the end."""
    alerts, _ = dry(batch(SHELL), batch(SHELL, SHELL))
    assert [each["output_fields"].get("evt.count", 1) for each in alerts] == [1, 2]


@pytest.mark.parametrize(("more", "number"), [(("-n", "shop"), 1), (("-n", "bank"), 0), (("-p", "cart-*"), 1)])
def test_narrower(dry: Any, more: tuple[str, ...], number: int) -> None:
    """I may choose pods of a recording."""
    assert len(dry(batch(SHELL), more=more)[0]) == number


def test_not_chosen(dry: Any) -> None:
    """What was recorded only because rules ask for ancestors is no alert."""
    assert not dry(batch(SHELL, about=known(chosen=False)))[0]


def test_lacking(dry: Any) -> None:
    """I am told what rules ask about and the recording does not have."""
    _, said = dry(batch(SHELL), rules=rule("evt.type in (execve, recvfrom) and evt.buffer contains x", name="A"))
    assert "node-a: rules ask about what the recording does not have: recvfrom, evt.buffer" in said


@pytest.mark.parametrize("facts", [b"[]", b'{"container":{}}', b"{", b'{"container":{"id":1,"x":2},"mounts":null}'])
def test_damaged(dry: Any, facts: bytes) -> None:
    """A recording that makes no sense hides no other event, and I am told how many could not be judged."""
    wrong = known()
    wrong.containers[0].facts_json = facts
    alerts, said = dry(batch(SHELL, about=wrong), batch(SHELL))
    assert len(alerts) == 1 and "incomplete: 1 event could not be judged" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--dry-run", "{exec}"], "a recording of execsnoop: rules judge what `detect --record` kept"),
        (["--dry-run", "{exec}", "--local"], "--local: a recording is judged as it is"),
        (["--dry-run", "{exec}", "-p", "deploy/x"], "a recording has no owners of pods"),
    ],
)
def test_refused(args: list[str], why: str) -> None:
    """What makes no sense with a recording is refused in one line."""
    recorded = Path(__file__).parents[1] / "recorded/execsnoop-0.1.0.gadget"
    done = run_cli("detect", *(each.format(exec=recorded) for each in args))
    assert done.returncode != 0 and why in done.stderr and done.stderr.count("\n") == 1


def test_processes() -> None:
    """A process and its ancestors are the same after they were told, whatever bytes they have."""
    top = KnownProcess(Key(1, 10, 0), "init", (), ("init",), "/sbin/init", "/", vpid=1)
    own = KnownProcess(Key(7, 70, 3), "a\udcff", top.below(), ("a", "\udcfe b", ""), "/a\udcff", "/tmp", 2, 3, 4, 5)
    own.memfd = top.memfd = False
    line = pb.ToldLine()
    told.tell_line(line, own)
    assert told.of_line(pb.ToldLine.FromString(line.SerializeToString())) == own
    kernel = KnownProcess(Key(2, 20, 0), "kthreadd", (), None)
    told.tell_process(line.processes.add(), kernel)
    assert told.of_line(pb.ToldLine(processes=line.processes[-1:])) == kernel


def test_circle() -> None:
    """Processes that are each other's parents have so many ancestors as any has at most."""
    line = pb.ToldLine(processes=[pb.ToldProcess(pid=1, parent=2), pb.ToldProcess(pid=2, parent=1)])
    assert len(told.of_line(line).ancestors) == 16


def test_forgets() -> None:
    """However many containers, users and addresses a recording tells of, memory is bounded."""
    known = ToldSurroundings()
    for number in range(0, 3 * told.MOST, 1000):
        message = pb.Told()
        for each in range(number, number + 1000):
            message.containers.add(cgroup_id=each + 1)
            message.names.add(cgroup_id=each, name="x")
            message.addresses.add(cgroup_id=each, address=b"1234", names=["y"])
        known.take(message)
    assert known.container(3 * told.MOST) is None
    assert {len(known._containers), len(known._names), len(known._addresses)} == {told.MOST}
