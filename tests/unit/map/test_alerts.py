"""map: alerts of rules, on the boxes that they are about."""

from __future__ import annotations

from typing import Any

import pytest

from gadget._generated import gadget_pb2 as pb
from gadget.rules.alerts import Alert
from gadget.rules.messages import SentRule
from kubectl_gadget.map import alerts as module
from kubectl_gadget.map.alerts import Alerts
from kubectl_gadget.map.edges import Edges
from kubectl_gadget.map.owners import HERE, NODES, MapNode, Owners
from kubectl_gadget.output import all_fields
from tests.unit.map.flows import NOW, WEB, row, told
from tests.unit.observe.flows import GADGET

WEBS = pb.Container(id="a" * 64, container="nginx", pod=WEB.name, namespace="shop")


def alert(rule: str = "Shell in a container", priority: str = "Notice", at: int = 0, **values: Any) -> Alert:
    """One that a rule gave."""
    usual = {"text": "A shell | command=sh", "fields": {}, "id": "k7m2qp4", "node": "node-a"}
    return Alert(SentRule(rule, priority, "syscall", frozenset()), NOW + at * 10**6, **{**usual, **values})


def made(**most: int) -> tuple[Alerts, Edges]:
    owners = Owners()
    found = Alerts(owners, **most)
    return found, Edges(GADGET, all_fields(GADGET.schema), owners, found)


def test_on_boxes() -> None:
    """A box that got alerts says how many and how bad, whether they came before its flows or after; others say nothing."""
    found, of = made()
    found.add(alert(count=3), WEBS)
    of.write([row()])
    version, _ = of.changes(0)
    assert told(of)["alerts"] == [[0, 3, "Notice"]]
    found.add(alert(priority="Critical", at=1), WEBS)
    found.add(alert(priority="Debug", at=2), WEBS)
    assert (told(of, version)["alerts"], told(of, version)["spots"]) == ([[0, 5, "Critical"]], [])
    newest, *_, oldest = of.alerts(0)
    assert (newest["priority"], oldest["count"], oldest["id"], oldest["pod"]) == ("Debug", 3, "k7m2qp4", WEB.name)
    assert of.alerts(1) == of.alerts(7) == of.alerts(-1) == []


def test_elsewhere() -> None:
    """Alerts of what has no flows here are counted in the page's status."""
    found, of = made()
    found.add(alert(), pb.Container(pod="db-0", namespace="data", id="b"))
    found.add(alert(), pb.Container())
    of.write([row()])
    of.refresh(lambda: "so far")
    (*_, message) = of.changes(0)[1]
    assert message["state"]["told"] == "so far; 2 alerts of what has no flows here"


@pytest.mark.parametrize(
    ("container", "spot"),
    [
        (WEBS, MapNode("shop", "web", "pod")),
        (pb.Container(id="c" * 64, container="redis"), MapNode(HERE, "redis", "container")),
        (pb.Container(), MapNode(NODES, "node-a", "node")),
    ],
)
def test_whose(container: pb.Container, spot: MapNode) -> None:
    """An alert is about the workload of its pod, about a container without Kubernetes, or about the node."""
    found, _ = made()
    found.add(alert(), container)
    assert found.sum(spot) == (1, "Notice")


def test_hostile() -> None:
    """What processes are called is text with its control characters shown, and as long as there is room for."""
    found, _ = made()
    found.add(alert("r\u202e" * 5000, text="\x1b[2J<b>" + "x" * 10_000), pb.Container(pod="p" * 10_000, namespace="n"))
    (spot,) = found.news()
    (one,) = found.of(spot)
    assert one["text"].startswith(r"\x1b[2J<b>x") and len(one["text"]) == module.LONGEST
    assert "\u202e" not in one["rule"] and len(one["rule"]) == len(one["pod"]) == module.LONGEST_NAME


def test_bounds() -> None:
    """However many alerts there are, of however many boxes, the newest of some are kept, and all are counted."""
    found, _ = made(most_spots=2)
    for at in range(100):
        for name in ("web-0", "cart-0", "db-0"):
            found.add(alert(at=at), pb.Container(pod=name, namespace="shop"))
    assert found.elsewhere([]) == 300 and len(found.news()) == 2
    kept = found.of(MapNode("shop", "cart", "pod"))
    assert (len(kept), kept[0]["time"]) == (module.MOST_OF_SPOT, NOW // 10**6 + 99)
    assert found.of(MapNode("shop", "db", "pod")) == []
