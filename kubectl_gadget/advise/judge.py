"""What was seen, as `check` looks at it: the ends of each connection as the evaluator knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from gadget.selector import parse_names
from kubectl_gadget.advise import cluster, evaluate
from kubectl_gadget.advise.check import CheckedFlow
from kubectl_gadget.advise.counting import together, uncertain
from kubectl_gadget.advise.crowd import Crowd
from kubectl_gadget.advise.flows import PORTLESS, Flow, FlowContext
from kubectl_gadget.advise.matching import CompiledPolicy
from kubectl_gadget.advise.observation import Evidence, Observation, ObservedConnection
from kubectl_gadget.advise.talks import Actor, Settings, WorkloadChoice, shown


def namespaces_of(observation: Observation) -> Mapping[str, Mapping[str, str]]:
    """The labels of each namespace that is known."""
    return labels_of_namespaces(observation.context)


def labels_of_namespaces(context: FlowContext) -> Mapping[str, Mapping[str, str]]:
    """The labels of each namespace that is known."""
    found = (item["metadata"] for item in context.objects if item["kind"] == "Namespace")
    return {item["name"]: item.get("labels") or {} for item in found}


def decide_each(evaluator: evaluate.Evaluator, known: cluster.Cluster, flow: Flow) -> Iterator[evaluate.Verdict]:
    """The verdict on one flow for each pod that it may have reached."""
    egress = flow.direction == "egress"
    for own in known.local(flow):
        for reached in known.peer(flow):
            own_node = not egress and reached.end.kind == "node" and flow.node in reached.end.nodes
            ours = _end(own, flow.pod if own.kind == "pod" else "", own_node=False)
            theirs = _end(reached.end, reached.peer if reached.end.kind == "pod" else "", own_node=own_node)
            ends = (ours, theirs) if egress else (theirs, ours)
            yield evaluator.decide(*ends, flow.protocol, reached.port or flow.port)


def policies_about(
    policies: Iterable[CompiledPolicy], observation: Observation, settings: Settings
) -> Iterator[tuple[str, str]]:
    """Namespace and name of the policies that settings ask about. A selector chooses the policies of its pods."""
    choice, names = WorkloadChoice(settings), parse_names(settings.namespaces)
    labels: dict[str, list[Mapping[str, str]]] = {}
    for workload in observation.cluster.workloads.all if settings.selector else ():
        if choice.has(workload):
            labels.setdefault(workload.namespace, []).extend(pod.labels for pod in workload.pods)
    for policy in policies:
        asked = not settings.selector or any(map(policy.pods.matches, labels.get(policy.namespace, ())))
        if asked and names.matches(policy.namespace):
            yield policy.namespace, policy.name


def spans(
    policies: Iterable[CompiledPolicy], observation: Observation, settings: Settings
) -> dict[tuple[str, str], int]:
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


@dataclass(eq=False, slots=True)
class _Pair:
    """All connections of one workload or address with another, to one port."""

    source: Actor
    target: Actor
    connections: list[ObservedConnection]

    @property
    def total(self) -> Evidence:
        """What was seen of all of them."""
        first, *others = self.connections
        if not others:
            return first.evidence
        total = Evidence()
        for each in self.connections:
            total.add(each.evidence)
        return total


def denied_of(observation: Observation, settings: Settings, evaluator: evaluate.Evaluator) -> Iterator[CheckedFlow]:
    """Of the connections that settings ask for those that are denied, without most of the counting that check does.

    Very many addresses outside are left out: the networks that advice has for them are made of these addresses.
    """
    took_place: set[tuple[str, str, str, int]] | None = None
    for flow, certain in _denied_of(observation, settings, evaluator):
        key = (flow.source_name, flow.target_name, flow.protocol, flow.port)
        if not certain:  # another pod behind the same Service may have had all of them
            if took_place is None:
                every = flows_of(observation, replace(settings, namespaces=()))
                took_place = {(each.source_name, each.target_name, each.protocol, each.port) for each in every}
            if key not in took_place:
                continue
        yield flow


def _denied_of(
    observation: Observation, settings: Settings, evaluator: evaluate.Evaluator
) -> Iterator[tuple[CheckedFlow, bool]]:
    """The denied connections, each with whether it certainly took place."""
    choice = WorkloadChoice(settings)
    for (source, target, protocol, port), evidence in observation.edges.items():
        actors = source.workload or source, target.workload or target
        if evidence.last_done < max(settings.since, 1) or not any(map(choice.has, actors)):
            continue
        if source.crowd or target.crowd or protocol in PORTLESS:
            continue
        each = ObservedConnection(source, target, protocol, port, evidence, own_node=False)
        ends = _end(source, each.source_pod, own_node=False), _end(target, each.target_pod, own_node=False)
        if not evaluator.allows(*ends, protocol, port):
            names = shown(actors[0]), shown(actors[1])
            yield CheckedFlow(*ends, protocol, port, evidence.count, evidence.last, *names), evidence.certain > 0


def flows_of(observation: Observation, settings: Settings) -> Iterator[CheckedFlow]:
    """All connections, with whether settings ask for them; attempts that failed are none."""
    choice = WorkloadChoice(settings)
    pairs: dict[
        tuple[Actor, Actor, str, int, bool], ObservedConnection | list[ObservedConnection]
    ] = {}  # nearly all have one
    for each in observation.connections():
        source, target = (end.workload or end for end in (each.source, each.target))
        if each.evidence.last_done >= settings.since:
            key = (source, target, each.protocol, each.port, each.own_node)
            known = pairs.get(key)
            if known is None:
                pairs[key] = each
            elif isinstance(known, list):
                known.append(each)
            else:
                pairs[key] = [known, each]
    every = (_Pair(key[0], key[1], each if isinstance(each, list) else [each]) for key, each in pairs.items())
    for number, alike in enumerate(together(every, lambda pair: pair.total), 1):
        for pair, connection, count, either in _counted(alike):
            within = ""  # the namespace, where it goes without saying
            if len(settings.namespaces) == 1 and connection.source.namespace == connection.target.namespace:
                within = connection.source.namespace
            flow = CheckedFlow(
                source=_end(connection.source, connection.source_pod, own_node=connection.own_node),
                target=_end(connection.target, connection.target_pod, own_node=connection.own_node),
                protocol=connection.protocol,
                port=connection.port,
                count=count,
                last_ns=connection.evidence.last,
                source_name=shown(pair.source, within),
                target_name=shown(pair.target, within),
                asked=choice.has(pair.source) or choice.has(pair.target),
                either=number if either else 0,
            )
            if crowd := connection.source.crowd or connection.target.crowd:
                yield from _each_of(crowd, flow, settings.since)
            else:
                yield flow


def _each_of(crowd: Crowd, flow: CheckedFlow, since: int) -> Iterator[CheckedFlow]:
    """A flow for each of very many addresses outside."""
    for member in crowd.members(since):
        if member.done:
            end = evaluate.PolicyEnd(crowd.spell(member.number))
            source, target = (flow.source, end) if crowd.egress else (end, flow.target)
            yield replace(flow, source=source, target=target, count=member.done, last_ns=member.last)


def _counted(pairs: list[_Pair]) -> Iterator[tuple[_Pair, ObservedConnection, int, bool]]:
    """How often each connection was seen, and none twice; and whether it may as well have been another of them.

    The target's agent knows which pod it was; what the source's knows of a Service's pods is that it was one of them.
    """
    for pair in pairs:
        left = pair.total.certain
        for each in sorted(pair.connections, key=lambda each: -each.evidence.received):
            count = min(each.evidence.certain, left)
            left -= count
            if count:
                yield pair, each, count, False
    if rest := uncertain([pair.total for pair in pairs]):
        others = [(pair, each) for pair in pairs for each in pair.connections if each.evidence.shared]
        yield from ((pair, each, rest, len(others) > 1) for pair, each in others)


def _end(end: cluster.FlowEnd, pod: str, *, own_node: bool) -> evaluate.PolicyEnd:
    return evaluate.PolicyEnd(
        address=end.address,
        namespace=end.namespace,
        pod=pod,
        labels=end.labels,
        named_ports={(port.protocol, port.name): port.port for port in end.ports},
        host_network=end.host_network or end.kind == "node",
        is_own_node=own_node and end.kind == "node",
    )
