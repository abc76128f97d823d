"""What an agent records of what rules judge: whose events, what is told beside them, and what has no room."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from agent.containers.tracker import Tracker
from agent.detect.recorder import EventRecorder
from agent.detect.surroundings import Surroundings
from agent.selection import Selection
from gadget._generated import gadget_pb2 as pb
from gadget.rules.processes import Key, KnownProcess
from gadget.rules.told import KnownContainer
from tests.unit.detect.conftest import HOST, Machine
from tests.unit.rules.test_live import SCHEMA, Node, exec_of, packed

OPENED = {"call": "openat", "path": "/x", "fd_type": "f", "exec_id": 2}
SENT = {"call": "connect", "fd_type": "4", "dst": ("198.51.100.7", 443), "exec_id": 2}


@pytest.fixture
def made(tmp_path: Path) -> EventRecorder:
    return made_with(tmp_path)


def made_with(folder: Path, **settings: int) -> EventRecorder:
    node = Node(KnownProcess(Key(5, 7, 0), "init", (), ("init",)))
    chosen = Selection.of(pb.Selection(pods=["web-0"]))
    return EventRecorder(cast(Surroundings, node), cast(Tracker, Machine(folder)), chosen, SCHEMA, **settings)


def events(made: EventRecorder, *rows: dict[str, Any]) -> int:
    """Record events; gives how many of them had no room."""
    return made.put("node-a", made.note([packed(*rows)]), 5, 9)


def test_whose(made: EventRecorder) -> None:
    """Calls are recorded of the containers that I chose alone; programs that begin also of others and of the node."""
    rows = [{**OPENED, "cgroup_id": 7}, {**OPENED, "cgroup_id": 8}]
    assert events(made, *rows, exec_of("a", cgroup_id=7), exec_of("b", cgroup_id=HOST)) == 0
    (reply,) = made.taken()
    assert [section.count for section in reply.batch.sections] == [3]
    assert {each.cgroup_id: each.chosen for each in reply.batch.told.containers} == {7: False, 8: True, HOST: False}
    assert (reply.sent_ns, reply.batch.clock_offset_ns, reply.node) == (9, 5, "node-a")
    assert not made.taken()


def test_running_is_told_at_once(made: EventRecorder) -> None:
    """A recording knows the processes that run when it begins, also those that end before the first event."""
    made.begin()
    made._real._running = ()  # type: ignore[attr-defined]
    assert [each.name for each in made.running()] == ["init"]
    events(made, {**SENT, "cgroup_id": 8})
    assert [each.name for each in made.taken()[0].batch.told.running] == [b"init"]


def test_told_once(made: EventRecorder) -> None:
    """What rules may ask of containers, users, addresses and processes is told when it is new, and then no more."""
    for _ in range(2):
        events(made, {**SENT, "cgroup_id": 8, "euid": 33})
    first, second = (reply.batch.told for reply in made.taken())
    assert [each.name for each in first.running] == [b"init"]
    assert {(each.group, each.number, each.name) for each in first.names} >= {
        (False, 33, "www-data"),
        (True, 0, "root"),
    }
    assert [(each.address, [*each.names]) for each in first.addresses] == [(bytes([198, 51, 100, 7]), ["evil.example"])]
    assert second == pb.Told()
    assert isinstance(web := made.container(8), KnownContainer) and web.get("k8s.pod.name") == "web-0"


def test_too_much(tmp_path: Path) -> None:
    """What has no room is counted; what was told with it is told with the next events."""
    made = made_with(tmp_path, most_bytes=5_000)
    many = [{**OPENED, "cgroup_id": 8}] * 53
    assert events(made, *many) == 53
    assert not made.taken()
    assert events(made, {**OPENED, "cgroup_id": 8}) == 0
    (reply,) = made.taken()
    assert [each.cgroup_id for each in reply.batch.told.containers] == [8] and len(reply.batch.told.running) == 1
