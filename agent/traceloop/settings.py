"""What may be set of the flight recorder."""

from __future__ import annotations

from dataclasses import dataclass

from agent.settings import setting
from agent.traceloop.recorder import KEPT_SECONDS, TOTAL_BYTES
from gadget.selector import parse_recorded


@dataclass(frozen=True)
class Settings:
    """Of the flight recorder."""

    record: frozenset[str] | None = setting(
        frozenset(),
        "Whose last system calls to keep. The annotation kubectl-gadget/traceloop: off leaves a pod out.",
        option="--traceloop",
        read=parse_recorded,
        metavar="all|off|NAMESPACE,…",
        shown="all",
    )
    memory: int = setting(
        TOTAL_BYTES >> 20,
        "Memory for all recordings, at most; each takes about 0.5 MiB.",
        unit="MiB",
        least=1,
        metavar="MIB",
    )
    bad_end_seconds: float = setting(
        KEPT_SECONDS,
        "How long the recording of a bad end stays, even if room is needed: a person may be about to look.",
        unit="s",
        least=0,
        option="",
    )
    follow_seconds: float = setting(0.1, "How often a ring is read for its followers.", unit="s", least=0, option="")
    follow_polls: int = setting(
        5,
        "For how many such reads a call that is still being written is waited for.",
        unit="times",
        least=1,
        option="",
    )
