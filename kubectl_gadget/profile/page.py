"""The page of a flame graph: one file that needs nothing else. Its data is text, and only its own script may run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubectl_gadget.page.build import build

_FOLDER = Path(__file__).parent


def page(title: str, summary: str, data: dict[str, Any]) -> bytes:
    """The page. Names in data are shown as they are, so they have to be safe to read; they are no HTML here."""
    style, script = ((_FOLDER / f"flames.{end}").read_text() for end in ("css", "js"))
    return build(_FOLDER / "flames.html", style, script, data, title=title, summary=summary).encode()
