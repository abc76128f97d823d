"""Flows added up between ends. Two ends are one if policies cannot tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import Any

from gadget.errors import UsageError
from kubectl_gadget.advise.cluster import Cluster, FlowEnd, Reached
from kubectl_gadget.advise.crowd import MANY, Crowd, CrowdMember
from kubectl_gadget.advise.domains import is_domain
from kubectl_gadget.advise.flows import Flow, FlowContext, FlowsFile

#: Source, target, protocol, the port that the target listens on.
Key = tuple[FlowEnd, FlowEnd, str, int]
#: What tells connections of which only is known that one of several edges had them: the agent's direction, and more.
Shared = tuple[object, ...]


@dataclass(slots=True)
class Evidence:
    """How often and when connections were seen. The two ends see the same ones, each by its own node's agent.

    sent: by the source's agent; received: by the target's; *_alone: those among them of which the other end's node has
    no agent; shared: by one of the two, and others than this edge may have had them; refused_*: attempts that failed.
    first, last, and the last that came about, in nanoseconds since 1970. names: for which the source got the address.
    """

    sent: int = 0
    received: int = 0
    sent_alone: int = 0
    received_alone: int = 0
    shared: dict[Shared, int] | None = None
    refused_sent: int = 0
    refused_received: int = 0
    first: int = 1 << 63
    last: int = 0
    last_done: int = 0
    older: bool = False
    sources: set[str] | None = None
    targets: set[str] | None = None
    names: set[str] | None = None

    @property
    def count(self) -> int:
        """How many connections: as the end saw that saw more; all of them, if other edges may have had some."""
        return max(self.sent_in_all + self.received_alone, self.received_in_all + self.sent_alone)

    @property
    def certain(self) -> int:
        """Connections that no other edge can have had."""
        return max(self.sent + self.received_alone, self.received + self.sent_alone)

    @property
    def sent_in_all(self) -> int:
        """Connections that the source's agent saw."""
        return self.sent + self._shared("egress")

    @property
    def received_in_all(self) -> int:
        """Connections that the target's agent saw."""
        return self.received + self._shared("ingress")

    def _shared(self, direction: str) -> int:
        return sum(count for key, count in self.shared.items() if key[0] == direction) if self.shared else 0

    @property
    def refused(self) -> int:
        """Attempts that failed."""
        return max(self.refused_sent, self.refused_received)

    def see(self, flow: Flow, egress: bool, peer: str, alone: bool, shared: Shared | None) -> None:
        """Add a flow with peer, a pod's name if it is one. shared, if other edges may have had it as well."""
        failed, first, last = flow.failed, flow.first, flow.last
        done = flow.count - failed if flow.count > failed else 0
        if shared:
            self.shared = self.shared or {}
            self.shared[shared] = self.shared.get(shared, 0) + done
        elif egress:
            self.sent += done
            self.sent_alone += done if alone else 0
        else:
            self.received += done
            self.received_alone += done if alone else 0
        if egress:
            self.refused_sent += failed
        else:
            self.refused_received += failed
        if first < self.first:
            self.first = first
        if last > self.last:
            self.last = last
        if done and last > self.last_done:
            self.last_done = last
        if flow.older:
            self.older = True
        if flow.names and egress:
            self.names = (self.names or set()) | set(filter(is_domain, flow.names))
        if peer:
            peers = self.targets if egress else self.sources
            if peers is not None:
                peers.add(peer)
            elif egress:
                self.targets = {peer}
            else:
                self.sources = {peer}

    def add_member(self, member: CrowdMember, egress: bool) -> None:
        """Add what was seen of one of many addresses outside."""
        if egress:
            self.sent += member.done
            self.refused_sent += member.failed
        else:
            self.received += member.done
            self.refused_received += member.failed
        self.first, self.last = min(self.first, member.first), max(self.last, member.last)
        self.last_done = max(self.last_done, member.last_done)
        self.older = self.older or member.older
        if member.names:
            self.names = (self.names or set()) | member.names

    def since(self, moment: int) -> Evidence:
        """The evidence since a moment: only failed attempts, if no connection came about since."""
        if self.last_done >= moment:
            return self
        return replace(self, sent=0, received=0, sent_alone=0, received_alone=0, shared=None)

    def add(self, other: Evidence) -> None:
        """Add what was seen elsewhere. What is shared counts in full at each edge."""
        self.sent += other.sent
        self.received += other.received
        self.sent_alone += other.sent_alone
        self.received_alone += other.received_alone
        if other.shared:
            self.shared = {**(self.shared or {}), **other.shared}
        self.refused_sent += other.refused_sent
        self.refused_received += other.refused_received
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.last_done = max(self.last_done, other.last_done)
        self.older |= other.older
        if other.sources:
            self.sources = (self.sources or set()) | other.sources
        if other.targets:
            self.targets = (self.targets or set()) | other.targets
        if other.names:
            self.names = (self.names or set()) | other.names


@dataclass(frozen=True, slots=True)
class ObservedConnection:
    """Connections between two ends, as check looks at them. own_node: one is a node, the other runs on it.

    source_pod and target_pod name one pod each, never the same one, or are empty for what is no pod. Behind a Service
    the labels of a target are those that all its replicas have.
    """

    source: FlowEnd
    target: FlowEnd
    protocol: str
    port: int
    evidence: Evidence
    own_node: bool

    @property
    def source_pod(self) -> str:
        """One of the pods that connected."""
        return _one_of(self.source, self.evidence.sources, "one")

    @property
    def target_pod(self) -> str:
        """One of the pods that were connected to."""
        others = (self.evidence.targets or set()) - {self.source_pod}
        return _one_of(self.target, others, "another")


class Observation:
    """Everything that the advice is made from. Flows are added up as they come; none is kept."""

    def __init__(self, context: FlowContext, flows: Iterable[Flow] = (), *, by_address: bool = False) -> None:
        """From the context of flows, and the flows in any order. UsageError if a flow's address is none.

        by_address: replicas are told apart, and the addresses of a pod too, as an ipBlock may do.
        """
        self.context = context
        self.cluster = Cluster(context, by_address=by_address)
        self._recorded = frozenset(context.header.nodes)
        self.edges: dict[Key, Evidence] = {}
        self._crowds: dict[tuple[FlowEnd, bool, str, int, int], FlowEnd] = {}
        #: What came to pods from their own nodes: kubelet's probes, and host-network pods.
        self.from_own_node: dict[Key, Evidence] = {}
        self.add(flows)

    def add(self, flows: Iterable[Flow]) -> None:
        """Add flows. ValueError if the address of one is none."""
        cluster = self.cluster
        local, peer, addresses, outside = cluster.local, cluster.peer, cluster.addresses, cluster.networks.outside
        locals_known: dict[object, tuple[FlowEnd, ...]] = {}
        by_address = cluster.by_address
        pending: list[tuple[Flow, tuple[FlowEnd, ...]]] = []
        for flow in flows:
            who = (flow.uid, flow.local, ":" in flow.peer) if by_address else flow.uid
            ends = locals_known.get(who)
            if ends is None:
                ends = local(flow)
                if cluster.is_hardly_known(flow):
                    cluster.learn(flow, ends)
                elif len(ends) == 1 and ends[0].workload:
                    locals_known[who] = ends  # of a node's, the address may be another the next time
            if flow.peer not in addresses and (number := outside(flow.peer)) is not None:
                self._join_crowd(number, flow, ends)
                continue
            reached = peer(flow)
            if len(reached) == 1 and reached[0].end.kind == "unknown":
                pending.append((flow, ends))  # its own flows may yet tell who had that address
            else:
                self._see(flow, ends, reached)
        cluster.apply_learned()
        for flow, ends in pending:
            self._see(flow, ends, peer(flow))
        self._settle()

    def _see(self, flow: Flow, ends: tuple[FlowEnd, ...], reached: tuple[Reached, ...]) -> None:
        egress = flow.direction == "egress"
        if egress and len(ends) == len(reached) == 1 and ends[0].kind != "node":  # nearly all
            found = [(self.edges, ends[0], reached[0])]
        else:
            found = [
                (edges, own, each)
                for own in ends
                for each in reached
                if own.kind != "node" or each.end.kind == "pod"  # no policy is about two nodes
                for edges in self._among(flow, own, each, egress)
            ]
        shared = (flow.direction, flow.node, ends, reached[0].service or reached) if len(found) > 1 else None
        for edges, own, (end, port, name, nodes, _) in found:
            source, target = (own, end) if egress else (end, own)
            key = (source, target, flow.protocol, port or flow.port)
            evidence = edges.get(key)
            if evidence is None:
                evidence = edges[source, target, intern(flow.protocol), key[3]] = Evidence()
            nodes = nodes or end.nodes
            evidence.see(flow, egress, name, bool(nodes) and nodes.isdisjoint(self._recorded), shared)

    def _among(self, flow: Flow, own: FlowEnd, reached: Reached, egress: bool) -> Iterator[dict[Key, Evidence]]:
        """Whether one of the two is the other's own node: of a Service's pods some may be on it, and others not."""
        if not egress:
            yield self.from_own_node if flow.node in reached.end.nodes else self.edges
            return
        within = own.kind == "node" and flow.node in reached.nodes
        if within:
            yield self.from_own_node
        if not within or len(reached.nodes) > 1:
            yield self.edges

    def _join_crowd(self, number: int, flow: Flow, ends: tuple[FlowEnd, ...]) -> None:
        """Note what was seen of an address outside; of nodes with such no policy is about it."""
        for own in ends:
            if own.kind != "node":
                version = 6 if ":" in flow.peer else 4
                key = (own, flow.direction == "egress", flow.protocol, flow.port, version)
                end = self._crowds.get(key)
                if end is None:
                    end = self._crowds[key] = FlowEnd("external", "", "", crowd=Crowd(version, key[1]))
                if end.crowd is not None:
                    end.crowd.add(number, flow)

    def _settle(self) -> None:
        """Make an end of each address outside, or one of all where they are very many."""
        for key, end in list(self._crowds.items()):
            own, egress, protocol, port, _ = key
            crowd = end.crowd
            if crowd is None or len(crowd) > MANY:
                end.name = f"{len(crowd or ()):,} addresses"
                edge = (own, end, protocol, port) if egress else (end, own, protocol, port)
                self.edges[edge] = of_crowd(end)
                continue
            del self._crowds[key]
            for member in crowd.members():
                single = self.cluster.outsider(crowd.spell(member.number), member.first, member.last)
                edge = (own, single, protocol, port) if egress else (single, own, protocol, port)
                self.edges.setdefault(edge, Evidence()).add_member(member, egress)

    def connections(self) -> list[ObservedConnection]:
        """All that was seen, in a fixed order."""
        pairs = ((self.edges, False), (self.from_own_node, True))
        found = [ObservedConnection(*key, evidence, own) for edges, own in pairs for key, evidence in edges.items()]
        # there may be very many ends, and each in very many connections
        ends = list({end for each in found for end in (each.source, each.target)})
        for part in reversed(_ORDER):  # one after the other needs no tuples
            ends.sort(key=part)
        rank = {end: number for number, end in enumerate(ends)}
        for by in ("own_node", "port", "protocol"):
            found.sort(key=attrgetter(by))
        found.sort(key=lambda each: rank[each.target])
        found.sort(key=lambda each: rank[each.source])
        return found

    def span_ns(self, since: int = 0) -> int:
        """How much of the time since a moment was recorded, in nanoseconds."""
        header = self.context.header
        return max(header.until_ns - max(header.from_ns, since), 0)

    def losses(self) -> Iterator[str]:
        """What is missing in the recording, a line each."""
        for lost in self.context.lost:
            yield f"{lost.count:,} flows lost on {lost.node}: {lost.reason}"
        yield from self.context.notes


def of_crowd(end: FlowEnd, since: int = 0) -> Evidence:
    """What was seen of all of very many addresses since a moment."""
    total = Evidence()
    if end.crowd:
        for member in end.crowd.members(since):
            total.add_member(member, end.crowd.egress)
    return total


def read_flows(path: Path, *, by_address: bool = False) -> Observation:
    """The observation in a flows file, by_address as there. UsageError with file and line if it is none."""
    file = FlowsFile(path)
    try:
        observation = Observation(file.context, by_address=by_address)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: an object in it is not as Kubernetes has it: {error!r}") from None
    observation.add(file.flows())
    return observation


def _one_of(end: FlowEnd, names: set[str] | None, which: str) -> str:
    if end.kind != "pod":
        return ""
    return min(names) if names else f"{which} of {end.name}"


def _labels(end: FlowEnd) -> list[tuple[str, str]]:
    return sorted(end.labels.items()) if end.labels else _UNLABELLED


_UNLABELLED: list[tuple[str, str]] = []
_ORDER: tuple[Callable[[FlowEnd], Any], ...] = (attrgetter("name"), attrgetter("kind"), attrgetter("address"), _labels)


def order(end: FlowEnd) -> tuple[Any, ...]:
    """What to sort ends by."""
    return tuple(part(end) for part in _ORDER)
