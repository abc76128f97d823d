"""Opens the page in a browser."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path

#: Leads on to the page. Arguments of programs can be read by everybody on a machine, a file by its owner alone.
_LEAD = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={url}"><title>map</title>'


@contextmanager
def opened(url: str, *, wanted: bool) -> Iterator[None]:
    """Let a browser show url, if one is wanted and there is a screen. The file that leads there goes in the end."""
    if not wanted or not _has_screen():
        yield
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="kubectl-gadget-", dir=runtime or None) as folder:
        file = Path(folder) / "map.html"
        file.write_text(_LEAD.format(url=escape(url)))
        with suppress(webbrowser.Error, OSError):
            webbrowser.open(file.as_uri())
        yield


def _has_screen() -> bool:
    """Whether a browser would have a window: one in the terminal would take it from us."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
