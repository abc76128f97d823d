"""Gathers the facts: from the agent that has a recording, and from the API server with the user's own rights."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from kubectl_gadget.agents.client import ask
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.traceloop.calls import Entry, ReplyReader
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.traceloop.runtime import without_runtime
from kubectl_gadget.traceloop.signals import without_false_kills
from kubectl_gadget.why.cluster import ClusterFacts, key_of
from kubectl_gadget.why.facts import Earlier, Facts
from kubectl_gadget.why.history import CallHistory
from kubectl_gadget.why.pod import PodContainer, parse_time

#: Earlier ends of the same container that are compared with this one.
EARLIER = 10
#: A recording that began so soon after its container has its first calls, nanoseconds.
_AT_ONCE_NS = 2_000_000_000


def read_history(replies: Iterable[pb.TraceloopReadReply]) -> CallHistory:
    """What a recording tells. GadgetError if its replies make no sense."""
    reader, last = ReplyReader(), pb.TraceloopReadReply()
    entries: list[Entry] = []
    complete, kept = False, 0
    for number, reply in enumerate(replies):
        entries += reader.entries(reply)
        complete, kept = complete or (not number and reader.complete), kept + reader.kept
        last = reply
    item = last.item
    complete = (
        complete and 0 < item.recorded_ns < item.started_ns + _AT_ONCE_NS
    )  # else it may have begun with the agent
    own, _ = without_runtime(without_false_kills(entries), reader.started, complete)
    status = item.status if not item.running and (item.known or item.status) else None
    blocked = list(reader.blocked(last))
    return CallHistory(
        own,
        reader.started,
        complete=complete,
        blocked=blocked,
        status=status,
        kept=kept,
        sent=reader.sent,
        read_ns=last.sent_ns,
        failures_left_out=reader.failures,
    )


def facts_of(
    node: str, item: pb.TraceloopItem, history: CallHistory, *, earlier: Sequence[Earlier] = (), **more: Any
) -> Facts:
    """The facts of one recording; more are fields of Facts."""
    container = item.container
    facts = Facts(
        namespace=container.namespace,
        pod=container.pod,
        container=container.container,
        id=container.id,
        node=node,
        running=item.running,
        known=item.known or bool(item.status),
        started_ns=item.started_ns,
        ended_ns=0 if item.running else item.ended_ns,
        now_ns=history.read_ns or time.time_ns(),
        status=item.status,
        oom=item.oom,
        history=history,
        earlier=tuple(earlier),
    )
    return replace(facts, **more) if more else facts


def gather(instance: Instance, others: Sequence[Instance]) -> Facts:
    """The facts of a recording; others are all recordings. GadgetError if its agent does not answer."""
    request = pb.TraceloopReadRequest(cgroup_id=instance.container.cgroup_id)
    try:
        history = read_history(ask(instance.agent, "TraceloopRead", request))
    except GadgetError as error:
        raise GadgetError(f"{instance.agent.target}: {error}") from error
    return facts_of(instance.node, instance.item, history, earlier=earlier_ends(instance, others))


def gather_ends(
    agent: Agent, ends: Iterable[Sequence[Instance]]
) -> Iterator[tuple[Sequence[Instance], Facts | GadgetError]]:
    """The facts of ends that an agent recorded, from the records that may tell of them, each with its item of ends.

    An item has all runs of a container, the newest first. The errors of missing ones come at the end.
    """
    waiting = {runs[0].container.cgroup_id: runs for runs in ends}
    problem = GadgetError("its recording has made room for another meanwhile")
    try:
        for reply in ask(agent, "TraceloopEnds", pb.TraceloopEndsRequest(cgroup_ids=waiting)):
            if runs := waiting.pop(reply.item.container.cgroup_id, None):
                yield runs, _facts_of_end(runs, reply)
    except GadgetError as error:
        problem = GadgetError(f"{agent.target}: {error}")
    yield from ((runs, problem) for runs in waiting.values())


def _facts_of_end(runs: Sequence[Instance], reply: pb.TraceloopReadReply) -> Facts | GadgetError:
    """The facts of the newest run; if its recording makes no sense its error, as the others' may."""
    last = runs[0]
    try:
        history = read_history([reply])
    except GadgetError as error:
        return GadgetError(f"{last.agent.target}: {error}")
    earlier = earlier_ends(last, runs)
    return facts_of(last.node, last.item, history, earlier=earlier, left_out=reply.chosen.left_out)


def with_cluster(facts: Facts, cluster: ClusterFacts) -> Facts:
    """The same with what the API server says."""
    said = cluster.facts(facts.namespace, facts.pod, facts.container, facts.id, facts.started_ns)
    live = facts.live.descriptors.values() if facts.live else ()
    names, notes = cluster.names(facts.history, [text.rpartition(" ")[2] for text in live])
    return replace(facts, kubernetes=said, names=names, notes=notes, missing=(*facts.missing, *cluster.missing))


def unrecorded(container: PodContainer, why: str, cluster: ClusterFacts) -> Facts:
    """The facts of a container that has no recording, for the reason that why gives."""
    namespace, name = key_of(container.pod)
    ended = {} if container.runs else container.ended
    code = ended.get("exitCode") or 0
    facts = Facts(
        namespace=namespace,
        pod=name,
        container=container.name if container.status else "",
        id=container.id,
        node=(container.pod.get("spec") or {}).get("nodeName") or "",
        running=container.runs,
        known=bool(ended),
        started_ns=parse_time((container.status.get("state") or {}).get("running", ended).get("startedAt")),
        ended_ns=parse_time(ended.get("finishedAt")),
        now_ns=time.time_ns(),
        status=code << 8,
        unrecorded=why,
    )
    said = cluster.facts(namespace, name, container.name)
    return replace(facts, kubernetes=said, missing=tuple(cluster.missing))


def earlier_ends(instance: Instance, others: Sequence[Instance]) -> list[Earlier]:
    """How the runs of a container before this one ended, the newest first."""
    before = [
        each
        for each in others
        if each.name == instance.name and each.newest < instance.newest and not each.item.running
    ]
    before.sort(key=lambda each: -each.newest)
    return [
        Earlier(each.item.status, max(0, each.item.ended_ns - each.item.started_ns) / 1e9) for each in before[:EARLIER]
    ]
