"""The table of kinds in docs/story.md, made from the catalogue."""

from __future__ import annotations

from kubectl_gadget.story.kinds import all_kinds, by_default
from tools import DOCS, replaced

PAGE = DOCS / "story.md"


def page() -> str:
    """The page, with its table as it is by now."""
    lines = ["| kind | gadget | by default |", "|---|---|---|"]
    for kind, (gadget, story) in all_kinds().items():
        lines.append(f"| `{kind}` | [{gadget.name}](gadgets/{gadget.name}.md) | {by_default(story)} |")
    return replaced(PAGE.read_text(), "story", "\n".join(lines))
