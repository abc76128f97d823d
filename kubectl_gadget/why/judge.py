"""From facts to findings, the cause first. Every part gives all that it sees; weights decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kubectl_gadget.why import dns, ended, failed, hangs, kubernetes, said
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import BACKGROUND, Finding

PARTS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    ended.find,
    failed.find,
    said.find,
    dns.find,
    hangs.find,
    kubernetes.find,
)
MOST = 4
#: Two that are certain and this near to each other are both a guess.
RIVAL = 2.0


def judge(facts: Facts) -> list[Finding]:
    """The findings for a container, the likeliest cause first; at least one."""
    found = [finding for part in PARTS for finding in part(facts)]
    first, *others = sorted(found, key=lambda each: -each.weight) or [Finding("nothing", "nothing stands out", 0)]
    kept = [first]
    for each in others:
        if each.weight >= BACKGROUND and each.cause != "nothing" and not any(_same(each, other) for other in kept):
            kept.append(each)
    rivals = [each for each in kept if each.certain and first.weight - each.weight < RIVAL]
    if first.certain and len(rivals) > 1:
        kept = [replace(each, certain=False) if each in rivals else each for each in kept]
    return kept[:MOST]


def _same(finding: Finding, other: Finding) -> bool:
    """Whether a finding tells what another tells: the same words of the program, or the same sentence."""
    if finding.sentence == other.sentence:
        return True
    if finding.certain and other.certain and finding.evidence and other.evidence:
        return False  # one line may tell of two failures
    told, known = finding.told.strip(), other.told.strip()
    if told and known and (told in known or known in told):
        return True
    return finding.cause == other.cause and bool(told) and not finding.evidence
