"""The terminal that standard output is, if it is one: its width, and whether it takes colours."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from zlib import crc32

RED, BOLD, DIM, PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
#: Colours of pods. Red is for failures; yellow and white are hard to read on white.
_POD_COLOURS = ("\x1b[36m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[92m", "\x1b[95m", "\x1b[94m")

CHOICES = ("auto", "always", "never")
#: Under which the running command's --color is in click's context.
COLOR = "kubectl_gadget.color"


def columns() -> int:
    """Cells of a line. The terminal's own word comes first: COLUMNS does not follow a resize."""
    try:
        found = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        found = 0
    if not found:
        import shutil  # with all that it can unpack, which no stream needs

        found = shutil.get_terminal_size().columns
    return found


def has_colours() -> bool:
    """Whether to colour standard output: --color, else https://no-color.org, TERM=dumb and whether it is a terminal."""
    import click

    context = click.get_current_context(silent=True)
    choice = context.meta.get(COLOR, "auto") if context else "auto"
    if choice != "auto":
        return bool(choice == "always")
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@lru_cache(4096)
def colour_of(name: str) -> str:
    """The colour of a pod, the same on every run."""
    return _POD_COLOURS[crc32(name.encode(errors="replace")) % len(_POD_COLOURS)]
