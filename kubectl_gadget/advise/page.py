"""The graph of who talks to whom as one HTML file that needs nothing else: drawing, script, and a table of it all."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape as escape_html

from gadget.text import escape
from kubectl_gadget.advise.graph import Arrow, Graph, Spot
from kubectl_gadget.text import fit

#: Sizes in pixels of the drawing.
BOX_WIDTH, BOX_HEIGHT, COLUMN, ROW, MARGIN = 190, 36, 330, 52, 16
NAME_LETTERS = 26

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ color-scheme: light; font: 14px/1.4 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 16px }}
h1 {{ font-size: 18px; margin: 0 0 4px }} p {{ margin: 0 0 12px; color: #57606a }}
figure {{ margin: 0 0 16px; overflow: auto; border: 1px solid #d0d7de; border-radius: 6px }}
svg text {{ font: 13px system-ui, sans-serif; fill: #1b1f24; pointer-events: none }}
svg .group {{ font-size: 10px; fill: #57606a }}
.spot {{ cursor: pointer }} .spot rect {{ stroke-width: 1.5 }}
.arrow {{ fill: none; stroke: #8c959f; stroke-width: 1.5; marker-end: url(#head) }}
.failed {{ stroke-dasharray: 5 4; stroke: #bc4c00 }}
svg.on .spot, svg.on .arrow {{ opacity: .12 }}
svg.on .lit {{ opacity: 1 }} svg.on .arrow.lit {{ stroke: #0550ae; stroke-width: 2.5 }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: 3px 16px 3px 0; border-bottom: 1px solid #eaeef2 }}
td.number {{ text-align: right }} tr.hidden {{ display: none }}
</style>
<h1>{title}</h1>
<p>{summary} Point at a box to see whom it talks to, click to keep it so; the table below then shows its ports.</p>
<figure><svg width="{width}" height="{height}" role="img" aria-label="{title}">
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>
{drawing}
</svg></figure>
<table><thead><tr><th>From<th>To<th>Ports<th>Connections</thead><tbody>
{rows}
</tbody></table>
<script>
const svg = document.querySelector("svg"), parts = [...document.querySelectorAll(".spot, .arrow")];
const rows = [...document.querySelectorAll("tbody tr")];
let kept = null;
function show(id) {{
  const near = new Set([id]);
  const touches = (part) => part.dataset.from === id || part.dataset.to === id;
  for (const part of parts) if (touches(part)) near.add(part.dataset.from).add(part.dataset.to);
  for (const part of parts) part.classList.toggle("lit", part.id ? near.has(part.id) : touches(part));
  svg.classList.toggle("on", id !== null);
  for (const row of rows) row.classList.toggle("hidden", id !== null && !touches(row));
}}
for (const spot of document.querySelectorAll(".spot")) {{
  spot.onmouseenter = () => kept || show(spot.id);
  spot.onmouseleave = () => kept || show(null);
  spot.onclick = (event) => {{ event.stopPropagation(); kept = kept === spot.id ? null : spot.id; show(kept); }};
}}
document.onclick = () => {{ kept = null; show(null); }};
</script>
</html>
"""


def to_html(graph: Graph, title: str) -> str:
    """The page."""
    columns = _columns(graph)
    places = _places(columns)
    ids = {spot: f"s{number}" for number, spot in enumerate(graph.spots)}
    hues = {group: number * 137 % 360 for number, group in enumerate(graph.groups)}  # the golden angle
    lines = [_line(arrow, places, ids) for arrow in graph.arrows]
    lines += [_box(spot, places[spot], ids[spot], hues[spot.group]) for spot in graph.spots]
    tallest = max((len(column) for column in columns), default=0)
    return _PAGE.format(
        title=_text(title),
        summary=f"{len(graph.spots)} workloads and addresses; {len(graph.arrows)} of all pairs talk.",
        width=MARGIN * 2 + BOX_WIDTH + COLUMN * max(len(columns) - 1, 0),
        height=MARGIN * 2 + ROW * tallest,
        drawing="\n".join(lines),
        rows="\n".join(_row(arrow, ids) for arrow in graph.arrows),
    )


def _text(text: str) -> str:
    return escape_html(escape(text))


def _columns(graph: Graph) -> list[list[Spot]]:
    """Who talks first stands left: each in the first column behind all those that talk to it, rings cut open."""
    after: dict[Spot, list[Spot]] = {spot: [] for spot in graph.spots}
    for arrow in graph.arrows:
        if arrow.target != arrow.source:
            after[arrow.source].append(arrow.target)
    called = {target for targets in after.values() for target in targets}
    order: dict[Spot, None] = {}  # each behind all that it leads to

    def visit(start: Spot) -> None:
        stack = [(start, iter(after[start]))]
        entered.add(start)
        while stack:
            spot, rest = stack[-1]
            following = next((each for each in rest if each not in entered), None)
            if following is None:
                order[spot] = None
                stack.pop()
            else:
                entered.add(following)
                stack.append((following, iter(after[following])))

    entered: set[Spot] = set()
    for spot in sorted(graph.spots, key=lambda spot: (spot in called, spot)):
        if spot not in entered:
            visit(spot)
    depth = dict.fromkeys(graph.spots, 0)
    done: set[Spot] = set()
    for spot in reversed(order):
        done.add(spot)
        for target in after[spot]:
            if target not in done:
                depth[target] = max(depth[target], depth[spot] + 1)
    columns: list[list[Spot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for spot in graph.spots:
        columns[depth[spot]].append(spot)
    return _untangle(columns, graph)


def _untangle(columns: list[list[Spot]], graph: Graph) -> list[list[Spot]]:
    """Each column in the order of the middle of its neighbours, over and back, which makes lines cross less."""
    near: dict[Spot, list[Spot]] = {spot: [] for spot in graph.spots}
    for arrow in graph.arrows:
        near[arrow.source].append(arrow.target)
        near[arrow.target].append(arrow.source)
    for _ in range(4):
        rows = {spot: (at + 0.5) / len(column) for column in columns for at, spot in enumerate(column)}
        middle = {spot: sum(rows[each] for each in others) / len(others) for spot, others in near.items()}
        columns = [sorted(column, key=lambda spot: (middle[spot], spot)) for column in columns]
    return columns


def _places(columns: list[list[Spot]]) -> dict[Spot, tuple[int, int]]:
    """The left upper corner of each box; each column stands in the middle of the drawing's height."""
    tallest = max((len(column) for column in columns), default=0)
    return {
        spot: (MARGIN + COLUMN * left, MARGIN + ROW * top + ROW * (tallest - len(column)) // 2)
        for left, column in enumerate(columns)
        for top, spot in enumerate(column)
    }


def _box(spot: Spot, place: tuple[int, int], own: str, hue: int) -> str:
    left, top = place
    fill, edge = f"hsl({hue} 70% 95%)", f"hsl({hue} 45% 45%)"
    return (
        f'<g class="spot" id="{own}"><title>{_text(f"{spot.group}/{spot.name}")}</title>'
        f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" fill="{fill}" stroke="{edge}"/>'
        f'<text class="group" x="{left + 8}" y="{top + 13}">{_text(fit(spot.group, NAME_LETTERS, middle=True))}</text>'
        f'<text x="{left + 8}" y="{top + 28}">{_text(fit(spot.name, NAME_LETTERS, middle=True))}</text></g>'
    )


def _line(arrow: Arrow, places: dict[Spot, tuple[int, int]], ids: dict[Spot, str]) -> str:
    (left, top), (right, bottom) = places[arrow.source], places[arrow.target]
    start, stop = (left + BOX_WIDTH, top + BOX_HEIGHT // 2), (right - 2, bottom + BOX_HEIGHT // 2)
    # a line that leads back, or to itself, swings out to both sides
    swing = max((stop[0] - start[0]) // 2, 70)
    lift = 0 if stop[0] > start[0] else ROW
    path = (
        f"M{start[0]} {start[1]}C{start[0] + swing} {start[1] - lift} {stop[0] - swing} {stop[1] - lift} "
        f"{stop[0]} {stop[1]}"
    )
    kind = "arrow failed" if arrow.failed else "arrow"
    told = f"{arrow.source.name} → {arrow.target.name}: {', '.join(arrow.ports)}"
    return (
        f'<path class="{kind}" data-from="{ids[arrow.source]}" data-to="{ids[arrow.target]}" d="{path}">'
        f"<title>{_text(told)}</title></path>"
    )


def _row(arrow: Arrow, ids: dict[Spot, str]) -> str:
    cells = "".join(f"<td>{_text(text)}" for text in _cells(arrow))
    count = f"{arrow.count:,}{' failed' if arrow.failed else ''}"
    return f'<tr data-from="{ids[arrow.source]}" data-to="{ids[arrow.target]}">{cells}<td class="number">{count}</tr>'


def _cells(arrow: Arrow) -> Iterator[str]:
    yield f"{arrow.source.group}/{arrow.source.name}"
    yield f"{arrow.target.group}/{arrow.target.name}"
    yield ", ".join(arrow.ports)
