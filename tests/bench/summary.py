"""The table that docs/benchmarks.md begins with: at most ten figures, in words that need no explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a figure stands: table, row and column."""

    table: str
    row: str
    column: str = ""


class Key(NamedTuple):
    """A figure in plain words, and the one to put beside it, if there is one, with its own words."""

    words: str
    place: Place
    beside: Place | None = None
    other: str = ""


OPENS, EXECS, CONNECTS = (f"kubectl gadget {name}, as JSON" for name in ("opensnoop", "execsnoop", "tcpconnect"))
KEYS = (
    Key(
        "A system call of a container that `traceloop` records takes longer by",
        Place("traceloop", "traceloop, in a recorded container", "a system call"),
        Place("traceloop", "strace -f", "a system call"),
        "strace -f",
    ),
    Key(
        "A system call anywhere else on the machine takes longer by",
        Place("traceloop", "traceloop, elsewhere on the machine", "a system call"),
        Place("traceloop", "a program that does nothing", "a system call"),
        "a BPF program that does nothing",
    ),
    Key(
        "`opensnoop` shows every open, up to a rate of",
        Place("opensnoop", OPENS, "all shown up to"),
        Place("opensnoop", "opensnoop (libbpf-tools)", "all shown up to"),
        "libbpf-tools",
    ),
    Key(
        "CPU to show one open, at 16,000 a second",
        Place("opensnoop", OPENS, "CPU per event at 16k/s"),
        Place("opensnoop", "opensnoop (libbpf-tools)", "CPU per event at 16k/s"),
        "libbpf-tools",
    ),
    Key(
        "CPU to show one program that starts, at 1,000 a second",
        Place("execsnoop", EXECS, "CPU per event at 1k/s"),
        Place("execsnoop", "execsnoop (libbpf-tools)", "CPU per event at 1k/s"),
        "libbpf-tools",
    ),
    Key(
        "CPU to show one TCP connection, at 8,000 a second",
        Place("tcpconnect", CONNECTS, "CPU per event at 8k/s"),
        Place("tcpconnect", "bpftrace on inet_sock_set_state", "CPU per event at 8k/s"),
        "bpftrace",
    ),
    Key(
        "From Enter to the first event, where an agent runs",
        Place("opensnoop", OPENS, "first event"),
        Place("opensnoop", "opensnoop (libbpf-tools)", "first event"),
        "libbpf-tools",
    ),
    Key("CPU of an agent that only records, 250 containers", Place("agent", "CPU, 250 containers")),
    Key("Memory of the same agent", Place("agent", "memory, 250 containers")),
    Key("Its maps in the kernel, mostly recordings", Place("agent", "its maps in the kernel, 250 containers")),
)


def summary(figures: Iterable[dict[str, Any]], number: Callable[[float], str]) -> Sequence[str]:
    """The lines of the table; no line for a figure that was not measured, and none at all if all are missing."""
    found = {Place(item["table"], item["row"], item["column"]): item for item in figures if item["runs"]}

    def shown(place: Place) -> str:
        item = found[place]
        unit = item["unit"]
        return f"{number(item['median'])}{'' if unit.startswith('/') else ' '}{unit}"

    lines = []
    for key in KEYS:
        if key.place in found:
            beside = f"{key.other}: {shown(key.beside)}" if key.beside and key.beside in found else ""
            lines.append(f"| {key.words} | {shown(key.place)} | {beside} |")
    return ["## In short", "", "| | kubectl gadget | beside it |", "|---|---|---|", *lines, ""] if lines else []
