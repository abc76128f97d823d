"""`advise network-policy check`: what policies would have done to the traffic that was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kubectl_gadget.advise.compile import PROTOCOLS
from kubectl_gadget.advise.evaluate import End, Evaluator
from kubectl_gadget.advise.matching import Rule
from kubectl_gadget.text import escape, pad, width
from kubectl_gadget.values import moment, short_duration


@dataclass(frozen=True)
class Flow:
    """Connections that were seen between two ends, to a port of target: how many, and when the last (ns since 1970).

    The names are those of workloads, or addresses: the replicas of one workload are reported as one. Of flows that are
    not asked for only the rules that they use matter.
    """

    source: End
    target: End
    protocol: str
    port: int
    count: int
    last_ns: int
    source_name: str
    target_name: str
    asked: bool = True


@dataclass(frozen=True)
class Denied:
    """Connections that would have been denied for one reason."""

    source: str
    target: str
    protocol: str
    port: int
    reason: str
    count: int
    last_ns: int


@dataclass(frozen=True)
class Result:
    """What became of all flows. allowed counts connections, unjudged those of protocols that policies know not."""

    denied: list[Denied]
    unused: list[Rule]
    allowed: int
    unjudged: Counter[str]

    @property
    def exit_code(self) -> int:
        """1 if anything was denied. An unused rule is no failure: it may be there for what comes once a month."""
        return 1 if self.denied else 0


def check(evaluator: Evaluator, flows: Iterable[Flow], about: Collection[tuple[str, str]] | None = None) -> Result:
    """What becomes of flows; what is denied most comes first.

    about: namespace and name of the policies whose unused rules are told, None for all.
    """
    counts: Counter[tuple[str, str, str, int, str]] = Counter()
    last: dict[tuple[str, str, str, int, str], int] = {}
    used: set[Rule] = set()
    unjudged: Counter[str] = Counter()
    allowed = 0
    for flow in flows:
        if flow.protocol not in PROTOCOLS:
            unjudged[flow.protocol] += flow.count if flow.asked else 0
            continue
        verdict = evaluator.decide(flow.source, flow.target, flow.protocol, flow.port)
        used.update(verdict.rules)
        if not flow.asked:
            continue
        if verdict.allowed:
            allowed += flow.count
            continue
        key = (flow.source_name, flow.target_name, flow.protocol, flow.port, verdict.reason)
        counts[key] += flow.count
        last[key] = max(last.get(key, 0), flow.last_ns)
    denied = [Denied(*key, count, last[key]) for key, count in counts.items()]
    denied.sort(key=lambda item: (-item.count, item.source, item.target, item.protocol, item.port, item.reason))
    unused = [rule for rule in evaluator.unused(used) if about is None or (rule.namespace, rule.policy) in about]
    return Result(denied, unused, allowed, +unjudged)


def show(result: Result, span_ns: int, spans: Mapping[tuple[str, str], int] | None = None) -> list[str]:
    """The lines of a result; the last one sums it up.

    It is from traffic of span_ns; by spans there was less to see of the pods of some policies, by namespace and name.
    """
    spans = spans or {}
    lines = _align(
        [
            [
                f"DENIED  {escape(item.source)} → {escape(item.target)} {item.port}/{item.protocol}",
                f"{_count(item.count, 'connection')}, last {moment(item.last_ns)}",
                item.reason,
            ]
            for item in result.denied
        ]
    )
    lines += _align(
        [
            [
                f"unused  {rule.namespace}/{rule}",
                f"no flow in {short_duration(spans.get((rule.namespace, rule.policy), span_ns))}"
                if rule.effective
                else f"no effect: policyTypes has no {rule.direction.title()}",
            ]
            for rule in result.unused
        ]
    )
    denied = sum(item.count for item in result.denied)
    total = f"{result.allowed:,} of {_count(result.allowed + denied, 'connection')} allowed"
    parts = [total, f"{denied:,} denied", f"{_count(len(result.unused), 'rule')} unused"]
    parts += [f"{count:,} {escape(name)} not judged" for name, count in sorted(result.unjudged.items())]
    return [*lines, ", ".join(parts) + "."]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _align(rows: list[list[str]]) -> list[str]:
    """Rows with their columns one below the other."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return ["   ".join(map(pad, row, widths)).rstrip() for row in rows]
