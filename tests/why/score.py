"""Judges what cases have left, and says which verdicts are wrong.

python -m tests.why.score FOLDER [--all] [--span] [--lines] [CASE…]

FOLDER is one that tests.why.run --save has filled. --span tells how many records lie behind the call where it went
wrong, --lines shows the last calls of each case.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from gadget._generated import gadget_pb2 as pb
from gadget.schema import Field, record_dtype
from kubectl_gadget import strace
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop import signals
from kubectl_gadget.traceloop.calls import DeliveredSignal, MissingCalls, ReplyReader, ThreadEnd
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.gather import facts_of, read_history
from kubectl_gadget.why.judge import judge
from tests.why.case import Case, Kind
from tests.why.cases import CASES
from tests.why.run import Result, load

#: What a sentence names: a path, or an address.
NAMED = re.compile(r"(^|[\s\"'])/\w|\d:\d")
#: Slots of a ring.
RING = 4096


@dataclass(frozen=True)
class Verdict:
    """What `why` says of a case."""

    case: Case
    findings: Sequence[Finding]
    listed: bool

    @property
    def first(self) -> Finding:
        """What stands on the first line."""
        return self.findings[0]

    @property
    def right(self) -> bool:
        """Whether a person who knows would agree; a benign case that has ended only has to be left out of `why -A`."""
        if self.case.kind is Kind.BENIGN and self.case.exits is not None:
            return not self.listed
        return self.case.judged(self.first.cause, self.first.sentence)

    @property
    def wrong_for_certain(self) -> bool:
        """Whether it states as certain what is not so; a sentence that names nothing is not right, but not so either."""
        if not self.first.certain or self.right or (self.case.kind is Kind.BENIGN and self.case.exits is not None):
            return False
        return self.first.cause not in self.case.causes or bool(NAMED.search(self.first.sentence))

    def __str__(self) -> str:
        mark = "ok     " if self.right else "CERTAIN" if self.wrong_for_certain else "wrong  "
        wanted = "" if self.right else f"   want {'|'.join(self.case.causes)} ~ {self.case.says!r}"
        said = f"{'certain' if self.first.certain else 'likely'} {self.first.cause}: {self.first.sentence}"
        listed = " [listed]" if self.listed and self.case.kind is Kind.BENIGN else ""
        others = "".join(f"; also {each.cause}" for each in self.findings[1:])
        return f"{mark} {self.case.name:28} {said}{listed}{others}{wanted}"


def verdict(case: Case, replies: Sequence[pb.TraceloopReadReply]) -> Verdict:
    """Judge a case by its recording alone."""
    last = replies[-1]
    findings = judge(facts_of(last.node, last.item, read_history(replies)))
    crashed = Instance(None, last.node, last.item).crashed  # type: ignore[arg-type]
    return Verdict(case, findings, crashed and not last.item.running and not findings[0].benign)


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """Judge all."""
    return [verdict(each.case, each.replies) for each in results]


def lines(replies: Sequence[pb.TraceloopReadReply]) -> Iterator[tuple[int, int, str]]:
    """Of each entry of a recording its time by the kernel's clock, its thread, and what `traceloop show` says."""
    reader = ReplyReader()
    for reply in replies:
        for entry in reader.entries(reply):
            if isinstance(entry, MissingCalls):
                continue
            text = (
                strace.text(entry) if isinstance(entry, Call)
                else signals.text(entry) if isinstance(entry, DeliveredSignal)
                else f"+++ {entry.status} +++"
            )  # fmt: skip
            if isinstance(entry, Call | DeliveredSignal | ThreadEnd):
                yield entry.time_ns - reply.clock_offset_ns, entry.tid, f"[{entry.comm} {entry.tid}] {text}"


@dataclass(frozen=True)
class Span:
    """How far from the end of its recording the cause lies: in records, and in slots, which long texts take more of.

    own and used count the slots of what the program did, without its runtime, and of all.
    """

    case: Case
    found: bool
    records: int
    slots: int
    used: int
    calls: int
    kept: int
    failures: int  # of the program itself, without what every program has
    words: int  # calls of it that print


def span(case: Case, replies: Sequence[pb.TraceloopReadReply]) -> Span:
    """Measure a case."""
    last = replies[-1]
    fields = {name: [Field.from_json(each) for each in found] for name, found in orjson.loads(last.layout).items()}
    rows = np.frombuffer(last.calls, record_dtype(fields["call"]))
    more = np.frombuffer(last.more, record_dtype(fields["more"]))
    top = max(int(each["sequence"].max()) >> 2 if len(each) else 0 for each in (rows, more))
    positions = {(int(row["time"]), int(row["tid"])): int(row["sequence"]) >> 2 for row in rows}
    every = list(lines(replies))
    own = [each for each in read_history(replies).entries if isinstance(each, Call)]
    failures = sum(each.failed and not signals.is_noise(each) for each in own)
    words = sum(bool(re.match(r"(pwrite64|writev?)\([12],", strace.text(each))) for each in own)
    # the last that matches: what the program did last about it
    hits = [at for at, (_, _, text) in enumerate(every) if case.call and re.search(case.call, text)]
    at = hits[-1] if hits else len(every) - 1
    time, thread, _ = every[at] if every else (0, 0, "")
    slots = top - positions.get((time, thread), top)
    return Span(case, bool(hits), len(every) - 1 - at, slots, top, last.item.calls, len(rows), failures, words)


def saved(folder: Path, names: Sequence[str]) -> Iterator[tuple[Case, list[pb.TraceloopReadReply]]]:
    """Cases and their replies in a folder."""
    for case in CASES:
        place = folder / f"{case.name}.pb"
        if place.exists() and place.stat().st_size and (not names or any(re.match(name, case.name) for name in names)):
            yield case, load(place)


def main() -> None:
    """Score a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="also the verdicts that are right")
    parser.add_argument("--span", action="store_true")
    parser.add_argument("--lines", type=int, default=0, metavar="N")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    spans, every = [], []
    for case, replies in saved(options.folder, options.names):
        if options.span:
            spans.append(span(case, replies))
            continue
        every.append(verdict(case, replies))
        if options.all or not every[-1].right or every[-1].wrong_for_certain:
            print(every[-1])
        for _, _, text in list(lines(replies))[-options.lines :] if options.lines else ():
            print("     ", text)
    if options.span:
        print_spans(spans)
        return
    for kind in Kind:
        chosen = [each for each in every if each.case.kind is kind]
        right, certain = (sum(getattr(each, name) for each in chosen) for name in ("right", "wrong_for_certain"))
        if chosen:
            print(f"{kind:7} {right} of {len(chosen)} right ({right / len(chosen):.1%}), {certain} wrong and certain")


def print_spans(spans: Sequence[Span]) -> None:
    """A table, and what it comes to."""
    print(
        f"{'case':34} {'call':>5} {'records':>8} {'slots':>7} {'of':>7} {'calls':>7} {'kept':>6}"
        f" {'failed':>7} {'words':>6}"
    )
    for each in sorted(spans, key=lambda each: each.slots):
        found = "seen" if each.found else "-" if not each.case.call else "GONE"
        print(
            f"{each.case.name:34} {found:>5} {each.records:8} {each.slots:7} {each.used:7} {each.calls:7} {each.kept:6}"
            f" {each.failures:7} {each.words:6}"
        )
    known = sorted(each.slots for each in spans if each.found)
    if known:
        small = sorted(each.failures + each.words for each in spans)
        print(f"failures and output together: median {statistics.median(small):.0f} records, most {small[-1]}")
        nine = statistics.quantiles(known, n=20)[-1] if len(known) > 1 else known[0]
        print(f"{len(known)} measured: median {statistics.median(known):.0f} slots from the end, 95 % within {nine:.0f}, most {known[-1]};"
              f" a ring has {RING}; {sum(each.used >= RING for each in spans)} recordings turned over")  # fmt: skip


if __name__ == "__main__":
    main()
