"""The last records of a container, without those of its runtime: it writes hundreds before a program that is exec'd."""

from __future__ import annotations

import numpy as np

from agent.traceloop.rings import About, Records
from agent.traceloop.wipe import enum_of

#: A call is recorded so much later than other programs see its end, at most, in nanoseconds.
LATE_NS = 100_000


def last(about: About, calls: Records, number: int, until: int) -> tuple[Records, int]:
    """The last records up to a time in CLOCK_BOOTTIME, so many; if none is that old, the last ones there are.

    And how many of the runtime were left out among these.
    """
    before = calls["time"] <= max(until + LATE_NS, 0)
    every = calls[before] if before.any() else calls
    kept = _without_runtime(about, every)[-number:]
    return kept, int((every["time"] >= kept["time"].min()).sum()) - len(kept) if len(kept) else 0


def _without_runtime(about: About, calls: Records) -> Records:
    """Without what processes did that something outside started, until they began a program of the container.

    That it was their first is known of those alone that are younger than the oldest record.
    """
    if not {"pid", "result", "time"} <= set(calls.dtype.names or ()) or not len(calls):
        return calls
    number = enum_of(about, "kind").get("KIND_EXEC", -1)
    execs = calls[(calls["shape"] & 7 == number) & (calls["result"] > 0)]
    pids, first = np.unique(execs["pid"], return_index=True)
    kept = np.ones(len(calls), np.bool_)
    for pid, began in zip(pids.tolist(), execs[first], strict=True):
        if began["result"] >= calls["time"].min():
            kept &= (calls["pid"] != pid) | (calls["time"] >= began["time"])
    return calls[kept]
