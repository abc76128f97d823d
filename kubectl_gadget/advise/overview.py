"""What is told of advice before it: a line for each policy, and how long there was something to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gadget.kinds.times import short_duration
from gadget.text import counted, escape
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Advice, Policy
from kubectl_gadget.text import fit, pad, widest

_HEADS = ("WORKLOAD", "INGRESS", "EGRESS", "NOT COVERED", "WATCHED")
#: How the warnings begin that tell of something that no rule is about.
NOT_COVERED = ("not covered: ", "WILL BE DENIED: ")


def overview(advice: Advice, columns: int = 0) -> list[str]:
    """The lines; they fit a terminal of columns, if that is not 0."""
    missing = Counter(each.key for each in advice.warnings if each.text.startswith(NOT_COVERED))
    rows = [_row(policy, missing[policy.key], advice.spans.get(policy.key)) for policy in advice.policies]
    table = [_HEADS, *rows] if rows else []
    return [*_align(table, columns), advice.summary]


def _row(policy: Policy, missing: int, span_ns: int | None) -> Sequence[str]:
    watched = "-" if span_ns is None else short_duration(span_ns)
    rules = (_rules(policy, direction) for direction in (INGRESS, EGRESS))
    return (escape(policy.workload), *rules, str(missing or "-"), watched)


def _rules(policy: Policy, direction: str) -> str:
    if direction not in policy.types:
        return "open"
    rules = policy.rules.get(direction, ())
    return counted(len(rules), "rule", ",") if rules else "closed"


def _align(rows: Sequence[Sequence[str]], total: int) -> list[str]:
    needs = [widest(column) for column in zip(*rows, strict=True)]
    if total and needs:
        needs[0] = max(min(needs[0], total - sum(needs[1:]) - 2 * (len(needs) - 1)), len(_HEADS[0]))
    return ["  ".join(pad(fit(cell, need, middle=True), need) for cell, need in zip(row, needs, strict=True)).rstrip()
            for row in rows]  # fmt: skip
