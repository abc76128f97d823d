"""The table of gadgets in docs/README.md."""

from __future__ import annotations

from gadget import catalog
from tools import DOCS, replaced

PAGE = DOCS / "README.md"


def page() -> str:
    """The page, with its generated part as it should be."""
    rows = [
        "| page | what it tells |",
        "|---|---|",
        *(f"| [{each.command}](gadgets/{each.name}.md) | {each.title} |" for each in catalog.load().values()),
    ]
    return replaced(PAGE.read_text(), "gadgets", "\n".join(rows))
