"""Remarks beside the policies: what they could not cover, and what was left out on purpose."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from shlex import quote

from gadget.kinds.times import short_duration
from gadget.text import counted
from kubectl_gadget.advise.check import JudgedFlow
from kubectl_gadget.advise.cluster import FlowEnd
from kubectl_gadget.advise.counting import count
from kubectl_gadget.advise.flows import PORTLESS
from kubectl_gadget.advise.observation import Evidence, Observation
from kubectl_gadget.advise.policy import INGRESS, Peer, Policy, Port, Remark
from kubectl_gadget.advise.talks import Actor, Settings, Talks, WorkloadChoice, natural, shown
from kubectl_gadget.advise.workloads import Workload
from kubectl_gadget.output.encode import encode

#: An agent that began this much later than the first is told of; those of one rollout are not.
LATE_NS = 120 * 1_000_000_000
#: How many of several names are told.
SHOWN = 3

_NEVER_KNOWN = "a pod that is gone and was never known to an agent"
_NO_LABELS = "a peer without labels that stay"
_WORDS = {"ICMP": "ICMP", "OTHER": "another protocol than TCP, UDP, SCTP and ICMP"}
_PLURALS = {
    _NEVER_KNOWN: "pods that are gone and were never known to an agent",
    _NO_LABELS: "peers without labels that stay",
}


#: Source, target, protocol, port.
_Talk = tuple[str, str, str, int]


#: Kinds whose pods are made from spec.template, which can be changed.
_WITH_TEMPLATE = ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")


class Remarks:
    """Collects what there is to tell, and tells alike things once."""

    def __init__(self, observation: Observation, settings: Settings) -> None:
        """Nothing yet."""
        self._observation = observation
        self._settings = settings
        self._uncovered: dict[tuple[Workload, str, str, Port], set[str]] = {}
        self._peers_without_labels: dict[str, Workload] = {}
        self._will_be_denied: dict[_Talk, JudgedFlow] = {}
        self._of_policies: list[Remark] = []
        self._doubtful: dict[tuple[Workload, str, str, Port], set[str]] = {}
        self._widened: dict[tuple[Workload, str, Port], str] = {}
        self._selecting: Collection[Workload] = ()
        self._some_nodes: dict[tuple[Workload, str, tuple[str, ...], int], set[Port]] = {}
        self._by_address: set[str] = set()
        self._own_node: dict[tuple[Workload, str], set[Port]] = {}
        self._rotating: dict[Workload, set[str]] = {}
        self._unlabelled: set[Workload] = set()
        self._overlaps: dict[Workload, set[str]] = {}
        self._denied: dict[Workload, set[str]] = {}
        self._failed: dict[tuple[Workload, str, Port], dict[str, int]] = {}
        self._portless: dict[tuple[Workload, str, str], set[str]] = {}
        self._older: set[Workload] = set()
        self._general: list[str] = []
        self._probes: dict[Workload, set[Port]] = {}
        self._host: set[str] = set()
        self._names: Mapping[Workload, str] = {}
        self._policies: Collection[tuple[str, str]] = ()

    def not_covered(self, workload: Workload, direction: str, other: Actor, port: Port) -> None:
        """A rule would need a peer that a policy cannot name."""
        if isinstance(other, Workload):
            name, why = shown(other), _NO_LABELS
            self._peers_without_labels[name] = other
        elif other.address and other.name == other.address:
            name, why = other.address, _NEVER_KNOWN
        else:
            name, _, why = other.name.partition(", ")
        self._uncovered.setdefault((workload, direction, why, port), set()).add(name)

    def denied(self, judged: Collection[JudgedFlow]) -> None:
        """The advice denies what was seen."""
        self._will_be_denied = {
            (_named(each.source), _named(each.target), each.protocol, each.port): each for each in judged
        }

    def refused(self, policy: Policy, why: str) -> None:
        """The API server does not take a policy."""
        self._of_policies.append(Remark(f"will be refused: {why}", *policy.key))

    def taken(self, policy: Policy) -> None:
        """Another has a policy of the same name."""
        text = f"{policy.namespace}/{policy.name} is there already, and was not made here: applying this overwrites it"
        self._of_policies.append(Remark(f"{text}: see --name-prefix", *policy.key))

    def doubtful(self, workload: Workload, direction: str, other: FlowEnd, port: Port, why: str) -> None:
        """What a rule takes for an address outside may be another's."""
        self._doubtful.setdefault((workload, direction, why, port), set()).add(other.name)

    def widened(self, workload: Workload, direction: str, port: Port, bits: int) -> None:
        """So many addresses were seen outside that they are allowed as networks of bits."""
        what = _arrow(shown(workload), "many addresses", direction, port, many=True)
        text = f"{what}: allowed as networks of a /{bits} and wider, with all others in them"
        self._widened[workload, direction, port] = f"{text}: see --cidr-group"

    def whole(self, workload: Workload, direction: str, port: Port, peer: Peer) -> None:
        """Addresses were seen all over the internet."""
        what = _arrow(shown(workload), "addresses all over the internet", direction, port, many=True)
        text = f"{what}: allowed as {peer.cidr}, except own and private networks"
        self._widened[workload, direction, port] = text

    def ranged(self, workload: Workload, direction: str, port: Port) -> None:
        """So many ports were seen that all between them are allowed."""
        what = f"{'ingress to' if direction == INGRESS else 'egress of'} {workload}"
        self._widened[workload, direction, port] = f"{what}: all of {port} is allowed, of which many ports were seen"

    def rotating(self, workload: Workload, domain: str) -> None:
        """A name had several addresses."""
        self._rotating.setdefault(workload, set()).add(domain)

    def some_nodes(self, workload: Workload, direction: str, port: Port, names: Collection[str], total: int) -> None:
        """A rule names some of all nodes."""
        self._some_nodes.setdefault((workload, direction, tuple(natural(names)), total), set()).add(port)

    def nodes_by_address(self, workload: Workload) -> None:
        """Its rules name nodes that there are today."""
        self._by_address.add(shown(workload))

    def own_node_only(self, workload: Workload, port: Port, why: str) -> None:
        """What may come from other nodes too was seen from the pods' own ones, which needs no rule."""
        self._own_node.setdefault((workload, why), set()).add(port)

    def no_labels(self, workload: Workload) -> None:
        """A policy would select all pods."""
        self._unlabelled.add(workload)

    def add_overlaps(
        self, overlaps: Mapping[Workload, Collection[Workload]], closing: Collection[Workload], choice: WorkloadChoice
    ) -> None:
        """Selectors find pods of other workloads too, which closing ones close without opening what they need."""
        for workload, others in overlaps.items():
            self._overlaps[workload] = {str(other) for other in others}
            denied = {str(other) for other in others if workload in closing and not choice.has(other)}
            if denied:
                self._denied[workload] = denied

    def add_labels(self, selecting: Collection[Workload]) -> None:
        """Selectors ask for labels, or do not, that the pods may not keep."""
        self._selecting = selecting

    def failed(self, workload: Workload, direction: str, other: Actor, port: Port, evidence: Evidence) -> None:
        """All attempts failed."""
        by_peer = self._failed.setdefault((workload, direction, port), {})
        by_peer[shown(other)] = by_peer.get(shown(other), 0) + evidence.refused

    def portless(self, workload: Workload, direction: str, other: Actor, protocol: str) -> None:
        """Note traffic of a protocol that policies cannot name."""
        self._portless.setdefault((workload, direction, protocol), set()).add(shown(other))

    def no_port(self, workload: Workload, direction: str, other: Actor, port: Port) -> None:
        """Port 0, which no policy can name."""
        self._uncovered.setdefault((workload, direction, "a port that no policy can name", port), set()).add(
            shown(other)
        )

    def older(self, workload: Workload) -> None:
        """Some connections were there before the agent."""
        self._older.add(workload)

    def add_general(self, choice: WorkloadChoice) -> None:
        """What is true of the recording, of whole workloads and of nodes."""
        cluster, header = self._observation.cluster, self._observation.context.header
        for (_, target, protocol, port), evidence in self._observation.from_own_node.items():
            if choice.has(target.workload or target) and evidence.last >= self._settings.since and target.workload:
                self._probes.setdefault(target.workload, set()).add(Port(port, protocol))
        chosen = [workload for workload in cluster.workloads.all if choice.has(workload)]
        blind = {pod.node for each in chosen for pod in each.pods if pod.node} - set(header.nodes)
        for node in sorted(blind):
            on = {shown(each) for each in chosen if any(pod.node == node for pod in each.pods)}
            self._general.append(f"no agent recorded on {node}: what only its pods saw is missing ({_some(on)})")
        began = {node.name: node.began for node in self._observation.context.nodes}
        start = max(header.from_ns, self._settings.since)
        for node in sorted({pod.node for each in chosen for pod in each.pods}):
            if began.get(node, 0) > start + LATE_NS:
                span = short_duration(max(header.until_ns - began[node], 0))
                self._general.append(f"{node} was recorded for {span} only: what its pods did before is missing")
        self._host = {shown(each) for each in chosen if each.pods and all(pod.host_network for pod in each.pods)}

    def name_policies(self, policies: Collection[tuple[str, str]], names: Mapping[Workload, str]) -> None:
        """Say which policies there are, so that remarks go with theirs."""
        self._policies, self._names = policies, names

    @property
    def warnings(self) -> tuple[Remark, ...]:
        """What may break or stay open."""
        found = [Remark(text, passing=True) for text in (*self._observation.losses(), *self._general)]
        found += [*self._of_policies, *self._not_covered()]
        found += (self._about(workload, text) for (workload, _, _), text in self._widened.items())
        for (workload, direction, why, port), names in self._doubtful.items():
            text = f"{_arrow(shown(workload), _some(names), direction, port)}: {why}"
            found.append(self._about(workload, text))
        found += (
            self._about(workload, f"no policy for {workload}: its pods have no labels that stay")
            for workload in self._unlabelled
        )
        for workload, domains in self._rotating.items():
            text = f"{shown(workload)} → {_some(domains)}: of several addresses, and the next may be another one"
            found.append(self._about(workload, f"{text}: rules name addresses, but for --format cilium"))
        for workload, others in self._overlaps.items():
            text = f"the selector of {workload} also matches pods of {_some(others)}"
            found.append(self._about(workload, text))
        for (workload, direction, nodes, total), ports in self._some_nodes.items():
            what = f"{'from' if direction == INGRESS else 'to'} {_some(nodes)} at {', '.join(map(str, sorted(ports)))}"
            text = f"the policy of {workload} names {len(nodes)} of {total} nodes: {what}"
            found.append(self._about(workload, text))
        for workload in self._selecting:
            if moving := ", ".join(workload.moving):
                text = f"the selector of {workload} does not ask for {moving}, which a failover gives to another pod"
                found.append(self._about(workload, text))
        for workload, others in self._denied.items():
            text = f"the policy of {workload} denies what pods of {_some(others)} do: advise on those too, without -l"
            found.append(self._about(workload, text))
        for (workload, direction, protocol), names in self._portless.items():
            ends = (_some(names), str(workload)) if direction == INGRESS else (str(workload), _some(names))
            text = f"{_WORDS[protocol]}: {' → '.join(ends)}: NetworkPolicy cannot allow it, and plugins may drop it"
            found.append(self._about(workload, text))
        return tuple(sorted(set(found), key=lambda remark: (remark.namespace, remark.policy, remark.text)))

    def _not_covered(self) -> Iterator[Remark]:
        """What no rule covers, with what will be denied of it; then what would be denied for any other reason."""
        denied = dict(self._will_be_denied)
        for (workload, direction, why, port), names in self._uncovered.items():
            talks = {name: _talk(name, str(workload), direction, port) for name in names}
            open_names = {name for name, talk in talks.items() if talk not in self._will_be_denied}
            closed_names = names - open_names
            if why == _NO_LABELS:
                for name in closed_names:
                    text = f"WILL BE DENIED: {_arrow(shown(workload), name, direction, port)}, {why}"
                    yield self._about(workload, f"{text}: {add_label(self._peers_without_labels[name])}")
                closed_names = set()
            for start, some in (("not covered", open_names), ("WILL BE DENIED", closed_names)):
                if some:
                    text = _arrow(shown(workload), _some(some), direction, port)
                    told = why if len(some) == 1 else _PLURALS.get(why, why)
                    yield self._about(workload, f"{start}: {text}" + (f", {told}" if told else ""))
            for talk in talks.values():
                denied.pop(talk, None)
        workloads = {str(workload): workload for workload in self._names}
        for (source, target, protocol, port_number), judged in denied.items():
            text = f"WILL BE DENIED: {source} → {target}:{port_number}/{protocol}: {judged.reason}"
            ends = (source, target) if "egress" in judged.reason else (target, source)
            found = next((workloads[each] for each in ends if each in workloads), None)
            yield self._about(found, text) if found else Remark(text)

    @property
    def notes(self) -> tuple[Remark, ...]:
        """What was left out on purpose."""
        found = []
        for (workload, direction, port), by_peer in self._failed.items():
            text = _arrow(shown(workload), _some(by_peer), direction, port)
            found.append(
                self._about(workload, f"only failed: {text}, {counted(sum(by_peer.values()), 'attempt', ',')}")
            )
        for workload, ports in self._probes.items():
            text = f"{workload} {', '.join(map(str, sorted(ports)))} was reached from its own node, as kubelet's probes"
            found.append(self._about(workload, f"{text} do: always allowed, needs no rule"))
        for (workload, why), ports in self._own_node.items():
            text = f"{workload} {', '.join(map(str, sorted(ports)))} was reached from its own node alone"
            found.append(self._about(workload, f"{text}, and {why}"))
        if self._by_address:
            text = f"rules of {_some(self._by_address)} name nodes by address"
            found.append(Remark(f"{text}: a node that is added later is in none, so advise again then"))
        found += (
            self._about(workload, f"some connections of {workload} are older than the agent")
            for workload in self._older
        )
        for workload in self._selecting:
            for label in workload.generated:
                text = f"the selector of {workload} does not ask for {label}, which looks like a label of one run"
                found.append(self._about(workload, text))
            for label in workload.numbered:
                text = f"the selector of {workload} asks for {label}: take it out if the next run has another"
                found.append(self._about(workload, text))
        if self._host:
            found.append(Remark(f"no policy for {_some(self._host, 9)}: NetworkPolicy is not about host-network pods"))
        return tuple(sorted(set(found), key=lambda remark: (remark.namespace, remark.policy, remark.text)))

    def _about(self, workload: Workload, text: str) -> Remark:
        name = self._names.get(workload, "")
        return Remark(text, workload.namespace, name if (workload.namespace, name) in self._policies else "")


def summarize(observation: Observation, talks: Talks, choice: WorkloadChoice, since: int = 0) -> str:
    """The recording in a line."""
    header = observation.context.header
    asked = {
        key: evidence
        for key, evidence in talks.items()
        if (choice.has(key[0]) or choice.has(key[1])) and key[2] not in PORTLESS
    }
    actors = {actor for source, target, _, _ in asked for actor in (source, target) if isinstance(actor, Workload)}
    span = short_duration(observation.span_ns(since))
    return (
        f"from {span} of traffic on {counted(len(header.nodes), 'node', ',')}: "
        f"{counted(count(asked.values()), 'connection', ',')} between {counted(len(actors), 'workload', ',')}"
    )


def add_label(workload: Workload) -> str:
    """What to do so that policies can be about a workload, with kubectl's command line where one does it."""
    told = "add a label to its template"
    namespace, name, kind = quote(workload.namespace), quote(workload.name), workload.kind
    patch: dict[str, object] = {"template": {"metadata": {"labels": {"app": workload.name}}}}
    if kind == "CronJob":
        patch = {"jobTemplate": {"spec": patch}}
    elif kind not in _WITH_TEMPLATE:
        return told
    body = quote(encode({"spec": patch}).decode())
    return f"{told}: kubectl patch {kind.lower()} {name} --namespace {namespace} --type merge --patch {body}"


def _named(name: str) -> str:
    """A name without what is said of it."""
    return name.partition(", ")[0]


def _talk(other: str, workload: str, direction: str, port: Port) -> _Talk:
    source, target = (other, workload) if direction == INGRESS else (workload, other)
    return source, target, port.protocol, port.port


def _some(names: Collection[str], most: int = SHOWN) -> str:
    ordered = natural(names)
    more = len(ordered) - most
    return ", ".join(ordered[:most]) + (f" and {more:,} more" if more > 0 else "")


def _arrow(name: str, others: str, direction: str, port: Port, *, many: bool = False) -> str:
    if direction == INGRESS:
        return f"{others} → {name}:{port}"
    return f"{name} → {others}:{port}" if "," not in others and not many else f"{name} → {others} at {port}"
