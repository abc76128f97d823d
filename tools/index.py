"""The table of gadgets in docs/README.md."""

from __future__ import annotations

from gadget import catalog
from tools import DOCS

PAGE = DOCS / "README.md"
BEGIN, END = "<!-- gadgets: made by `make docs` -->", "<!-- end -->"


def page() -> str:
    """The page, with its generated part as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    rows = [
        "| page | what it tells |",
        "|---|---|",
        *(f"| [{each.command}](gadgets/{each.name}.md) | {each.title} |" for each in catalog.load().values()),
    ]
    return f"{before}{BEGIN}\n\n{chr(10).join(rows)}\n\n{END}{rest.split(END)[1]}"
