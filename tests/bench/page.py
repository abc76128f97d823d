"""docs/benchmarks.md, of figures as --json prints them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench import NO_TOOL, Section
from tests.bench.sections import SECTIONS
from tests.bench.summary import summary

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
HEADING = "# Benchmarks"
INTRODUCTION = """## All of it

Made by `make bench`, which installs the peers and writes this page; edit `tests/bench/` instead. `make bench QUICK=1`
takes some minutes and shows that all of it works. It writes the same figures for programs to `docs/benchmarks.jsonl`, one
JSON object a line, the machine first, as `python -m tests.bench --json` prints them.

Each figure is the median of its runs; the least and the most stand in brackets. Read the figures as ratios: `× 2` means
twice the figure of kubectl gadget's row, or of the table's first row if there is none. *Of … made* is the rate at which
events were really made, if that is less than the column says.
"""


def number(value: float) -> str:
    """Three digits or so."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _spread(item: dict[str, Any]) -> str:
    return (
        f" ({number(item['min'])} to {number(item['max'])})" if item["runs"] > 1 and item["min"] != item["max"] else ""
    )


def _made(item: dict[str, Any]) -> str:
    """The rate at which events were made, if it is not the one that its column says."""
    return f" of {number(item['made'])}/s made" if "made" in item else ""


def _goal(item: dict[str, Any]) -> str:
    if "goal" not in item:
        return ""
    by, least = item["median"] / item["goal"] - 1, item["at_least"]
    words = f"{'at least' if least else 'at most'} {number(item['goal'])}{_made(item)}"
    if (by >= 0) if least else (by <= 0):
        return f"{words}: met"
    return f"{words}: **missed** by {abs(by):.0%}. {item['missed']}".strip()


def _list(items: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| | median | spread | runs | goal |", "|---|---|---|---|---|"]
    for item in items:
        if item["runs"]:
            shown = f"{number(item['median'])} {item['unit']} | {_spread(item).strip(' ()')} | {item['runs']} | {_goal(item)}"
        else:
            shown = f"– | | | {item['why']}"
        lines.append(f"| {item['row']} | {shown} |")
    return lines


def _matrix(items: Sequence[dict[str, Any]], reference: str) -> list[str]:
    rows = list(dict.fromkeys(item["row"] for item in items))
    reference = reference or rows[0]
    measured = sorted((item for item in items if item["runs"]), key=lambda item: item["row"] != reference)
    units = {item["column"]: item["unit"] for item in measured}  # in the order of the reference's columns
    cells = {(item["row"], item["column"]): item for item in measured}

    def cell(row: str, column: str) -> str:
        item, other = cells.get((row, column)), cells.get((reference, column))
        if item is None:
            return "–"
        text = number(item["median"]) + _spread(item)
        comparable = row != reference and not row.startswith(NO_TOOL) and units[column] != "%"
        if other and comparable and other["median"] > 0:
            text += f" × {number(item['median'] / other['median'])}"
        return text + _made(item)

    def runs(row: str) -> str:
        columns: dict[int, list[str]] = {}
        for column in units:
            if item := cells.get((row, column)):
                columns.setdefault(item["runs"], []).append(column)
        usual = max(columns, key=lambda number: len(columns[number]), default=0)
        others = [f"{', '.join(named)}: {number}" for number, named in columns.items() if number != usual]
        return f"{usual or '–'}" + (f" ({'; '.join(others)})" if others else "")

    lines = ["| | " + " | ".join(f"{column}, {unit}" for column, unit in units.items()) + " | runs |"]
    lines.append("|---" * (len(units) + 2) + "|")
    lines += [f"| {row} | " + " | ".join(cell(row, column) for column in units) + f" | {runs(row)} |" for row in rows]
    return lines


def _notes(items: Sequence[dict[str, Any]], section: Section) -> list[str]:
    """What the goals came to, and why cells are empty."""
    lines = [
        f"- Goal: {item['row']}, {item['column']} {_goal(item)}" for item in items if item["runs"] and "goal" in item
    ]
    for mine in [item for item in items if item["row"] == section.reference and item["column"].startswith("CPU per")]:
        peers = [item for item in items if item["column"] == mine["column"] and "kubectl gadget" not in item["row"]]
        if section.slower and peers:
            best = min(peers, key=lambda item: float(item["median"]))
            goal = {**mine, "goal": best["median"], "at_least": False, "missed": section.slower}
            lines.append(
                f"- Goal: {mine['row']}, {mine['column']} no more than the best peer ({best['row']}), {_goal(goal)}"
            )
    reasons = [item for item in items if not item["runs"]]
    lines += [f"- {item['row']}{', ' + item['column'] if item['column'] else ''}: {item['why']}" for item in reasons]
    return ["", *lines] if lines else []


def render(machine: dict[str, Any], figures: Sequence[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        HEADING,
        "",
        *summary(figures, number),
        INTRODUCTION,
        "| machine | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items()),
    ]
    for section in SECTIONS:
        items = [item for item in figures if item["table"] == section.name]
        if items:
            lines += ["", f"## {section.title}", "", section.about, ""]
            if any(item["column"] for item in items):
                lines += _matrix(items, section.reference) + _notes(items, section)
            else:
                lines += _list(items)
    return "\n".join(lines) + "\n"
