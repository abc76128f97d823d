"""Which rows a run keeps where a row tells of two containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pytest

from agent.containers.identity import Container
from agent.containers.tracker import Cgroup, Tracker
from agent.run.choosing import Choosing
from agent.run.events import Events
from agent.run.source import LOSSES
from agent.selection import Selection
from gadget import catalog
from gadget._generated import gadget_pb2 as pb

GADGET = catalog.find("sigsnoop")
SIZE = GADGET.schema.text_offset
HOST, SHOP, WEB, LOST = 5, 7, 8, 9
CONTAINERS = {
    SHOP: Container("a" * 64, namespace="shop", pod="cart-0", pod_uid="1"),
    WEB: Container("b" * 64, namespace="web", pod="web-0", pod_uid="2"),
}


class Knows:
    """A tracker of two containers and a cgroup of the host."""

    generation = 1

    def resolve(self, cgroup_id: int) -> Cgroup | None:
        container = CONTAINERS.get(cgroup_id)
        return Cgroup(cgroup_id, container, 0) if container or cgroup_id == HOST else None

    def labels(self, container: Container) -> None:
        return None


class Programs:
    """What is told of decisions."""

    def set(self, *_: object) -> None:
        pass

    def missed(self) -> int:
        return 0


class Source:
    """What a run of sigsnoop reads."""

    gadget, host, holds, repeats, object = GADGET, False, True, False, Programs()

    def __init__(self, lost: Mapping[int, int] | None = None) -> None:
        self.lost = lost or {}

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        rest = [0] * (len(LOSSES) - 1)
        return [sum(self.lost.values()), *rest], {cgroup: [number, *rest] for cgroup, number in self.lost.items()}


def rows(ends: Iterable[tuple[int, int]]) -> Any:
    made = np.zeros(len(list(ends)), GADGET.schema.dtype(SIZE))
    made["cgroup_id"], made["target"] = zip(*ends, strict=True)
    made["pid"] = range(len(made))
    return made.view(np.uint8).reshape(len(made), SIZE)


@pytest.mark.parametrize(
    ("namespace", "host", "kept", "named"),
    [
        ("shop", False, [0, 1, 3, 5], {SHOP, WEB}),
        ("web", False, [0, 1, 2], {SHOP, WEB}),
        ("shop", True, [0, 1, 2, 3, 4, 5, 6], {SHOP, WEB}),
        ("none", False, [], set()),
    ],
)
def test_either(namespace: str, host: bool, kept: list[int], named: set[int]) -> None:
    """A row is kept if one of its containers is chosen, and both are named; what nobody chose is neither."""
    source = Source()
    source.host = host
    choosing = Choosing(cast(Events, source), cast(Tracker, Knows()), Selection(namespaces=[namespace]))
    ends = [(SHOP, WEB), (WEB, SHOP), (HOST, WEB), (HOST, SHOP), (HOST, HOST), (SHOP, LOST), (HOST, 0)]
    found = choosing([rows(ends)])
    shown = [int(pid) for part in found for pid in part.view(GADGET.schema.dtype(SIZE))["pid"].ravel()]
    assert (shown, set(choosing.met())) == (kept, named)


def test_missed() -> None:
    """A row of a container that is not known is counted, unless it is kept for its other one."""
    choosing = Choosing(cast(Events, Source()), cast(Tracker, Knows()), Selection(namespaces=["shop"]))
    assert len(choosing([rows([(LOST, SHOP)] * 3 + [(LOST, HOST)] * 5)])[0]) == 3
    assert [(loss.reason, loss.cgroup_id, loss.count) for loss in choosing.losses()] == [
        ("container not known", LOST, 5)
    ]


def test_lost() -> None:
    """A lost row counts, also if only the end that it was not counted for is of a container that I asked for."""
    source = Source({SHOP: 2, HOST: 7, WEB: 3})
    choosing = Choosing(cast(Events, source), cast(Tracker, Knows()), Selection(namespaces=["shop"]))
    assert [(loss.cgroup_id, loss.count) for loss in choosing.losses()] == [(SHOP, 2), (0, 10)]


def test_more_than_may_wait() -> None:
    """Of a pod that makes more events than may wait for its labels they are shown in their order all the same."""
    parts = [rows([(SHOP, HOST)] * count) for count in (5, 3, 2)]
    selection, room = Selection.of(pb.Selection(labels="app=cart")), parts[0].nbytes
    choosing = Choosing(cast(Events, Source()), cast(Tracker, Knows()), selection, held_bytes=room)
    found = [*choosing([parts[0]]), *choosing([parts[1]]), *choosing([parts[2]]), *choosing([]), *choosing.release()]
    assert [len(each) for each in found] == [5, 3, 2] and choosing.undecided == 10
