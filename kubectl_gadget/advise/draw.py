"""Who talks to whom, as a drawing: mermaid, dot, or one page of HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gadget.errors import UsageError
from gadget.text import escape
from kubectl_gadget.advise.graph import Arrow, Graph
from kubectl_gadget.advise.page import to_html


def render_graph(graph: Graph, form: str, *, title: str = "Who talks to whom") -> str:
    """A graph as text: mermaid, dot or html. UsageError for another form."""
    if form == "html":
        return to_html(graph, title)
    forms: dict[str, Callable[[Graph], Iterable[str]]] = {"mermaid": _mermaid, "dot": _dot}
    if form not in forms:
        raise UsageError(f"-o {form}: want mermaid, dot or html")
    return "".join(f"{line}\n" for line in forms[form](graph))


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
