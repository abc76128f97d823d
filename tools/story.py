"""The table of kinds in docs/story.md, made from the catalogue."""

from __future__ import annotations

from kubectl_gadget.story.kinds import all_kinds, by_default
from tools import DOCS

PAGE = DOCS / "story.md"
BEGIN, END = "<!-- story: made by `make docs` -->", "<!-- end -->"


def page() -> str:
    """The page, with its table as it is by now."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    lines = ["| kind | gadget | by default |", "|---|---|---|"]
    for kind, (gadget, story) in all_kinds().items():
        lines.append(f"| `{kind}` | [{gadget.name}](gadgets/{gadget.name}.md) | {by_default(story)} |")
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}"
