"""The table of forms in docs/screens.md."""

from __future__ import annotations

from kubectl_gadget.output import all_forms
from tools import DOCS

PAGE = DOCS / "screens.md"
BEGIN, END = "<!-- forms: made by `make docs` -->", "<!-- end -->"


def page() -> str:
    """The page, with its generated part as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    rows = [
        "| `-o` | what it is |",
        "|---|---|",
        *(f"| `{each.written}` | {each.help} |" for each in all_forms().values()),
    ]
    return f"{before}{BEGIN}\n\n{chr(10).join(rows)}\n\n{END}{rest.split(END)[1]}"
