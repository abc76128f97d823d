"""From facts to findings, the cause first. Every part gives all that it sees; weights decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from kubectl_gadget.why import dns, ended, failed, hangs, kubernetes, said
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding

PARTS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    ended.find,
    failed.find,
    said.find,
    dns.find,
    hangs.find,
    kubernetes.find,
)
#: Findings below it are no news where there are others.
BACKGROUND = 30.0
MOST = 4


def judge(facts: Facts) -> list[Finding]:
    """The findings for a container, the likeliest cause first; at least one."""
    found = [finding for part in PARTS for finding in part(facts)]
    ordered = sorted(found, key=lambda each: -each.weight)
    first, *others = _distinct(ordered) or [Finding("nothing", "nothing stands out", 0)]
    if first.certain and any(each.certain and each.cause != first.cause and first.weight - each.weight < 2
                             for each in others):  # fmt: skip
        first = replace(first, certain=False)
    return [first, *(each for each in others if each.weight >= BACKGROUND and each.cause != "nothing")][:MOST]


def _distinct(ordered: Iterable[Finding]) -> list[Finding]:
    """Without those that say what one before says."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in ordered:
        found.setdefault((finding.cause, finding.sentence), finding)
    return list(found.values())
