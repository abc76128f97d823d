"""Who talks to whom: what draw.py draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_gadget.advise.flows import PORTLESS
from kubectl_gadget.advise.observation import Evidence, Observation
from kubectl_gadget.advise.policy import Port
from kubectl_gadget.advise.talks import Actor, Settings, WorkloadChoice, add_up
from kubectl_gadget.advise.workloads import Workload

#: Where what is in no namespace is drawn.
NODES, OUTSIDE, UNKNOWN = "nodes", "outside the cluster", "not known"
#: More addresses than this outside the cluster are drawn as one.
SINGLE_ADDRESSES = 12


@dataclass(frozen=True, order=True)
class GraphNode:
    """Something that talks: a workload in its namespace, or an address in the place of its kind."""

    group: str
    name: str


@dataclass(frozen=True)
class Arrow:
    """One talks to another, at ports; failed: it never came about."""

    source: GraphNode
    target: GraphNode
    ports: tuple[str, ...]
    count: int
    failed: bool


@dataclass(frozen=True)
class Graph:
    """Who talks to whom, in a fixed order. labels: those that pods of a workload have, as KEY=VALUE."""

    spots: tuple[GraphNode, ...]
    arrows: tuple[Arrow, ...]
    labels: Mapping[GraphNode, list[str]] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, list[GraphNode]]:
        """What is in each namespace, and what is in none."""
        found: dict[str, list[GraphNode]] = {}
        for spot in self.spots:
            found.setdefault(spot.group, []).append(spot)
        return found


def make_graph(observation: Observation, settings: Settings | None = None) -> Graph:
    """The graph of the traffic of the chosen workloads."""
    settings = settings or Settings()
    choice = WorkloadChoice(settings)
    talks = {
        key: evidence
        for key, evidence in add_up(observation, settings).items()
        if choice.has(key[0]) or choice.has(key[1])
    }
    outside = {each for source, target, _, _ in talks for each in (source, target) if _group(each) == OUTSIDE}
    many = len(outside) > SINGLE_ADDRESSES
    found: dict[tuple[GraphNode, GraphNode, bool], dict[Port, Evidence]] = {}
    for (source, target, protocol, port), evidence in talks.items():
        key = (_spot(source, many), _spot(target, many), not evidence.count)
        found.setdefault(key, {}).setdefault(Port(port, protocol), Evidence()).add(evidence)
    arrows = [
        Arrow(source, target, tuple(map(_port, sorted(ports))), sum(map(_times, ports.values())), failed)
        for (source, target, failed), ports in found.items()
    ]
    arrows.sort(key=lambda arrow: (arrow.source, arrow.target, arrow.failed))
    labels = {
        _spot(each, many): sorted({f"{key}={value}" for pod in each.pods for key, value in pod.labels.items()})
        for talk in talks
        for each in talk[:2]
        if isinstance(each, Workload)
    }
    spots = sorted({spot for arrow in arrows for spot in (arrow.source, arrow.target)})
    return Graph(tuple(spots), tuple(arrows), labels)


def _group(actor: Actor) -> str:
    if isinstance(actor, Workload):
        return actor.namespace
    return {"node": NODES, "external": OUTSIDE}.get(actor.kind, UNKNOWN)


def _spot(actor: Actor, many_outside: bool) -> GraphNode:
    group = _group(actor)
    if isinstance(actor, Workload):
        return GraphNode(group, actor.name)
    return GraphNode(group, "other addresses" if many_outside and group == OUTSIDE else actor.name)


def _port(port: Port) -> str:
    return port.protocol if port.protocol in PORTLESS else str(port)


def _times(evidence: Evidence) -> int:
    return evidence.count or evidence.refused
