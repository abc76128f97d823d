"""The table of fields in docs/observe.md, made from the catalogue."""

from __future__ import annotations

from gadget import catalog
from kubectl_gadget.output import all_fields, explain
from tools import DOCS, replaced

PAGE = DOCS / "observe.md"


def page() -> str:
    """The page, with its table as it is by now."""
    gadget = catalog.find("observe")
    lines = ["| field | kind | meaning |", "|---|---|---|"]
    lines += [
        f"| {field.name} | {field.kind} | {explain(field, gadget.schema)} |"
        for field in all_fields(gadget.schema).values()
    ]
    return replaced(PAGE.read_text(), "fields", "\n".join(lines))
