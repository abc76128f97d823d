"""Who talks to whom, as a drawing: mermaid, dot, or one page of HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gadget.errors import UsageError
from gadget.text import escape
from kubectl_gadget.advise.graph import NODES, OUTSIDE, UNKNOWN, Arrow, Graph, GraphNode
from kubectl_gadget.page import Message, document


def render_graph(graph: Graph, form: str, *, title: str = "Who talks to whom") -> str:
    """A graph as text: mermaid, dot or html. UsageError for another form."""
    if form == "html":
        return document(title, [_message(graph)], empty="Nothing was seen of it.", labels=True)
    forms: dict[str, Callable[[Graph], Iterable[str]]] = {"mermaid": _mermaid, "dot": _dot}
    if form not in forms:
        raise UsageError(f"-o {form}: want mermaid, dot or html")
    return "".join(f"{line}\n" for line in forms[form](graph))


def _message(graph: Graph) -> Message:
    """The graph as the page knows it. What was seen has neither bytes nor round-trip times, and no minute."""
    numbers = {spot: number for number, spot in enumerate(graph.spots)}
    pairs: dict[tuple[int, int], list[Arrow]] = {}
    for arrow in graph.arrows:
        pairs.setdefault((numbers[arrow.source], numbers[arrow.target]), []).append(arrow)
    edges: list[list[Any]] = []
    sums: list[list[Any]] = []
    for number, (ends, arrows) in enumerate(pairs.items()):
        ports = list(dict.fromkeys(escape(port) for arrow in arrows for port in arrow.ports))
        failed = sum(arrow.count for arrow in arrows if arrow.failed)
        edges.append([number, *ends, ports, [], [], [], []])
        sums.append([0, number, sum(arrow.count for arrow in arrows), failed, 0, None, None, 0, []])
    spots = [[numbers[spot], *_spot(spot)] for spot in graph.spots]
    labels = [[numbers[spot], [*map(escape, own)]] for spot, own in graph.labels.items() if own]
    return {"spots": spots, "labels": labels, "edges": edges, "sums": sums}


def _spot(spot: GraphNode) -> tuple[str, str, str]:
    kind = {NODES: "node", OUTSIDE: "raw", UNKNOWN: "raw"}.get(spot.group, "pod")
    return escape(spot.group), escape(spot.name), kind


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
    """Text escaped for mermaid, whose escapes are HTML's with # instead of &."""
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
