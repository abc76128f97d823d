"""`advise network-policy check`: what policies would have done to the traffic that was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gadget.kinds.times import moment, rfc3339, short_duration
from gadget.text import counted, escape
from kubectl_gadget.advise.compile import PROTOCOLS
from kubectl_gadget.advise.evaluate import End, Evaluator
from kubectl_gadget.advise.matching import Rule
from kubectl_gadget.text import fit, pad, width


@dataclass(frozen=True)
class Flow:
    """Connections that were seen from source to a port of target: how many, and when the last one was (ns since 1970).

    The two are named by workload, so that the replicas of a workload are one, or by address. A flow that the user did
    not ask for is not reported; only the rules that it uses count. either is a number: of the flows that have the same
    one, only one took place, and it is not known which.
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
    either: int = 0


@dataclass(frozen=True)
class Judged:
    """Connections with the same verdict for the same reason. maybe: it is not known whether they were these."""

    source: str
    target: str
    protocol: str
    port: int
    reason: str
    count: int
    last_ns: int
    maybe: bool = False


@dataclass(frozen=True)
class Result:
    """The verdicts on all flows: the denied ones, and the allowed ones.

    The numbers count connections. unjudged counts those of protocols that policies cannot name.
    """

    denied: list[Judged]
    unused: list[Rule]
    allowed: int
    unjudged: Counter[str]
    denied_number: int = 0
    passed: list[Judged] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything was denied. An unused rule is no failure: it may be there for what comes once a month."""
        return 1 if self.denied else 0


#: How many cells a narrow terminal has for who talks to whom.
LEAST_FLOW = 36
#: Source, target, protocol, port, reason, and whether it may have been another.
_Key = tuple[str, str, str, int, str, bool]


def check(evaluator: Evaluator, flows: Iterable[Flow], about: Collection[tuple[str, str]] | None = None) -> Result:
    """The verdicts on flows; the flow with the most denied connections comes first.

    about: namespace and name of the policies whose unused rules are reported; None means all.
    """
    made: dict[bool, dict[_Key, Judged]] = {True: {}, False: {}}
    either: dict[int, tuple[int, bool]] = {}
    told: set[tuple[int, _Key | str]] = set()  # of flows of which one took place, those that are in a line already
    used: set[Rule] = set()
    unjudged: Counter[str] = Counter()
    numbers = Counter[bool]()
    for flow in flows:
        if flow.protocol not in PROTOCOLS:
            unjudged[flow.protocol] += _again(told, flow, flow.protocol) if flow.asked else 0
            continue
        verdict = evaluator.decide(flow.source, flow.target, flow.protocol, flow.port)
        used.update(verdict.rules)
        if not flow.asked:
            continue
        if flow.either:  # a flow that may be denied counts as denied
            _, others_too = either.get(flow.either, (0, True))
            either[flow.either] = (flow.count, others_too and verdict.allowed)
        else:
            numbers[verdict.allowed] += flow.count
        key = (flow.source_name, flow.target_name, flow.protocol, flow.port, verdict.reason, flow.either > 0)
        known = made[verdict.allowed].get(key)
        count, last = (known.count, known.last_ns) if known else (0, 0)
        count += _again(told, flow, key)
        made[verdict.allowed][key] = Judged(*key[:5], count, max(last, flow.last_ns), key[5])
    for count, allowed in either.values():
        numbers[allowed] += count
    unused = [rule for rule in evaluator.unused(used) if about is None or (rule.namespace, rule.policy) in about]
    denied, passed = (sorted(made[allowed].values(), key=_order) for allowed in (False, True))
    return Result(denied, unused, numbers[True], +unjudged, numbers[False], passed)


def _again(told: set[tuple[int, _Key | str]], flow: Flow, key: _Key | str) -> int:
    """The connections of a flow that are not counted in its line yet."""
    if flow.either:
        if (flow.either, key) in told:
            return 0
        told.add((flow.either, key))
    return flow.count


def _order(item: Judged) -> tuple[object, ...]:
    return -item.count, item.source, item.target, item.protocol, item.port, item.reason, item.maybe


def show(
    result: Result,
    span_ns: int,
    spans: Mapping[tuple[str, str], int] | None = None,
    *,
    everything: bool = False,
    columns: int = 0,
) -> list[str]:
    """The lines of a result, also of what is allowed if everything is wanted; the last one sums it up.

    They fit a terminal of columns, if that is not 0. It is from traffic of span_ns; by spans there was less to see of
    the pods of some policies, by namespace and name.
    """
    spans = spans or {}
    passed = result.passed if everything else []
    judged = [*(_line("DENIED", item) for item in result.denied), *(_line("allowed", item) for item in passed)]
    lines = _align(judged, columns)
    lines += _align(
        [
            [
                f"unused  {rule.namespace}/{rule}",
                f"no flow in {short_duration(spans.get((rule.namespace, rule.policy), span_ns))}"
                if rule.effective
                else f"no effect: policyTypes has no {rule.direction.title()}",
            ]
            for rule in result.unused
        ],
        columns,
    )
    denied = result.denied_number
    total = f"{result.allowed:,} of {counted(result.allowed + denied, 'connection', ',')} allowed"
    parts = [total, f"{denied:,} denied", f"{counted(len(result.unused), 'rule', ',')} unused"]
    parts += [f"{count:,} {escape(name)} not judged" for name, count in sorted(result.unjudged.items())]
    return [*lines, ", ".join(parts) + "."]


def _line(verdict: str, item: Judged) -> list[str]:
    at_most = "up to " if item.maybe else ""  # of a Service's backends, it was one
    return [
        f"{verdict:<7} {escape(item.source)} → {escape(item.target)} {item.port}/{item.protocol}",
        f"{at_most}{counted(item.count, 'connection', ',')}, last {moment(item.last_ns)}",
        item.reason,
    ]


def to_json(result: Result, span_ns: int, spans: Mapping[tuple[str, str], int] | None = None) -> dict[str, object]:
    """A result for programs: every flow and what becomes of it, the rules that none used, and the numbers."""
    spans = spans or {}
    judged = [("denied", item) for item in result.denied] + [("allowed", item) for item in result.passed]
    return {
        "flows": [
            {
                "verdict": verdict,
                "source": item.source,
                "target": item.target,
                "protocol": item.protocol,
                "port": item.port,
                "connections": item.count,
                "maybe": item.maybe,
                "last": rfc3339(item.last_ns),
                "reason": item.reason,
            }
            for verdict, item in judged
        ],
        "unused": [
            {
                "namespace": rule.namespace,
                "policy": rule.policy,
                "direction": rule.direction,
                "rule": rule.index + 1,
                "allows": rule.text,
                "effective": rule.effective,
                "seconds": spans.get((rule.namespace, rule.policy), span_ns) // 1_000_000_000,
            }
            for rule in result.unused
        ],
        "allowed": result.allowed,
        "denied": result.denied_number,
        "not judged": dict(sorted(result.unjudged.items())),
    }


def _align(rows: list[list[str]], total: int) -> list[str]:
    """Rows with their columns one below the other; cut to total cells, if it is not 0, but for ports and numbers."""
    needs = [max(map(width, column)) for column in zip(*rows, strict=True)]
    if not total or sum(needs) + 3 * (len(needs) - 1) <= total:
        return ["   ".join(map(pad, row, needs)).rstrip() for row in rows]
    if len(needs) == 2:
        return [fit("   ".join(row), total, middle=True) for row in rows]
    lines = []
    for flow, seen, reason in rows:
        number, _, _ = seen.partition(", last")
        seen = seen if len(seen) + LEAST_FLOW + 3 <= total else number
        flow = _cut(flow, total - len(seen) - 3)
        lines += [f"{flow}   {seen}", fit(f"        {reason}", total)]
    return lines


def _cut(flow: str, cells: int) -> str:
    """Who talks to whom, cut in the middle of what stands before the port."""
    names, space, port = flow.rpartition(" ")
    return flow if width(flow) <= cells else fit(names, cells - width(port) - 1, middle=True) + space + port
