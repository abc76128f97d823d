"""docs/decisions/README.md: a list of the decisions, by their titles."""

from __future__ import annotations

from tools import DOCS

FOLDER = DOCS / "decisions"
PAGE = FOLDER / "README.md"
INTRODUCTION = """# Decisions

Each page is one decision, with its reasons and the figures that it rests on. The figures are of the machine of
[benchmarks.md](../benchmarks.md) at that time. To add a decision, take the next number and run `make docs`, which makes
this list. When the code changes a decision, change its page in the same commit.
"""


def page() -> str:
    """The page."""
    lines = []
    for path in sorted(FOLDER.glob("[0-9]*.md")):
        number, _, title = path.read_text().partition("\n")[0].removeprefix("# ").partition(". ")
        lines.append(f"- {int(number):03d} [{title}]({path.name})")
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"
