"""Standard output that loses nothing."""

from __future__ import annotations

import sys


def write_all(data: bytes) -> None:
    """Write all of data and flush.

    With PYTHONUNBUFFERED set, sys.stdout.buffer is a raw file, whose write returns early when a signal comes.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.buffer.flush()


def write_text(text: str) -> None:
    """Write text in the terminal's encoding; what that lacks is escaped."""
    write_all(text.encode(sys.stdout.encoding, "backslashreplace"))
