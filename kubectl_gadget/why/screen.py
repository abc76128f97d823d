"""What `why` shows: the sentence, what it rests on, and what to look at next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from gadget import syscalls
from gadget.kinds.times import ago, clock, rfc3339, short_duration
from gadget.text import escape
from kubectl_gadget import strace
from kubectl_gadget.strace import Call
from kubectl_gadget.text import fit, wrap
from kubectl_gadget.traceloop.calls import DeliveredSignal, Entry, ThreadEnd
from kubectl_gadget.traceloop.show import end_text
from kubectl_gadget.traceloop.show import to_json as entry_to_json
from kubectl_gadget.traceloop.signals import text as signal_text
from kubectl_gadget.why.facts import Earlier, Facts, Kubernetes
from kubectl_gadget.why.findings import Finding

#: Cells before what a line says.
_INDENT = 11
#: How many calls are shown as a finding's evidence, and how many bytes of a text in them.
_EVIDENCE, _TEXT = 5, 48
#: What strace writes behind an error's name; the sentence has it.
_MEANING = re.compile(r" \([A-Z][^()]*\)$")


def lines(facts: Facts, findings: Sequence[Finding], columns: int, calls: str = "") -> Iterator[tuple[str, str]]:
    """Lines of at most so many cells, each with what it is: head, certain, likely, also, before, more.

    calls: the command that shows all calls.
    """
    yield from (("head", line) for line in wrap(escape(head(facts)), columns, rest="  "))
    first, *others = findings
    title = "certain" if first.certain else "likely" if first.cause != "nothing" else _untold(facts)
    yield from _titled(title, title, [first.sentence, *first.details], columns)
    yield from _titled("also", "also", [each.sentence for each in others], columns)
    yield from (("before", line) for line in _calls(first.evidence[:_EVIDENCE], columns))
    for line in _closing(facts, calls):
        yield from (("more", part) for part in wrap(escape(line), columns, "  ", "    "))


def head(facts: Facts) -> str:
    """Which container, and what became of it."""
    parts = [facts.name]
    if facts.container and facts.pod:
        kind = "init container" if facts.kubernetes and facts.kubernetes.init else "container"
        parts.append(f"{kind} {facts.container}")
    if facts.kubernetes and facts.kubernetes.restarts:
        parts.append(f"restart {facts.kubernetes.restarts}")
    where = f" on {facts.node}" if facts.node else ""
    if facts.kubernetes and not facts.recorded and not facts.running and (state := _waits(facts.kubernetes)):
        return f"{', '.join([*parts, state])}{where}"
    if facts.running:
        since = f" for {short_duration(facts.now_ns - facts.started_ns)}" if facts.started_ns else ""
        return f"{', '.join(parts)}, runs{since}{where}"
    if not facts.ended_ns and not facts.known:
        return f"{', '.join(parts)}{where}"
    when = f" {ago(facts.ended_ns, facts.now_ns)}" if facts.ended_ns else ""
    after = ""
    if facts.started_ns and facts.ended_ns > facts.started_ns:
        after = f" after {short_duration(facts.ended_ns - facts.started_ns)}"
    return f"{', '.join(parts)}, ended{when}{where}: {how(facts)}{after}"


def _untold(facts: Facts) -> str:
    """The title if there is no reason: that no fault is seen, if it runs; that the reason of its end is not known."""
    return "no fault" if facts.running else "unclear"


def _waits(said: Kubernetes) -> str:
    """What a container that does not run waits for; empty if it ended and that is all."""
    if said.waiting:
        ended = "" if said.exit_code is None else f", exited with {said.exit_code} before"
        return f"waits ({said.waiting}){ended}"
    if said.phase == "Failed" and said.pod_reason and said.exit_code is None:
        return f"failed ({said.pod_reason})"
    return said.phase.lower() if said.phase == "Pending" else ""


def how(facts: Facts) -> str:
    """How it ended."""
    if facts.signal:
        name = "out of memory" if facts.oom and facts.signal == 9 else syscalls.signal_name(facts.signal)
        return f"killed by {name}" if name.startswith("SIG") else f"killed, {name}"
    return f"exited with {facts.code}" if facts.known else "nobody saw how"


def _titled(kind: str, title: str, texts: Sequence[str], columns: int) -> Iterator[tuple[str, str]]:
    """Texts below each other behind a title."""
    for number, text in enumerate(texts):
        first = f"  {title:{_INDENT - 2}}" if not number else " " * _INDENT
        wrapped = wrap(escape(text), columns, first, " " * (_INDENT + 2))
        yield from ((kind, line) for line in wrapped)


def _calls(entries: Sequence[Entry], columns: int) -> Iterator[str]:
    for number, entry in enumerate(entries):
        title = f"  {'before':{_INDENT - 2}}" if not number else " " * _INDENT
        yield fit(f"{title}{escape(_entry(entry))}", columns, middle=True)


def _entry(entry: Entry) -> str:
    if isinstance(entry, Call):
        when = clock(entry.time_ns)[:-3] if entry.time_ns else "now"
        call = strace.text(entry, _TEXT).removesuffix(" = ?").replace("(AT_FDCWD, ", "(")
        return f"{when} {_MEANING.sub('', call) if entry.failed else call}"
    if isinstance(entry, ThreadEnd):
        return f"{clock(entry.time_ns)[:-3]} {end_text(entry)}"
    if isinstance(entry, DeliveredSignal):
        return f"{clock(entry.time_ns)[:-3]} {signal_text(entry)}"
    return f"… {entry.missing:,} calls are missing here …"


def _closing(facts: Facts, calls: str) -> Iterator[str]:
    """How it ended before, what could not be asked, and the command that shows all."""
    if facts.earlier and not facts.running:
        yield _before(facts, facts.earlier)
    yield from facts.missing
    if facts.unrecorded:
        yield f"there is no recording: {facts.unrecorded}"
        return
    if calls:
        yield f"all calls: {calls}"


def _before(facts: Facts, earlier: Sequence[Earlier]) -> str:
    alike = sum(each.status == facts.status for each in earlier)
    count = f"{len(earlier)} ends" if len(earlier) > 1 else "end"
    if alike == len(earlier):
        return f"The {count} before this one {'were' if len(earlier) > 1 else 'was'} the same."
    return f"Of the {count} before this one {alike} {'was' if alike == 1 else 'were'} the same."


def _evidence(entry: Entry) -> dict[str, Any]:
    """An entry as an object; what has not returned has no time."""
    found = entry_to_json(entry)
    return {**found, "time": None} if isinstance(entry, Call) and not entry.time_ns else found


def to_json(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as an object."""
    return {
        "namespace": facts.namespace or None,
        "pod": facts.pod or None,
        "container": facts.container or None,
        "containerId": facts.id or None,
        "node": facts.node or None,
        "running": facts.running,
        "started": rfc3339(facts.started_ns) if facts.started_ns else None,
        "ended": rfc3339(facts.ended_ns) if facts.ended_ns else None,
        "exit_status": None if facts.running or not facts.known else 128 + facts.signal if facts.signal else facts.code,
        "oom": facts.oom,
        "findings": [
            {
                "cause": each.cause,
                "certain": each.certain,
                "benign": each.benign,
                "weight": round(each.weight, 1),
                "sentence": each.sentence,
                "details": list(each.details),
                "evidence": [_evidence(entry) for entry in each.evidence],
            }
            for each in findings
        ],
        "earlier": [{"status": each.status, "seconds": each.seconds} for each in facts.earlier],
        "unrecorded": facts.unrecorded or None,
        "missing": list(facts.missing),
    }
