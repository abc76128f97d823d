"""From the clock of events to the wall clock."""

from __future__ import annotations

import time

#: A change below this is how we measure, or the slow steering of the wall clock: times of the same event stay the same.
_STEADY_NS = 1_000_000
_offset = 0


def clock_offset() -> int:
    """Nanoseconds from CLOCK_BOOTTIME to the wall clock, which may be set at any time."""
    global _offset
    measured = min(time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) for _ in range(3))
    if abs(measured - _offset) > _STEADY_NS:
        _offset = measured
    return _offset
