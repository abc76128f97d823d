"""Makes the generated parts of docs/."""

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
