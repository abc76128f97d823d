"""The table of forms in docs/screens.md."""

from __future__ import annotations

from kubectl_gadget.output import all_forms
from tools import DOCS, replaced

PAGE = DOCS / "screens.md"


def page() -> str:
    """The page, with its generated part as it should be."""
    rows = [
        "| `-o` | what it is |",
        "|---|---|",
        *(f"| `{each.written}` | {each.help} |" for each in all_forms().values()),
    ]
    return replaced(PAGE.read_text(), "forms", "\n".join(rows))
