"""A line for each stack, as flamegraph.pl and others read it: calls from the outermost on, how often or how many µs."""

from __future__ import annotations

from collections import Counter

from kubectl_gadget.profile.stacks import ProfileForm, Samples


def make(samples: Samples) -> bytes:
    """The lines, in order. A semicolon in a name would begin another call, so it becomes a colon."""
    lines: Counter[str] = Counter()
    for (who, calls), count in samples.counts.items():
        names = [*samples.outer(who), *(call.text for call in calls)]
        lines[";".join(name.replace(";", ":") for name in names)] += count
    if samples.waits:  # as long as others tell it: microseconds
        lines = Counter({line: -(-count // 1000) for line, count in lines.items()})
    return "".join(f"{line} {count}\n" for line, count in sorted(lines.items())).encode("utf-8", "backslashreplace")


FORM = ProfileForm("folded", "a line for each stack, for flamegraph.pl and the like", make, is_file=False)
