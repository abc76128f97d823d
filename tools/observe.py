"""The table of fields in docs/observe.md, made from the catalogue."""

from __future__ import annotations

from gadget import catalog
from kubectl_gadget.output import all_fields, explain
from tools import DOCS

PAGE = DOCS / "observe.md"
BEGIN, END = "<!-- fields: made by `make docs` -->", "<!-- end -->"


def page() -> str:
    """The page, with its table as it is by now."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    gadget = catalog.find("observe")
    lines = ["| field | kind | meaning |", "|---|---|---|"]
    lines += [
        f"| {field.name} | {field.kind} | {explain(field, gadget.schema)} |"
        for field in all_fields(gadget.schema).values()
    ]
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}"
