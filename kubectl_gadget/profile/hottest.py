"""The functions that took the most time, as a table by container."""

from __future__ import annotations

from collections import Counter

from gadget.schema import IDENTITY, IDENTITY_DOCS, Column, Row
from kubectl_gadget.profile.stacks import Function, Samples, StackOwner

FIELDS = (
    *(Column(name, "identity", IDENTITY_DOCS[name]) for name in IDENTITY),
    Column("self", "share", "the part of all samples in which the function itself ran"),
    Column("total", "share", "the part of all samples in which it, or what it called, ran"),
    Column("samples", "int", "how often the function itself was seen"),
    Column("file", "word", "the program or library that it is in, or [kernel]"),
    Column("function", "text", "the function; where none is known the file and the address in it"),
)
#: Left out unless -o wide.
WIDE = ("samples",)


def rows(samples: Samples, top: int) -> list[Row]:
    """The first top rows of all fields, those with most time of their own first; 0 for all."""
    own: Counter[tuple[StackOwner, Function]] = Counter()
    within: Counter[tuple[StackOwner, Function]] = Counter()
    for (who, calls), count in samples.counts.items():
        where = who._replace(comm="", pid=0)
        own[where, calls[-1]] += count
        for call in set(calls):  # one that calls itself has its time once
            within[where, call] += count
    all_of_them = samples.total or 1
    found = sorted(within, key=lambda key: (-own[key], -within[key], key))
    return [
        (
            *where[:5],
            100 * own[where, function] / all_of_them,
            100 * within[where, function] / all_of_them,
            own[where, function],
            function.module,
            function.name or function.text,
        )
        for where, function in found[: top or None]
    ]
