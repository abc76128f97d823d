"""A flame graph as one HTML file, to open in a browser: calls below their callers, as wide as they took time."""

from __future__ import annotations

from collections import Counter

from gadget.kinds.times import short_duration
from gadget.text import counted, escape
from kubectl_gadget.profile.page import page
from kubectl_gadget.profile.stacks import Function, ProfileForm, Samples

#: What a name is of, for its colour: a program, the kernel, code made at run time; the rest is grey.
_PROGRAM, _KERNEL, _MADE, _OTHER = range(4)
_JIT = "[jit]"
_Named = tuple[str, str, int]


def make(samples: Samples) -> bytes:
    """The file."""
    named = {call: _named(call) for _, calls in samples.counts for call in calls}
    stacks: Counter[tuple[_Named, ...]] = Counter()
    for (who, calls), count in samples.counts.items():
        outer = [(name, "", _OTHER) for name in ("all", *samples.outer(who))]
        stacks[(*outer, *map(named.__getitem__, calls))] += count
    names = sorted({name for stack in stacks for name in stack})
    numbers = {name: at for at, name in enumerate(names)}
    depths, name, counts = _tree({tuple(map(numbers.__getitem__, stack)): count for stack, count in stacks.items()})
    data = {
        "names": [each[0] for each in names],
        "files": [each[1] for each in names],
        "kinds": [each[2] for each in names],
        "depths": depths,
        "name": name,
        "counts": counts,
        "hz": samples.a_second,
        "unit": "waiting" if samples.waits else "CPU time",
    }
    places = {who.place: None for who, _ in samples.counts}
    subject = "Waits" if samples.waits else "CPU time"
    title = f"{subject} of {next(iter(places))}" if len(places) == 1 else subject
    where = f"of {counted(len(places), 'place')} in {samples.seconds:.0f} s"
    if samples.waits:
        return page(title, f"{short_duration(samples.total)} of threads that waited, {where}", data)
    summary = f"{counted(samples.total, 'sample', ',')} {where}"
    return page(title, f"{summary}, {samples.hz} a second on each CPU", data)


def _named(call: Function) -> _Named:
    kind = _OTHER if not call.name else _KERNEL if call.kernel else _MADE if call.module == _JIT else _PROGRAM
    return call.text, escape(call.module), kind


def _tree(stacks: dict[tuple[int, ...], int]) -> tuple[list[int], list[int], list[int]]:
    """Depth, name and count of each call of the tree that stacks make, a caller before what it calls."""
    depths: list[int] = []
    names: list[int] = []
    counts: list[int] = []
    before: tuple[int, ...] = ()
    opened: list[int] = []  # where the calls of the stack before are
    for stack in sorted(stacks):
        common = 0
        while common < len(before) and common < len(stack) and before[common] == stack[common]:
            common += 1
        del opened[common:]
        for depth in range(common, len(stack)):
            opened.append(len(depths))
            depths.append(depth)
            names.append(stack[depth])
            counts.append(0)
        for at in opened:
            counts[at] += stacks[stack]
        before = stack
    return depths, names, counts


FORM = ProfileForm("flamegraph", "a page for a browser, with search and zoom", make)
