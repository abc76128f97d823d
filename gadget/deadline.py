"""By when a command must have been answered, if the user has set it (--wait): one for all that it waits for."""

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
    """How long a call may take that would take so long: no longer than to the deadline, if that is still to come."""
    rest = left()
    return seconds if not rest else rest if seconds is None else min(rest, seconds)
