"""What an alert tells of what its container did before, and what that may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gadget.rules import recent
from gadget.rules.alerts import Alert
from gadget.rules.live import Judge
from gadget.rules.processes import Program
from gadget.rules.recent import Budget, Happened, Recent
from tests.unit.rules.test_live import CONTAINER, HOST, SCHEMA, SECOND, Node, exec_of, packed
from tests.unit.rules.test_rules import loaded, rule

#: Fires on its own events alone, and lets the calls be watched that a history has.
CONDITION = "evt.type in (openat, connect, execve, unlink) and fd.name = /fire"
FIRE = {"call": "openat", "path": "/fire", "fd_type": "f", "exec_id": 2}


def judge(node: Node | None = None) -> Judge:
    return Judge(loaded(rule(f"'{CONDITION}'")), SCHEMA, node or Node(), remember=True)


def told(alert: Alert) -> list[str]:
    """What was before an alert, in short."""
    assert alert.happened is not None
    return [f"{each.call} {' '.join(each.what)}{f' {each.result}' * (each.result < 0)}" for each in alert.happened]


def written(path: str, **more: Any) -> dict[str, Any]:
    return {"call": "openat", "path": path, "fd_type": "f", "flags": 0o101, "exec_id": 2, **more}


#: Of these the first is only read, and the last two are no calls.
EVENTS: list[Mapping[str, Any]] = [
    {"call": "openat", "path": "/read", "fd_type": "f", "exec_id": 2},
    exec_of("sh", "sh", "-c", "id"),
    written("/etc/x"),
    {"call": "openat", "path": "/none", "fd_type": "f", "result": -2, "exec_id": 2},
    {"call": "connect", "fd_type": "4", "dst": ("198.51.100.7", 443), "result": -115, "exec_id": 2},
    {"call": "execve", "path": ("/bin", "nobody"), "result": -2, "exec_id": 2},
    {"call": "unlink", "path": "/gone", "exec_id": 2},
    {"call": "fork", "pid": 8, "tid": 8, "start": 80},
    {"call": "procexit", "pid": 8, "tid": 8, "start": 80},
]
BEFORE = ["execve sh -c id", "openat /etc/x", "openat /none -2", "connect 198.51.100.7:443", "execve /bin/nobody -2"]


@pytest.mark.parametrize("at_once", [True, False])
def test_before(at_once: bool) -> None:
    """An alert has programs that began, connections, and what was written or failed before it, and nothing later."""
    events = [*EVENTS, FIRE, written("/later")]
    timed = [{**event, "timestamp": SECOND + at} for at, event in enumerate(events)]
    made, found = judge(), list[Alert]()
    for batch in [timed] if at_once else [[event] for event in timed]:
        found += made.judge([packed(*batch)], 1_000)
    (alert,) = found
    assert told(alert) == BEFORE
    assert alert.happened and alert.happened[0] == Happened(
        SECOND + 1_001, "execve", 7, "sh", ("sh", "-c", "id"), 0, b"", False
    )
    assert alert.happened[3].address == bytes([198, 51, 100, 7])


def test_two_rings() -> None:
    """What came in different rings is told in the order in which it happened."""
    made = judge()
    (alert,) = made.judge(
        [packed(*({**written(f"/{at}"), "timestamp": at} for at in (2, 4)), {**FIRE, "timestamp": 9}),
         packed({**exec_of("sh"), "timestamp": 3}, {**written("/5"), "timestamp": 5}, width=900)], 0,
    )  # fmt: skip
    assert told(alert) == ["openat /2", "execve sh", "openat /4", "openat /5"]


def test_of_its_container() -> None:
    """What other containers and the host do is in no history but their own."""

    class Two(Node):
        def container(self, cgroup_id: int) -> Any:
            return {"container.id": str(cgroup_id)} if cgroup_id in (CONTAINER, 701) else None

    made = judge(Two())
    events = [written("/other", cgroup_id=701), written("/host", cgroup_id=HOST), written("/own"), FIRE]
    (alert,) = made.judge([packed(*events)], 0)
    assert told(alert) == ["openat /own"]


def test_flood_of_writes() -> None:
    """A container that writes files without end hides no program that it began."""
    made = judge()
    made.judge([packed(exec_of("sh"))], 0)
    for _ in range(3):
        made.judge([packed(*(written(f"/tmp/{at}") for at in range(1_000)))], 0)
    (alert,) = made.judge([packed({**FIRE, "timestamp": 2_000})], 0)
    assert told(alert) == ["execve sh", *(f"openat /tmp/{at}" for at in range(984, 1_000))]


def test_flood_of_alerts() -> None:
    """Of a flood of alerts some at once tell what was before, and then one twice a second."""
    made = judge()
    found = made.judge([packed(*({**FIRE, "result": at, "fd": at} for at in range(100)))], 0)
    assert len(found) == 1  # they are equal
    apart = [{**FIRE, "pid": at, "tid": at, "start": at, "timestamp": at} for at in range(100, 200)]
    found = made.judge([packed(*apart)], 0)
    assert [alert.happened is not None for alert in found] == [True] * 15 + [False] * 85
    (late,) = made.judge([packed({**FIRE, "timestamp": SECOND})], 0)
    assert late.happened is not None


def test_long_arguments() -> None:
    """What has more than a thousand letters is cut, and says so."""
    made = judge()
    (alert,) = made.judge([packed(exec_of("sh", "sh", "x" * 3_000, "y"), FIRE, width=4_096)], 0)
    assert alert.happened and alert.happened[0].cut
    assert list(map(len, alert.happened[0].what)) == [2, 997]


def test_bounds() -> None:
    """However many containers there are, and whatever they do, what is remembered of them has a bound."""

    class All(Node):
        def container(self, cgroup_id: int) -> Any:
            return {"container.id": str(cgroup_id)}

    made = judge(All())
    made._recent = Recent(SCHEMA, made._names, made._inside, most_bytes=100_000)
    for cgroup in range(500):
        made.judge([packed(*(written(f"/{'x' * at}", cgroup_id=cgroup) for at in range(20)))], 0)
        known = made._recent._known
        size = sum(len(row) + recent.ROW_BYTES for rings in known.values() for ring in rings for _, row in ring)
        assert size == made._recent._bytes <= 100_000
    assert 1 < len(known) < 50 and 499 in known
    made._recent = Recent(SCHEMA, made._names, made._inside, most_containers=5)
    made.judge([packed(*(written("/x", cgroup_id=cgroup) for cgroup in range(20)))], 0)
    assert list(made._recent._known) == list(range(15, 20))


def test_budget() -> None:
    """So many times at once, then as time goes on, each key for itself."""
    budget = Budget(2, 10)
    assert [budget.take(1, 0) for _ in range(3)] == [True, True, False]
    assert budget.take(2, 0) and not budget.take(1, 9) and budget.take(1, 10) and not budget.take(1, 11)


def test_ancestry() -> None:
    """An alert has the process and all its ancestors, with command lines and files."""
    shell = exec_of("sh", "sh", "-c", "id", pid=8, tid=8, start=80, exec_id=3, ppid=7, parent_start=70,
                    parent_exec_id=2, exe="/bin/busybox")  # fmt: skip
    events = [exec_of("nginx", "nginx", "-g", "x"), shell, {**FIRE, "pid": 8, "tid": 8, "start": 80, "exec_id": 3}]
    (alert,) = Judge(loaded(rule(f"'{CONDITION}'")), SCHEMA, Node()).judge([packed(*events)], 0)
    assert alert.ancestry == (
        Program(8, "sh", "sh -c id", "/bin/busybox"),
        Program(7, "nginx", "nginx -g x", "/usr/sbin/nginx"),
        Program(5, "", "", ""),
    )
    assert alert.happened is None  # nobody asked for it


def test_other_rules() -> None:
    """Rules that take the place of others know what containers did before, in order and none twice."""
    before, after = judge(), judge()
    seen = [{**event, "timestamp": SECOND + at} for at, event in enumerate(EVENTS)]
    before.judge([packed(*seen[:4])], 1_000)
    before.judge([packed(*seen[4:])], 1_000)
    after.judge([packed(*seen[4:])], 1_000)  # both look for a while
    after.go_on_from(before)
    (alert,) = after.judge([packed({**FIRE, "timestamp": 2 * SECOND})], 1_000)
    assert told(alert) == BEFORE
    assert after._recent and after._recent._bytes == sum(
        len(row) + recent.ROW_BYTES for rings in after._recent._known.values() for ring in rings for _, row in ring
    )
