"""The table of causes in docs/why.md."""

from __future__ import annotations

from kubectl_gadget.why.causes import CAUSES
from tools import DOCS, replaced

PAGE = DOCS / "why.md"


def page() -> str:
    """The page, with its generated part as it should be."""
    rows = ["| cause | what it means |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in CAUSES.items())]
    return replaced(PAGE.read_text(), "causes", "\n".join(rows))
