"""Makes the generated parts of docs/."""

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def replaced(text: str, name: str, part: str) -> str:
    """The text of a page, with its generated part of that name as it should be."""
    begin, end = f"<!-- {name}: made by `make docs` -->", "<!-- end -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{part}\n\n{end}{rest.split(end, 1)[1]}"
