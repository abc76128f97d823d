"""The table of causes in docs/why.md."""

from __future__ import annotations

from kubectl_gadget.why.causes import CAUSES
from tools import DOCS

PAGE = DOCS / "why.md"
BEGIN, END = "<!-- causes: made by `make docs` -->", "<!-- end -->"


def page() -> str:
    """The page, with its generated part as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    rows = ["| cause | what it means |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in CAUSES.items())]
    return f"{before}{BEGIN}\n\n{chr(10).join(rows)}\n\n{END}{rest.split(END)[1]}"
