"""The time by which a command must be answered (--wait). It is one for everything that the command waits for."""

from __future__ import annotations

import time

_ends: float | None = None


def set_deadline(seconds: float) -> None:
    """Wait for no longer than that from now on; 0 for as long as it takes."""
    global _ends
    _ends = time.monotonic() + seconds if seconds else None


def left() -> float | None:
    """The seconds that may still be waited; None for any number."""
    return None if _ends is None else max(_ends - time.monotonic(), 0.0)


def bounded(seconds: float | None) -> float | None:
    """How long a call may take: so many seconds, but only until the deadline, if there is one and it is not over."""
    rest = left()
    return seconds if not rest else rest if seconds is None else min(rest, seconds)
