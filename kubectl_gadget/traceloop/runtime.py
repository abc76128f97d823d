"""What a container's runtime did in the container, before the container's own program: told from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubectl_gadget.traceloop.calls import Entry, MissingCalls

#: A runtime may start a process and then move it into the container, nanoseconds.
_JOINS = 2_000_000_000


def without_runtime(
    entries: Sequence[Entry], started: Mapping[int, tuple[int, int]], complete: bool
) -> tuple[list[Entry], int]:
    """The entries without those of the runtime, and how many those are.

    A process that something outside the container started is the runtime's until it begins a program: started has when
    it did that, and when it began itself. That it is its first is known if the recording goes back to its beginning.
    Of a complete recording all that came before the first of these programs is the runtime's; one is complete also if
    it began in the middle, with the agent, so that alone says nothing of a process that is older.
    """
    times = [entry.time_ns for entry in entries if not isinstance(entry, MissingCalls)]
    oldest = min(times, default=0)
    oldest -= _JOINS if complete else 0
    own = {pid: begun for pid, (begun, since) in started.items() if since >= oldest}
    first = min(own.values(), default=0) if complete else 0
    kept = []
    for entry in entries:
        if not isinstance(entry, MissingCalls) and entry.time_ns < max(first, own.get(entry.pid, 0)):
            continue
        kept.append(entry)
    return kept, len(entries) - len(kept)
