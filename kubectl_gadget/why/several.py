"""The reasons of many ends at once, each in a line."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from gadget.errors import GadgetError
from kubectl_gadget.agents.at_once import answers
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.stream.request import Selection
from kubectl_gadget.traceloop import instances
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why.choose import CRASHED, INIT, NOT_READY, STUCK, candidates, rank_of, since_ns
from kubectl_gadget.why.cluster import ClusterFacts, key_of
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding
from kubectl_gadget.why.gather import gather_ends, unrecorded, with_cluster
from kubectl_gadget.why.judge import judge
from kubectl_gadget.why.kubernetes import was_stopped
from kubectl_gadget.why.pod import PodContainer

#: Of what is going all the same, these are ends of another kind.
_OWN = ("killed-by-process", "oom")
#: A pod may take so long to become ready before that is news.
_STARTING_NS = 60_000_000_000


@dataclass(frozen=True)
class Reason:
    """Why a container ended badly, how often it did so, or why it does not run; ended_ns is 0 if it never did."""

    namespace: str
    pod: str
    container: str
    what: str
    ended_ns: int
    times: int
    finding: Finding | None
    error: str = ""

    @property
    def state(self) -> str:
        """How it ended, and how often, or what it waits for."""
        return f"{self.what} ×{self.times}" if self.times > 1 else self.what

    @property
    def why(self) -> str:
        """The reason."""
        return _as_told(self.finding) if self.finding else self.error


def reasons(
    found: Sequence[Instance], selection: Selection, since: float, cluster: ClusterFacts | None = None
) -> list[Reason]:
    """Those of all that ended badly within so many seconds, the newest end first, and of what is kept from running.

    Without what ended as it should.
    """
    by_name: dict[str, list[Instance]] = defaultdict(list)
    from_ns = time.time_ns() - int(since * 1e9) if since else 0
    for each in instances.among(found, selection):
        if each.crashed and not each.item.running and each.item.ended_ns >= from_ns:
            by_name[each.name].append(each)
    stuck = _stuck(found, selection, cluster) if cluster else []
    held = {(*key_of(each.pod), each.name) for each in stuck}
    by_agent: dict[Agent, list[list[Instance]]] = defaultdict(list)
    for runs in by_name.values():
        runs.sort(key=lambda each: -each.newest)
        container = runs[0].container
        if (container.namespace, container.pod, container.container) not in held:
            by_agent[runs[0].agent].append(runs)

    def of_end(runs: Sequence[Instance], facts: Facts | GadgetError) -> Reason | None:
        last = runs[0]
        container = last.container
        names = container.namespace, container.pod, container.container
        what = last.state.partition(" (")[0]  # a signal's name says as much, and a reason needs the room
        shown = *names, what, last.item.ended_ns, len(runs)
        try:
            if isinstance(facts, GadgetError):
                raise facts
            facts = with_cluster(facts, cluster) if cluster else facts
        except GadgetError as error:
            return Reason(*shown, None, str(error))
        first = judge(facts)[0]
        benign = first.benign or (was_stopped(facts) and first.cause not in _OWN)
        return None if benign else Reason(*shown, first)

    def of_agent(agent: Agent) -> list[Reason | None]:
        return [of_end(runs, facts) for runs, facts in gather_ends(agent, by_agent[agent])]

    def of_state(container: PodContainer) -> list[Reason | None]:
        assert cluster
        facts = unrecorded(container, "it is not recorded", cluster)
        first = judge(facts)[0]
        if first.benign:
            return []
        ended_ns = 0 if facts.running or container.waiting.get("reason") != "CrashLoopBackOff" else facts.ended_ns
        return [Reason(*key_of(container.pod), container.name, _state(container, facts), ended_ns, 1, first)]

    questions: dict[str, Callable[[], list[Reason | None]]] = {
        agent.target: partial(of_agent, agent) for agent in by_agent
    }
    for waiting in stuck:
        questions["/".join(key_of(waiting.pod))] = partial(of_state, waiting)
    rows = [row for row in chain(*answers(questions)) if row]
    return sorted(rows, key=lambda each: (bool(each.ended_ns), -each.ended_ns))


def sentences(found: Sequence[Instance]) -> dict[tuple[str, int], str]:
    """Why each of these that ended badly did so, as far as its recording tells, by its agent and cgroup."""
    by_agent: dict[Agent, list[list[Instance]]] = defaultdict(list)
    for each in found:
        if each.crashed and not each.item.running:
            by_agent[each.agent].append([each])

    def of_agent(agent: Agent) -> list[tuple[tuple[str, int], str]]:
        found = gather_ends(agent, by_agent[agent])
        return [((agent.target, runs[0].container.cgroup_id), _told(facts)) for runs, facts in found]

    return dict(chain(*answers({agent.target: partial(of_agent, agent) for agent in by_agent})))


def _told(facts: Facts | GadgetError) -> str:
    return str(facts) if isinstance(facts, GadgetError) else _as_told(judge(facts)[0])


def _as_told(finding: Finding) -> str:
    """The sentence of a finding; a guess is told as one."""
    return finding.sentence if finding.certain or finding.cause == "nothing" else f"likely: {finding.sentence}"


def _stuck(found: Sequence[Instance], selection: Selection, cluster: ClusterFacts) -> list[PodContainer]:
    """Of each pod that is kept from running, the container that is worst off, unless its end is recorded."""
    now_ns = time.time_ns()
    by_pod: dict[tuple[str, str], PodContainer] = {}
    for candidate in candidates(found, cluster.pods, selection):
        status = candidate.status
        if status is None or (status.pod.get("metadata") or {}).get("deletionTimestamp"):
            continue
        rank, old = rank_of(status), now_ns - since_ns(status) > _STARTING_NS
        kept = rank in (STUCK, INIT) and (old or bool(status.waiting)) and candidate.instance is None
        crashed = rank in (CRASHED, INIT) and not candidate.runs
        unready = rank == NOT_READY and old and not status.init and not candidate.crash
        if kept or crashed or unready:
            by_pod.setdefault(key_of(status.pod), status)
    return list(by_pod.values())


def _state(container: PodContainer, facts: Facts) -> str:
    """What a container that has no end of its own waits for."""
    said = facts.kubernetes
    reason = str(container.waiting.get("reason") or "")
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return reason
    if container.runs:
        return "not ready"
    if said and said.pod_reason:
        return said.pod_reason
    return f"exited {facts.code}" if facts.known else reason or (said.phase if said else "")
