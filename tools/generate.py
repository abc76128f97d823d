"""Writes docs/gadgets/NAME.md for every gadget, and generated parts of other pages: python -m tools.generate."""

from __future__ import annotations

from pathlib import Path

from gadget import catalog
from gadget.catalog import Gadget
from kubectl_gadget.output import all_fields, explain, listed, usual
from tools import (
    DOCS,
    agent,
    authoring,
    decisions,
    fields,
    forms,
    index,
    kernels,
    observe,
    rules,
    story,
    traceloop,
    why,
)

FOLDER = DOCS / "gadgets"
OTHERS = (agent, authoring, decisions, fields, forms, index, kernels, observe, rules, story, traceloop, why)


def page(gadget: Gadget) -> str:
    """A gadget's page."""
    fields = all_fields(gadget.schema)
    shown = ["node", "namespace", "pod", "container", *gadget.columns]
    lines = [
        f"# {gadget.command}",
        "",
        f"Shows {gadget.title}. Made from the catalogue by `make docs`; edit `bpf/{gadget.name}/` instead.",
        "",
        "```",
        gadget.example,
        "```",
        "",
        *([gadget.notes, ""] if gadget.notes else []),
        f"Columns: {', '.join(name.upper() for name in shown)}.",
        f"`-o wide` adds {', '.join(name.upper() for name in gadget.wide)}.",
        *_narrow(gadget),
        "",
        "## Options",
        "",
        "| option | default | meaning |",
        "|---|---|---|",
    ]
    for item in gadget.parameters:
        on = int(item.default, 16) != 0
        dashed = item.name.replace("_", "-")
        name = f"--no-{dashed}" if item.means.is_switch and on else f"--{dashed}"
        default = usual(item) or "any" if not item.means.is_switch else f"`--{dashed}`" if on else "off"
        lines.append(
            f"| `{name}` | {default} | {'do not ' if name.startswith('--no-') else ''}{item.doc}{listed(item)} |"
        )
    lines += ["", "Options of all gadgets: `kubectl gadget " + gadget.command + " --help`.", "", "## Fields", ""]
    lines += ["| field | kind | JSON | meaning |", "|---|---|---|---|"]
    for field in fields.values():
        keys = ", ".join(f"`{key}`" for key in field.means.json(field))
        lines.append(f"| {field.name} | {field.kind} | {keys} | {explain(field, gadget.schema)} |")
    return "\n".join(lines) + "\n"


def _narrow(gadget: Gadget) -> list[str]:
    names = [name.upper() for name in gadget.narrow]
    return [f"A narrow terminal is without {', '.join(names)} ([screens](../screens.md))."] if names else []


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    gadgets = {FOLDER / f"{name}.md": page(gadget) for name, gadget in catalog.load().items()}
    return {**gadgets, **{each.PAGE: each.page() for each in OTHERS}}


def write() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    write()
