from __future__ import annotations

import re
import subprocess
from pathlib import Path

from docs.generate import pages

ROOT = Path(__file__).parents[2]


def test_gadget_pages_are_fresh() -> None:
    """The page of a gadget says what the gadget does today (`make docs` writes it)."""
    for path, text in pages().items():
        assert path.read_text() == text, f"{path.name}: run make docs"


def test_links_lead_somewhere() -> None:
    """Every file that a page links to is there."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_no_hand_kept_mirrors() -> None:
    """Nothing has to be kept the same in two places by hand."""
    phrase = "keep in " + "sync"
    found = subprocess.run(["git", "grep", "-il", phrase], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""
