"""From the clock of events to the wall clock."""

from __future__ import annotations

import time

#: A smaller change is measuring error, or NTP that steers the wall clock slowly: an event then keeps its time.
_STEADY_NS = 1_000_000
_offset = 0


def clock_offset() -> int:
    """Nanoseconds from CLOCK_BOOTTIME to the wall clock, which may be set at any time."""
    global _offset
    measured = min(time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) for _ in range(3))
    if abs(measured - _offset) > _STEADY_NS:
        _offset = measured
    return _offset
