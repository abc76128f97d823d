"""The reasons of many ends at once, each in a line."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gadget.errors import GadgetError
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.gather import gather
from kubectl_gadget.why.judge import judge


@dataclass(frozen=True)
class Reason:
    """Why the newest run of a container ended badly, which times it did so before."""

    instance: Instance
    times: int
    finding: Finding | None
    error: str = ""

    @property
    def state(self) -> str:
        """How it ended, and how often."""
        times = f" ({self.times} times)" if self.times > 1 else ""
        return f"{self.instance.state}{times}"

    @property
    def why(self) -> str:
        """The reason; a guess is told as one."""
        if self.finding is None:
            return self.error
        sentence = self.finding.sentence
        return sentence if self.finding.certain or self.finding.cause == "nothing" else f"likely: {sentence}"


def reasons(instances: Sequence[Instance], since: float) -> list[Reason]:
    """Those of all that ended badly within so many seconds, the newest end first; without what ended as it should."""
    newest: dict[str, list[Instance]] = defaultdict(list)
    from_ns = time.time_ns() - int(since * 1e9) if since else 0
    for each in instances:
        if each.crashed and not each.item.running and each.item.ended_ns >= from_ns:
            newest[each.name].append(each)

    def one(runs: Sequence[Instance]) -> Reason:
        last = max(runs, key=lambda each: each.newest)
        try:
            return Reason(last, len(runs), judge(gather(last, runs))[0])
        except GadgetError as error:
            return Reason(last, len(runs), None, str(error))

    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(one, newest.values()))
    bad = [each for each in found if not (each.finding and each.finding.benign)]
    return sorted(bad, key=lambda each: -each.instance.item.ended_ns)
