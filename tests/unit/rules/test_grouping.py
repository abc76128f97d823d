"""One thing that happens again and again is told once, with a count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gadget.rules import grouping
from gadget.rules.alerts import Alert
from gadget.rules.grouping import Groups
from gadget.rules.messages import SentRule

SECOND = 1_000_000_000


def alert(at: int, file: str = "/etc/shadow", pid: int = 7, **more: Any) -> Alert:
    """An alert at a second."""
    fields = {"fd.name": file, "proc.pid": pid, "proc.cmdline": f"cat {at}"}
    said = SentRule("Password hashes are read", "Warning", "syscall", frozenset())
    return Alert(said, at * SECOND, "read", fields, cgroup_id=5, program="/bin/cat", **more)


def told(groups: Groups, *alerts: Alert) -> list[tuple[int, int, int]]:
    """Second, count and first second of all that is told of alerts."""
    every = [each for given in alerts for each in groups.add(given)]
    return [(each.time_ns // SECOND, each.count, each.since_ns // SECOND) for each in [*every, *groups.rest()]]


def test_again() -> None:
    """Seven reads by one program are two lines: the first at once, and that six more came after it, since when."""
    assert told(Groups(), *(alert(at, pid=at) for at in range(1, 8))) == [(1, 1, 0), (7, 6, 2)]


def test_nothing_is_dropped() -> None:
    """Counts add up to what was given, however the alerts come."""
    given = [alert(at, f"/etc/{at % 3}", count=at % 4 + 1) for at in range(500)]
    assert sum(count for _, count, _ in told(Groups(), *given)) == sum(each.count for each in given)


def test_others() -> None:
    """Another file, another program or another rule is another alert."""
    groups = Groups()
    other = Alert(alert(3).rule, 3 * SECOND, "read", alert(3).fields, cgroup_id=5, program="/bin/less")
    assert len(told(groups, alert(1), alert(2, "/etc/passwd"), other)) == 3


def connection(at: int, client: str, server: str = "10.0.0.2:80") -> Alert:
    """An alert of a connection, as stock rules show it, at the side of the server."""
    fields = {"fd.name": f"{client}->{server}", "fd.lport": int(server.rpartition(":")[2]),
              "fd.rport": int(client.rpartition(":")[2]), "fd.cport": int(client.rpartition(":")[2])}  # fmt: skip
    return replace(alert(at), fields=fields)


def test_ports_of_clients() -> None:
    """Of a busy server I get one alert for each address that connects, with a count, and not one for each client's port."""
    clients = [connection(at % 50, f"10.0.0.7:{40_000 + at}") for at in range(1_000)]
    assert told(Groups(), *clients) == [(0, 1, 0), (49, 999, 1)]
    other = (
        connection(1, "10.0.0.8:40000"),
        connection(1, "10.0.0.7:40000", "10.0.0.2:81"),
        connection(1, "::1:40000"),
    )
    assert len(told(Groups(), *clients[:1], *other)) == 4


def test_window() -> None:
    """What goes on is told each minute, and not only when it ends."""
    found = told(Groups(), *(alert(at) for at in range(0, 130, 10)))
    assert [(second, count) for second, count, _ in found] == [(0, 1), (50, 5), (60, 1), (110, 5), (120, 1)]


def test_many() -> None:
    """Very many different alerts take no more memory than their share, and all are told."""
    groups = Groups()
    many = (replace(alert(1, f"/{at}"), cgroup_id=at // 100) for at in range(grouping.MOST + 100))
    assert len(told(groups, *many)) == grouping.MOST + 100


def test_flood() -> None:
    """A container whose alerts all differ has so many of its own, and the rest as a count; another one has all of its."""
    groups = Groups()
    flood = [alert(1, f"/etc/{at}") for at in range(1_000)]
    others = [replace(alert(1, f"/etc/{at}"), cgroup_id=6) for at in range(7)]
    every = [each for given in (*flood, *others) for each in groups.add(given)]
    every += groups.rest()
    assert [each.cgroup_id for each in every].count(5) == grouping.MOST_OF_ONE + 2
    assert sum(each.count for each in every if each.cgroup_id == 5) == 1_000
    assert [each.cgroup_id for each in every].count(6) == 7
    assert not groups._of
