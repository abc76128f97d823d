"""What was seen, as `check` looks at it: the ends of each connection as the evaluator knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gadget.selector import parse_names
from kubectl_gadget.advise import cluster, evaluate
from kubectl_gadget.advise.check import Flow
from kubectl_gadget.advise.matching import Policy
from kubectl_gadget.advise.observation import Connection, Evidence, Observation
from kubectl_gadget.advise.talks import Actor, Choice, Settings, shown


def namespaces_of(observation: Observation) -> Mapping[str, Mapping[str, str]]:
    """The labels of each namespace that is known."""
    found = (item["metadata"] for item in observation.context.objects if item["kind"] == "Namespace")
    return {item["name"]: item.get("labels") or {} for item in found}


def policies_about(
    policies: Iterable[Policy], observation: Observation, settings: Settings
) -> Iterator[tuple[str, str]]:
    """Namespace and name of the policies that settings ask about: with a selector those that are for its pods."""
    choice, names = Choice(settings), parse_names(settings.namespaces)
    labels: dict[str, list[Mapping[str, str]]] = {}
    for workload in observation.cluster.workloads.all if settings.selector else ():
        if choice.has(workload):
            labels.setdefault(workload.namespace, []).extend(pod.labels for pod in workload.pods)
    for policy in policies:
        asked = not settings.selector or any(map(policy.pods.matches, labels.get(policy.namespace, ())))
        if asked and names.matches(policy.namespace):
            yield policy.namespace, policy.name


def spans(policies: Iterable[Policy], observation: Observation, settings: Settings) -> dict[tuple[str, str], int]:
    """For how long there was something to see of all pods of each policy, in ns: their youngest agent says."""
    began = {node.name: node.began for node in observation.context.nodes}
    pods: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], Mapping[str, str]]] = {}
    for pod in observation.cluster.pods:
        pods.setdefault(pod.namespace, {})[pod.node, frozenset(pod.labels.items())] = pod.labels
    found = {}
    for policy in policies:
        of = [
            began.get(node, 0) for (node, _), own in pods.get(policy.namespace, {}).items() if policy.pods.matches(own)
        ]
        found[policy.namespace, policy.name] = observation.span_ns(max(settings.since, *of, 0))
    return found


def flows_of(observation: Observation, settings: Settings) -> Iterator[Flow]:
    """All connections, with whether settings ask for them; attempts that failed are none."""
    choice = Choice(settings)
    groups: dict[tuple[Actor, Actor, str, int, bool], list[Connection]] = {}
    for each in observation.connections():
        source, target = (end.workload or end for end in (each.source, each.target))
        if each.evidence.last >= settings.since:
            groups.setdefault((source, target, each.protocol, each.port, each.own_node), []).append(each)
    for (source, target, *_), alike in groups.items():
        within = ""  # the namespace, where it goes without saying
        if len(settings.namespaces) == 1 and alike[0].source.namespace == alike[0].target.namespace:
            within = alike[0].source.namespace
        for connection, count in _counted(alike):
            asked = choice.has(source) or choice.has(target)
            yield _flow(connection, count, shown(source, within), shown(target, within), asked)


def _counted(alike: list[Connection]) -> Iterator[tuple[Connection, int]]:
    """How often each connection of the same two workloads was seen, and none twice.

    The target's agent knows which pod it was; what the source's knows of a Service's pods is that it was one of them.
    """
    total = Evidence()
    for each in alike:
        total.add(each.evidence)
    left = total.count
    for each in sorted(alike, key=lambda each: -each.evidence.received):
        count = min(each.evidence.count, left)
        left -= count
        if count:
            yield each, count


def _flow(connection: Connection, count: int, source_name: str, target_name: str, asked: bool) -> Flow:
    return Flow(
        source=_end(connection.source, connection.source_pod, own_node=connection.own_node),
        target=_end(connection.target, connection.target_pod, own_node=connection.own_node),
        protocol=connection.protocol,
        port=connection.port,
        count=count,
        last_ns=connection.evidence.last,
        source_name=source_name,
        target_name=target_name,
        asked=asked,
    )


def _end(end: cluster.End, pod: str, *, own_node: bool) -> evaluate.End:
    return evaluate.End(
        address=end.address,
        namespace=end.namespace,
        pod=pod,
        labels=end.labels,
        named_ports={(port.protocol, port.name): port.port for port in end.ports},
        host_network=end.host_network or end.kind == "node",
        is_own_node=own_node and end.kind == "node",
    )
