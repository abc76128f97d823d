"""Where threads waited for longest, as a table by container and thread."""

from __future__ import annotations

from collections import Counter

from gadget.schema import IDENTITY, IDENTITY_DOCS, Column, Row
from kubectl_gadget.profile.stacks import NO_STACK, Function, Samples, StackOwner

FIELDS = (
    *(Column(name, "identity", IDENTITY_DOCS[name]) for name in IDENTITY),
    Column("comm", "word", "the name of the thread"),
    Column("time", "duration", "how long it waited there, all threads of that name together"),
    Column("share", "share", "the part of all waits, by their time"),
    Column("wait", "word", "the kernel's function that it waited in"),
    Column("file", "word", "the program or library of the function"),
    Column("function", "text", "the function that called it, outside libc where one is known; else file and address"),
)
#: Left out unless -o wide.
WIDE = ("share",)
#: What calls of most programs go through, by the beginnings of its files' names.
_LIBC = ("libc.so", "libc-", "libpthread", "ld-linux", "ld-musl")


def rows(samples: Samples, top: int) -> list[Row]:
    """The first top rows of all fields, the longest first; 0 for all."""
    found: Counter[tuple[StackOwner, str, Function]] = Counter()
    for (who, calls), time in samples.counts.items():
        found[who._replace(pid=0), *_place(calls)] += time
    all_of_it = samples.total or 1
    return [
        (*who[:5], who.comm, time, 100 * time / all_of_it, wait, function.module, function.name or function.text)
        for (who, wait, function), time in sorted(found.items(), key=lambda item: (-item[1], item[0]))[: top or None]
    ]


def _place(calls: tuple[Function, ...]) -> tuple[str, Function]:
    """The function of the kernel, and that of the program which is to be told."""
    user = [call for call in reversed(calls) if not call.kernel]
    own = (call for call in user if call.name and not call.file.startswith(_LIBC))
    wait = calls[-1].text if calls[-1].kernel else ""
    return wait, next(own, user[0] if user else NO_STACK)
