"""Who talks to whom, as a drawing: mermaid, dot, or one page of HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gadget.errors import UsageError
from kubectl_gadget.advise.observation import Evidence, Observation
from kubectl_gadget.advise.page import to_html
from kubectl_gadget.advise.policy import Port
from kubectl_gadget.advise.talks import Actor, Choice, Settings, add_up
from kubectl_gadget.advise.workloads import Workload
from kubectl_gadget.text import escape

#: Where what is in no namespace is drawn.
NODES, OUTSIDE, UNKNOWN = "nodes", "outside the cluster", "not known"
#: More addresses than this outside the cluster are drawn as one.
SINGLE_ADDRESSES = 12


@dataclass(frozen=True, order=True)
class Spot:
    """Something that talks: a workload in its namespace, or an address in the place of its kind."""

    group: str
    name: str


@dataclass(frozen=True)
class Arrow:
    """One talks to another, at ports; failed: it never came about."""

    source: Spot
    target: Spot
    ports: tuple[str, ...]
    count: int
    failed: bool


@dataclass(frozen=True)
class Graph:
    """Who talks to whom, in a fixed order."""

    spots: tuple[Spot, ...]
    arrows: tuple[Arrow, ...]

    @property
    def groups(self) -> dict[str, list[Spot]]:
        """What is in each namespace, and what is in none."""
        found: dict[str, list[Spot]] = {}
        for spot in self.spots:
            found.setdefault(spot.group, []).append(spot)
        return found


def make_graph(observation: Observation, settings: Settings | None = None) -> Graph:
    """The graph of what the chosen workloads were seen to do."""
    settings = settings or Settings()
    choice = Choice(settings)
    talks = {
        key: evidence
        for key, evidence in add_up(observation, settings).items()
        if choice.has(key[0]) or choice.has(key[1])
    }
    outside = {each for source, target, _, _ in talks for each in (source, target) if _group(each) == OUTSIDE}
    many = len(outside) > SINGLE_ADDRESSES
    found: dict[tuple[Spot, Spot, bool], dict[Port, Evidence]] = {}
    for (source, target, protocol, port), evidence in talks.items():
        key = (_spot(source, many), _spot(target, many), not evidence.count)
        found.setdefault(key, {}).setdefault(Port(port, protocol), Evidence()).add(evidence)
    arrows = [
        Arrow(source, target, tuple(map(_port, sorted(ports))), sum(map(_times, ports.values())), failed)
        for (source, target, failed), ports in found.items()
    ]
    arrows.sort(key=lambda arrow: (arrow.source, arrow.target, arrow.failed))
    return Graph(tuple(sorted({spot for arrow in arrows for spot in (arrow.source, arrow.target)})), tuple(arrows))


def render_graph(graph: Graph, form: str, *, title: str = "Who talks to whom") -> str:
    """A graph as text: mermaid, dot or html. UsageError for another form."""
    if form == "html":
        return to_html(graph, title)
    forms: dict[str, Callable[[Graph], Iterable[str]]] = {"mermaid": _mermaid, "dot": _dot}
    if form not in forms:
        raise UsageError(f"-o {form}: want mermaid, dot or html")
    return "".join(f"{line}\n" for line in forms[form](graph))


def _group(actor: Actor) -> str:
    if isinstance(actor, Workload):
        return actor.namespace
    return {"node": NODES, "external": OUTSIDE}.get(actor.kind, UNKNOWN)


def _spot(actor: Actor, many_outside: bool) -> Spot:
    group = _group(actor)
    if isinstance(actor, Workload):
        return Spot(group, actor.name)
    return Spot(group, "other addresses" if many_outside and group == OUTSIDE else actor.name)


def _port(port: Port) -> str:
    return str(port) if port.protocol != "ICMP" else "ICMP"


def _times(evidence: Evidence) -> int:
    return evidence.count or evidence.refused


def _mermaid(graph: Graph) -> Iterable[str]:
    numbers = {spot: f"n{number}" for number, spot in enumerate(graph.spots)}
    yield "graph LR"
    for number, (group, spots) in enumerate(graph.groups.items()):
        yield f'  subgraph g{number}["{_entities(group)}"]'
        yield from (f'    {numbers[spot]}["{_entities(spot.name)}"]' for spot in spots)
        yield "  end"
    for arrow in graph.arrows:
        line = "-.->" if arrow.failed else "-->"
        yield f'  {numbers[arrow.source]} {line}|"{_entities(_label(arrow))}"| {numbers[arrow.target]}'


def _entities(text: str) -> str:
    """Text that mermaid takes for nothing else: its escapes are like HTML's, with # instead of &."""
    return "".join(each if each.isalnum() or each in " -_./:,()" else f"#{ord(each)};" for each in escape(text))


def _dot(graph: Graph) -> Iterable[str]:
    numbers = {spot: f"n{number}" for number, spot in enumerate(graph.spots)}
    yield "digraph flows {"
    yield '  rankdir=LR; node [shape=box, style=rounded, fontname="sans-serif"]; edge [fontname="sans-serif"];'
    for number, (group, spots) in enumerate(graph.groups.items()):
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(group)};"
        yield from (f"    {numbers[spot]} [label={_quoted(spot.name)}];" for spot in spots)
        yield "  }"
    for arrow in graph.arrows:
        style = ", style=dashed" if arrow.failed else ""
        yield f"  {numbers[arrow.source]} -> {numbers[arrow.target]} [label={_quoted(_label(arrow))}{style}];"
    yield "}"


def _quoted(text: str) -> str:
    return '"' + escape(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label(arrow: Arrow) -> str:
    return ", ".join(arrow.ports) + (" failed" if arrow.failed else "")
