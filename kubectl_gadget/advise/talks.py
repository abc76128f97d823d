"""Who talks to whom: what was seen, added up by workload."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gadget.errors import UsageError
from gadget.selector import parse_labels, parse_names
from kubectl_gadget.advise.cluster import FlowEnd
from kubectl_gadget.advise.observation import Evidence, Observation, of_crowd
from kubectl_gadget.advise.workloads import Workload


@dataclass(frozen=True)
class Settings:
    """What to advise on, and how.

    namespaces and selector choose workloads, as -n and -l do. since in nanoseconds since 1970: what was not seen later
    is left out. cidr_group: how many bits of IPv4 addresses outside the cluster go into a rule (IPv6: 64), 0 for all.
    name_prefix: how the names of policies begin. dialect: whose policies they become.
    """

    namespaces: Sequence[str] = ()
    selector: str = ""
    default_deny: bool = False
    failed: bool = False
    cidr_group: int = 0
    since: int = 0
    name_prefix: str = ""
    dialect: str = "kubernetes"


#: A workload's pods together, or what is no pod.
Actor = Workload | FlowEnd
#: Source, target, protocol, port.
Talks = dict[tuple[Actor, Actor, str, int], Evidence]


def add_up(observation: Observation, settings: Settings) -> Talks:
    """What was seen since the given time, by workload."""
    talks: Talks = {}
    for (source, target, protocol, port), evidence in observation.edges.items():
        if evidence.last < settings.since:
            continue
        many = source if source.crowd else target
        if many.crowd and settings.since:
            evidence = of_crowd(many, settings.since)
        key = (source.workload or source, target.workload or target, protocol, port)
        total = talks.get(key)
        if total is None:
            total = talks[key] = Evidence()
        total.add(evidence.since(settings.since))
    return talks


def check_choice(settings: Settings, observation: Observation) -> None:
    """UsageError if settings choose what is not there: a namespace, or labels that no pod of the chosen ones has."""
    wanted = parse_names(settings.namespaces).wanted
    cluster = observation.cluster
    known = {item["metadata"].get("namespace", "") for item in observation.context.objects}
    known |= {item["metadata"]["name"] for item in observation.context.objects if item["kind"] == "Namespace"}
    known |= {workload.namespace for workload in cluster.workloads.all}
    if missing := sorted(wanted - known):
        raise UsageError(f"-n {missing[0]}: no such namespace: there are {', '.join(sorted(known - {''})) or 'none'}")
    choice = WorkloadChoice(settings)
    if settings.selector and not any(map(choice.has, cluster.workloads.all)):
        where = f" in {', '.join(sorted(wanted))}" if wanted else ""
        raise UsageError(f"-l {settings.selector}: no pod{where} has such labels")


class WorkloadChoice:
    """Which workloads are asked for."""

    def __init__(self, settings: Settings) -> None:
        """As settings say. UsageError if a selector is none."""
        self._names = parse_names(settings.namespaces)
        self._conditions = parse_labels(settings.selector)
        self._known: dict[Workload, bool] = {}

    def has(self, actor: Actor) -> bool:
        """Whether it is a workload, and asked for."""
        if not isinstance(actor, Workload):
            return False
        chosen = self._known.get(actor)
        if chosen is None:
            chosen = self._known[actor] = self._names.matches(actor.namespace) and self._matches(actor)
        return chosen

    def _matches(self, workload: Workload) -> bool:
        if not self._conditions:
            return True
        labels = [pod.labels for pod in workload.pods] or [(workload.selector or {}).get("matchLabels") or {}]
        return any(all(condition.matches(own) for condition in self._conditions) for own in labels)


def shown(actor: Actor, namespace: str = "") -> str:
    """The name of an actor for people, short within its own namespace."""
    if not isinstance(actor, Workload):
        return actor.name
    return actor.name if actor.namespace == namespace else str(actor)


def natural(names: Iterable[str]) -> list[str]:
    """Names in the order that people expect: web-2 before web-10."""

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

    return sorted(names, key=lambda name: (key(name), name))
