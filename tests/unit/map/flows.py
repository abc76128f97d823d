"""Rows of flows for edges, as a session writes them."""

from __future__ import annotations

from typing import Any

from gadget.endpoints import Endpoint
from gadget.kinds.times import DURATION_UNKNOWN
from kubectl_gadget.map.edges import Edges
from kubectl_gadget.map.owners import Owners
from kubectl_gadget.observe.lines import FIELDS
from kubectl_gadget.output import all_fields
from tests.unit.observe.flows import GADGET

MINUTE = 60 * 10**9
NOW = 29_000_000 * MINUTE
WEB = Endpoint("10.0.0.1", 40001, "pod", "shop", "web-7d4b9c6f8d-x2x7l")
CART = Endpoint("10.0.0.2", 8080, "pod", "shop", "cart-0")
ENDED = {"type": "ended", "reason": "closed", "sent": 100, "received": 9000, "rtt": 210_000}
WORLD = Endpoint("203.0.113.7", 443, "raw", "", "")


def edges(owners: Owners | None = None, **most: int) -> Edges:
    """Edges of nothing yet."""
    return Edges(GADGET, all_fields(GADGET.schema), owners or Owners(), **most)


def row(**values: Any) -> tuple[Any, ...]:
    """A flow that web began to cart, and that differs so."""
    usual: dict[str, Any] = {
        "timestamp": NOW, "node": "node-a", "pid": 7, "comm": "curl", "type": "begun", "verdict": "forwarded",
        "direction": "egress", "protocol": "tcp", "src": WEB, "dst": CART, "version": 4, "reason": "none", "error": 0,
        "sent": 0, "received": 0, "retransmits": 0, "duration": DURATION_UNKNOWN, "rtt": DURATION_UNKNOWN,
    }  # fmt: skip
    usual |= values
    for name in ("type", "verdict", "direction", "protocol", "reason"):
        known = GADGET.schema[name].values.items()
        usual[name] = next((int(number) for number, word in known if word == usual[name]), usual[name])
    return tuple(usual.get(name, "") for name in FIELDS)


def told(of: Edges, since: int = 0) -> dict[str, list[Any]]:
    """All that has changed since a version, as a page is told."""
    _, messages = of.changes(since)
    found: dict[str, list[Any]] = {"spots": [], "labels": [], "alerts": [], "edges": [], "sums": []}
    for message in messages:
        for name, items in found.items():
            items += message[name]
    return found


def large(workloads: int = 1000, number: int = 20_000, namespaces: int = 25) -> Edges:
    """Edges between so many workloads, of which all use a few hubs."""
    of = edges()
    ends = [
        Endpoint("10.0.0.1", 8080 + at % 3, "pod", f"team-{at % namespaces:02}", f"service{at:04}")
        for at in range(workloads)
    ]
    pairs: dict[tuple[int, int], None] = {}
    for at in range(number):
        step = 1 + at // workloads * 37
        pairs[at % workloads, at % 5 if at % 4 == 0 else (at + step) % workloads] = None
    at = 0
    while len(pairs) < number:
        at += 1
        pairs[at % workloads, (at * 7919 + at // workloads) % workloads] = None
    rows = []
    for at, (source, target) in enumerate(pairs):
        bad = {"type": "failed", "verdict": "refused" if at % 2 else "dropped"} if at % 97 == 0 else ENDED
        usual = {"timestamp": NOW + at % 50 * MINUTE, "src": ends[source], "dst": ends[target]}
        rows += [row(**usual), row(**usual, **bad)]
    of.write(rows)
    return of
