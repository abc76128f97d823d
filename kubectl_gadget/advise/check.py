"""`advise network-policy check`: what policies would have done to the traffic that was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from operator import attrgetter
from textwrap import indent

from gadget.kinds.times import moment, rfc3339, short_duration
from gadget.text import counted, escape
from kubectl_gadget.advise.compile import PROTOCOLS
from kubectl_gadget.advise.evaluate import Evaluator, PolicyEnd
from kubectl_gadget.advise.matching import CompiledRule
from kubectl_gadget.output.encode import encode
from kubectl_gadget.text import fit, pad, width


@dataclass(frozen=True, slots=True)
class CheckedFlow:
    """Connections that were seen from source to a port of target: how many, and when the last one was (ns since 1970).

    The two are named by workload, so that the replicas of a workload are one, or by address. A flow that the user did
    not ask for is not reported; only the rules that it uses count. either is a number: of the flows that have the same
    one, only one took place, and it is not known which.
    """

    source: PolicyEnd
    target: PolicyEnd
    protocol: str
    port: int
    count: int
    last_ns: int
    source_name: str
    target_name: str
    asked: bool = True
    either: int = 0


@dataclass(frozen=True, slots=True)
class JudgedFlow:
    """Connections with the same verdict for the same reason. maybe: it is not known whether they were these.

    policies: the namespace and name of those that allow them, or that deny them.
    """

    source: str
    target: str
    protocol: str
    port: int
    reason: str
    count: int
    last_ns: int
    maybe: bool = False
    policies: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Result:
    """The verdicts on all flows: the denied ones, and the allowed ones.

    The numbers count connections. unjudged counts those of protocols that policies cannot name.
    """

    denied: list[JudgedFlow]
    unused: list[CompiledRule]
    allowed: int
    unjudged: Counter[str]
    denied_number: int = 0
    passed: list[JudgedFlow] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if anything was denied. An unused rule is no failure: it may be there for what comes once a month."""
        return 1 if self.denied else 0


#: How many cells a narrow terminal has for who talks to whom.
LEAST_FLOW = 36
#: Source, target, protocol, port, reason, whether it may have been another, and the policies that decide.
_Key = tuple[str, str, str, int, str, bool, tuple[tuple[str, str], ...]]


def check(
    evaluator: Evaluator, flows: Iterable[CheckedFlow], about: Collection[tuple[str, str]] | None = None
) -> Result:
    """The verdicts on flows; the flow with the most denied connections comes first.

    about: namespace and name of the policies whose unused rules are reported; None means all.
    """
    made: dict[bool, dict[_Key, tuple[int, int]]] = {True: {}, False: {}}
    either: dict[int, tuple[int, bool]] = {}
    told: set[tuple[int, _Key | str]] = set()  # of flows of which one took place, those that are in a line already
    used: set[CompiledRule] = set()
    unjudged: Counter[str] = Counter()
    numbers = Counter[bool]()
    policies: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}
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
        names = tuple(sorted({name for end in verdict.deciders for name in end}))
        names = policies.setdefault(names, names)  # the same ones decide about very many
        key = (flow.source_name, flow.target_name, flow.protocol, flow.port, verdict.reason, flow.either > 0, names)
        count, last = made[verdict.allowed].get(key, (0, 0))
        made[verdict.allowed][key] = (count + _again(told, flow, key), max(last, flow.last_ns))
    for count, allowed in either.values():
        numbers[allowed] += count
    unused = [rule for rule in evaluator.unused(used) if about is None or (rule.namespace, rule.policy) in about]
    denied, passed = (_in_order(made[allowed]) for allowed in (False, True))
    return Result(denied, unused, numbers[True], +unjudged, numbers[False], passed)


def _again(told: set[tuple[int, _Key | str]], flow: CheckedFlow, key: _Key | str) -> int:
    """The connections of a flow that its line does not count yet."""
    if flow.either:
        if (flow.either, key) in told:
            return 0
        told.add((flow.either, key))
    return flow.count


def _in_order(found: dict[_Key, tuple[int, int]]) -> list[JudgedFlow]:
    """The most connections first. There may be very many: what is found goes as it is made, and no keys are."""
    judged = []
    while found:
        key, (count, last) = found.popitem()
        judged.append(JudgedFlow(*key[:5], count, last, *key[5:]))
    for by in ("policies", "maybe", "reason", "port", "protocol", "target", "source"):
        judged.sort(key=attrgetter(by))
    judged.sort(key=attrgetter("count"), reverse=True)
    return judged


def show(
    result: Result,
    span_ns: int,
    spans: Mapping[tuple[str, str], int] | None = None,
    *,
    everything: bool = False,
    columns: int = 0,
) -> Iterator[str]:
    """The lines of a result, also of what is allowed if everything is wanted; the last one sums it up.

    They fit a terminal of columns, if that is not 0. It is from traffic of span_ns; by spans there was less to see of
    the pods of some policies, by namespace and name.
    """
    spans = spans or {}
    passed = result.passed if everything else []
    verdicts = [("DENIED", result.denied), ("allowed", passed)]
    yield from _align(lambda: (_line(verdict, item) for verdict, items in verdicts for item in items), columns)
    yield from _align(
        lambda: (
            [
                f"unused  {rule.namespace}/{rule}",
                f"no flow in {short_duration(spans.get((rule.namespace, rule.policy), span_ns))}"
                if rule.effective
                else f"no effect: policyTypes has no {rule.direction.title()}",
            ]
            for rule in result.unused
        ),
        columns,
    )
    denied = result.denied_number
    total = f"{result.allowed:,} of {counted(result.allowed + denied, 'connection', ',')} allowed"
    parts = [total, f"{denied:,} denied", f"{counted(len(result.unused), 'rule', ',')} unused"]
    parts += [f"{count:,} {escape(name)} not judged" for name, count in sorted(result.unjudged.items())]
    yield ", ".join(parts) + "."


def _line(verdict: str, item: JudgedFlow) -> list[str]:
    at_most = "up to " if item.maybe else ""  # of a Service's backends, it was one
    return [
        f"{verdict:<7} {escape(item.source)} → {escape(item.target)} {item.port}/{item.protocol}",
        f"{at_most}{counted(item.count, 'connection', ',')}, last {moment(item.last_ns)}",
        item.reason,
    ]


def to_json(result: Result, span_ns: int, spans: Mapping[tuple[str, str], int] | None = None) -> Iterator[str]:
    """A result for programs, in pieces: every flow and what becomes of it, rules that none used, and the numbers."""
    spans = spans or {}
    judged = chain(zip(repeat("denied"), result.denied), zip(repeat("allowed"), result.passed))
    yield '{\n  "flows": ['
    before = "\n"
    for verdict, item in judged:
        flow = {
            "verdict": verdict,
            "source": item.source,
            "target": item.target,
            "protocol": item.protocol,
            "port": item.port,
            "connections": item.count,
            "maybe": item.maybe,
            "last": rfc3339(item.last_ns),
            "reason": item.reason,
            "policies": ["/".join(name) for name in item.policies],
        }
        yield before + indent(encode(flow, indent=True).decode(), " " * 4)
        before = ",\n"
    end = "" if before == "\n" else "\n  "
    rest = {
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
    yield f"{end}]," + encode(rest, indent=True).decode().removeprefix("{") + "\n"


def _align(rows: Callable[[], Iterable[list[str]]], total: int) -> Iterator[str]:
    """Rows with their columns one below the other; cut to total cells, if it is not 0, but for ports and numbers.

    There may be very many: they are made twice, and never all there.
    """
    needs: list[int] = []
    for row in rows():
        needs = [max(need, width(cell)) for need, cell in zip(needs or [0] * len(row), row, strict=True)]
    if not total or sum(needs) + 3 * (len(needs) - 1) <= total:
        yield from ("   ".join(map(pad, row, needs)).rstrip() for row in rows())
        return
    if len(needs) == 2:
        yield from (fit("   ".join(row), total, middle=True) for row in rows())
        return
    for flow, seen, reason in rows():
        number, _, _ = seen.partition(", last")
        seen = seen if len(seen) + LEAST_FLOW + 3 <= total else number
        flow = _cut(flow, total - len(seen) - 3)
        yield f"{flow}   {seen}"
        yield fit(f"        {reason}", total)


def _cut(flow: str, cells: int) -> str:
    """Who talks to whom, cut in the middle of what stands before the port."""
    names, space, port = flow.rpartition(" ")
    return flow if width(flow) <= cells else fit(names, cells - width(port) - 1, middle=True) + space + port
