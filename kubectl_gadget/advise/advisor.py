"""Makes policies from what was seen. Each workload gets one, which allows what was seen and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from gadget.errors import UsageError
from kubectl_gadget.advise.check import check
from kubectl_gadget.advise.cluster import FlowEnd
from kubectl_gadget.advise.compile import compile_policy
from kubectl_gadget.advise.dialects import by_name
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.flows import PORTLESS
from kubectl_gadget.advise.judge import denied_of, namespaces_of, spans
from kubectl_gadget.advise.networks import is_private, is_special, parse, single
from kubectl_gadget.advise.nodes import NodePeers
from kubectl_gadget.advise.observation import Evidence, Observation
from kubectl_gadget.advise.outside import Outside
from kubectl_gadget.advise.policy import EGRESS, INGRESS, MANAGED_BY, Advice, Peer, Policy, PolicyRule, Port
from kubectl_gadget.advise.ranges import given_out, with_ranges
from kubectl_gadget.advise.remarks import Remarks, summarize
from kubectl_gadget.advise.services import DNS_PORT
from kubectl_gadget.advise.talks import Actor, Settings, Talks, WorkloadChoice, add_up
from kubectl_gadget.advise.workloads import Workload, find_overlaps

SHARED = "in a network that pods share with nodes: if a pod had it that is gone, its rule lets in whoever gets it next"
MAYBE_SERVICE = "not all Services are known: if it is the address of one, its rule does nothing"
#: What the API server takes as an object's name.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST_NAME = 253


def advise(observation: Observation, settings: Settings | None = None) -> Advice:
    """The policies for what was observed. UsageError if settings make no sense.

    A policy closes a direction in two cases: its own pods were seen to use it, or another policy whose selector also
    finds these pods closes it. In a closed direction it opens whatever the agent of either end saw, so that neither end
    closes what the other one's agent has seen.
    """
    return _Advisor(observation, settings or Settings()).advise()


class _Draft:
    """The rules of one workload in the making: by direction, by peer, by port."""

    def __init__(self) -> None:
        self.peers: dict[str, dict[object, Peer]] = {INGRESS: {}, EGRESS: {}}
        self.closed: set[str] = set()  # closed directions; at first those in which the workload's own agents saw it


class _Advisor:
    def __init__(self, observation: Observation, settings: Settings) -> None:
        self._observation = observation
        self._settings = settings
        self._choice = WorkloadChoice(settings)
        self._networks = observation.cluster.networks
        self._dns = observation.cluster.dns_ports()
        self._drafts: dict[Workload, _Draft] = {}
        #: For workloads that no selector finds.
        self._loose: dict[Workload, _Draft] = {}
        self._peers: set[Workload] = set()
        self._nodes = NodePeers(observation.cluster)
        #: By what was connected to: addresses of its pods' own nodes, ports, protocols.
        self._from_own_node: dict[Workload, set[tuple[str, int, str]]] = {}
        for (source, target, protocol, port), evidence in observation.from_own_node.items():
            if target.workload and evidence.last_done >= max(settings.since, 1):
                self._from_own_node.setdefault(target.workload, set()).add((source.address, port, protocol))
        self._remarks = Remarks(observation, settings)
        self._outside = Outside(self._networks, settings, self._remarks)

    def advise(self) -> Advice:
        talks = add_up(self._observation, self._settings)
        self._ranges = self._given_out(talks)
        for (source, target, protocol, port), evidence in talks.items():
            if self._choice.has(source):
                self._look(source, EGRESS, target, Port(port, protocol), evidence)
            # a connection that makes a rule at neither end is reported once
            silent = protocol in PORTLESS or not (evidence.count or self._settings.failed)
            if self._choice.has(target) and not (silent and self._choice.has(source)):
                self._look(target, INGRESS, source, Port(port, protocol), evidence)
        self._remarks.add_general(self._choice)
        overlaps = find_overlaps(self._observation.cluster.workloads.all, {*self._drafts, *self._peers})
        self._remarks.add_labels({*self._drafts, *self._peers})
        self._remarks.add_overlaps(overlaps, self._drafts, self._choice)
        self._close(overlaps)
        # all have a say, so that a policy's name is the same whoever is asked for
        every = {**dict.fromkeys(self._observation.cluster.workloads.all), **dict.fromkeys(self._drafts)}
        names = _policy_names(every, self._settings.name_prefix)
        policies = tuple(self._policies(names))
        self._remarks.name_policies({policy.key for policy in policies}, names)
        evaluator = self._judge(policies)
        if self._settings.dialect == "kubernetes":
            self._look_for_others(policies)
        summary = summarize(self._observation, talks, self._choice, self._settings.since)
        seen = spans(evaluator.policies, self._observation, self._settings)
        return Advice(policies, self._remarks.warnings, self._remarks.notes, summary, seen)

    def _given_out(self, talks: Talks) -> dict[object, tuple[Port, ...]]:
        """The ranges of ports of each workload of which some has, whoever is asked for."""
        ports: dict[object, set[Port]] = {}
        for (_, target, protocol, port), evidence in talks.items():
            took_place = evidence.count or self._settings.failed
            if isinstance(target, Workload) and target.selector is not None and took_place:
                ports.setdefault(_key(target), set()).add(Port(port, protocol))
        return {key: ranges for key, own in ports.items() if (ranges := given_out(own))}

    def _judge(self, policies: Iterable[Policy]) -> Evaluator:
        """Look at the advice as check does, so that no one applies what denies something without having been told."""
        taken = []
        for policy in policies:
            try:
                compile_policy(policy.to_dict())
                taken.append(policy.to_dict())
            except UsageError as error:
                self._remarks.refused(policy, str(error))
        evaluator = Evaluator(taken, namespaces_of(self._observation))
        denied = denied_of(self._observation, self._settings, evaluator)
        self._remarks.denied(check(evaluator, denied, ()).denied)
        return evaluator

    def _look_for_others(self, policies: Iterable[Policy]) -> None:
        """Warn of policies that are there, have the same name and were not made here: applying would overwrite them."""
        key, value = MANAGED_BY
        there = (item["metadata"] for item in self._observation.context.objects if item["kind"] == "NetworkPolicy")
        others = {
            (item.get("namespace"), item["name"]) for item in there if (item.get("labels") or {}).get(key) != value
        }
        for policy in policies:
            if policy.key in others:
                self._remarks.taken(policy)

    def _look(self, workload: Actor, direction: str, other: Actor, port: Port, evidence: Evidence) -> None:
        """Make a rule from what was seen at one end, or say why not."""
        assert isinstance(workload, Workload)
        if port.protocol in PORTLESS:
            self._remarks.portless(workload, direction, other, port.protocol)
            return
        if not evidence.count and not self._settings.failed:
            self._remarks.failed(workload, direction, other, port, evidence)
            return
        if workload.selector is None:
            self._remarks.no_labels(workload)
        if not port.port:
            self._remarks.no_port(workload, direction, other, port)
            return
        crowd = other.crowd if isinstance(other, FlowEnd) else None
        peer = None if crowd else self._peer(workload, other)
        if not (crowd or peer):
            if workload.selector is not None:
                self._remarks.not_covered(workload, direction, other, port)
            return
        draft = (self._loose if workload.selector is None else self._drafts).setdefault(workload, _Draft())
        if crowd:
            for made, seen in self._outside.of_crowd(workload, direction, crowd, port):
                _add_peer(draft.peers[direction], made.cidr, made, port, seen, [port])
        if peer:
            dns = self._of_dns(port, workload if direction == INGRESS else other)
            ports = dns or [port]
            if direction == EGRESS:
                peer[1].domains |= evidence.names or set()
                peer[1].answers |= {*dns} or ({port} if port.port == DNS_PORT and port.protocol != "SCTP" else set())
            _add_peer(draft.peers[direction], *peer, port, evidence, ports)
            if isinstance(other, FlowEnd) and other.kind == "external" and workload.selector is not None:
                self._doubt(workload, direction, other, port)
            if direction == INGRESS and isinstance(other, FlowEnd):
                self._add_alike(workload, other, port, draft.peers[INGRESS], ports)
        refused = self._settings.failed
        own = evidence.sent_in_all + evidence.refused_sent * refused
        if direction == INGRESS:
            own = evidence.received_in_all + evidence.refused_received * refused
        if own:
            draft.closed.add(direction)
        if evidence.older:
            self._remarks.older(workload)

    def _add_alike(
        self, workload: Workload, other: FlowEnd, port: Port, peers: dict[object, Peer], ports: Iterable[Port]
    ) -> None:
        """Allow the other nodes or API servers too where the next connection may come from one of them."""
        for address in self._nodes.alike(other.address, workload, port):
            end = self._observation.cluster.outsider(address, 0, -1)
            if peer := self._peer(workload, end):
                _add_peer(peers, *peer, port, Evidence(), ports)

    def _peer(self, workload: Workload, other: Actor) -> tuple[object, Peer] | None:
        """The peer of a rule, and what selects it; None if a policy cannot name it."""
        if isinstance(other, Workload):
            if other.selector is None:
                return None
            self._peers.add(other)
            name = other.name if other.namespace == workload.namespace else str(other)
            return _key(other), Peer({name}, other.namespace, other.selector)
        if other.kind == "node":
            cidr = single(other.address)
            return cidr, Peer({other.name}, cidr=cidr, is_node=True)
        if other.kind == "external":
            cidr = single(other.address)
            bits = self._settings.cidr_group
            if bits and not is_special(other.address):
                cidr = self._networks.group(parse(other.address), bits)
            return cidr, Peer({other.name}, cidr=cidr)
        return None

    def _doubt(self, workload: Workload, direction: str, other: FlowEnd, port: Port) -> None:
        """Warn that an address that is taken for one outside the cluster may be something else."""
        address = parse(other.address)
        if is_special(other.address):
            return
        if self._networks.is_shared(address):
            self._remarks.doubtful(workload, direction, other, port, SHARED)
        elif direction == EGRESS and not self._observation.cluster.knows_services and is_private(address):
            self._remarks.doubtful(workload, direction, other, port, MAYBE_SERVICE)

    def _of_dns(self, port: Port, target: Actor) -> Sequence[Port]:
        """If a port is one of DNS, both its UDP and its TCP port, because long answers come by TCP."""
        pairs = self._dns.get(target) if isinstance(target, Workload) else None
        if pairs and (port.protocol, port.port) in pairs:
            return [Port(number, protocol) for protocol, number in pairs]
        # at a cloud's link-local address too, but not at any other outside
        near = isinstance(target, FlowEnd) and (
            target.kind == "node" or (target.kind == "external" and is_special(target.address))
        )
        if near and port.port == DNS_PORT and port.protocol != "SCTP":
            return [Port(DNS_PORT, "TCP"), Port(DNS_PORT, "UDP")]
        return []

    def _close(self, overlaps: Mapping[Workload, list[Workload]]) -> None:
        """Close for each workload the directions that others' policies close for its pods.

        Only the workload's own rules can open them again. The rules of a workload that gets no policy of its own go
        into these policies.
        """
        for draft in self._drafts.values():
            if draft.closed and self._settings.default_deny:
                draft.closed |= {INGRESS, EGRESS}
        pending = list(self._drafts)
        while pending:
            workload = pending.pop()
            draft = self._drafts[workload]
            for other in overlaps.get(workload, ()):
                if found := self._drafts.get(other):
                    more = {each for each in draft.closed - found.closed if found.peers[each]}
                    if more:
                        found.closed |= more
                        pending.append(other)
        for workload, others in overlaps.items():
            lent = [self._loose[other] for other in others if other in self._loose]
            for direction in self._drafts[workload].closed if lent and workload in self._drafts else ():
                for each in lent:
                    _lend(each.peers[direction], self._drafts[workload].peers[direction])

    def _policies(self, names: Mapping[Workload, str]) -> Iterator[Policy]:
        for workload, draft in sorted(self._drafts.items(), key=lambda item: (item[0].namespace, names[item[0]])):
            types = tuple(each for each in (INGRESS, EGRESS) if each in draft.closed)
            if types and workload.selector is not None:
                rules = {
                    each: tuple(_rules(self._shorter(workload, each, draft.peers[each].values()), workload.namespace))
                    for each in types
                }
                for each in types:
                    self._note_nodes(workload, each, draft.peers[each].values())
                if INGRESS in types:
                    self._note_own_node(workload, draft.peers[INGRESS].values())
                if EGRESS in types and not by_name(self._settings.dialect, draft.peers[EGRESS].values()):
                    self._note_rotating(workload, draft.peers[EGRESS].values())
                yield Policy(workload.namespace, names[workload], str(workload), workload.selector, types, rules)

    def _shorter(self, workload: Workload, direction: str, peers: Iterable[Peer]) -> Iterator[Peer]:
        """The same peers, but ranges in place of many ports, and larger networks in place of many addresses."""
        own = _key(workload)

        def ranges(peer: Peer) -> tuple[Port, ...]:
            server = own if direction == INGRESS else (peer.namespace, repr(peer.selector))
            return self._ranges.get(server, ())

        ranged, widened = with_ranges(peers, ranges)
        for port in widened:
            self._remarks.ranged(workload, direction, port)
        return self._outside.fewer(workload, direction, ranged)

    def _note_rotating(self, workload: Workload, peers: Iterable[Peer]) -> None:
        """Warn of names that had several addresses, where rules are about addresses."""
        count = Counter(domain for peer in peers if peer.cidr for domain in peer.domains)
        for domain in sorted(domain for domain, number in count.items() if number > 1):
            self._remarks.rotating(workload, domain)

    def _note_nodes(self, workload: Workload, direction: str, peers: Collection[Peer]) -> None:
        for port in {port for peer in peers for port in peer.ports}:
            if some := self._nodes.some_of(peer for peer in peers if port in peer.ports):
                self._remarks.some_nodes(workload, direction, port, *some)
        if self._settings.dialect != "cilium" and self._nodes.are_named(peers):
            self._remarks.nodes_by_address(workload)

    def _note_own_node(self, workload: Workload, peers: Collection[Peer]) -> None:
        """Tell what came from the pods' own nodes alone, which needs no rule there, and will have none elsewhere."""
        admitted = {port for peer in peers if peer.is_node for port in peer.ports}
        for source, number, protocol in self._from_own_node.get(workload, ()):
            port = Port(number, protocol)
            if port not in admitted and (why := self._nodes.through(source, workload, port)):
                self._remarks.own_node_only(workload, port, why)


def _key(workload: Workload) -> object:
    """What its pods are found by."""
    return workload.namespace, repr(workload.selector)


def _add_peer(
    peers: dict[object, Peer], key: object, made: Peer, port: Port, evidence: Evidence, ports: Iterable[Port]
) -> None:
    """Add what was seen of a peer at one of the ports that are opened for it."""
    peer = peers.setdefault(key, made)
    peer.merge(made)
    for each in ports:
        peer.ports.setdefault(each, Evidence())
    peer.ports[port].add(evidence)


def _lend(own: Mapping[object, Peer], others: dict[object, Peer]) -> None:
    for key, peer in own.items():
        found = others.setdefault(key, replace(peer, names=set(), ports={}))
        found.merge(peer)
        for port, evidence in peer.ports.items():
            found.ports.setdefault(port, Evidence()).add(evidence)


def _rules(peers: Iterable[Peer], namespace: str) -> Iterator[PolicyRule]:
    """One rule for all peers with the same ports."""
    by_ports: dict[tuple[Port, ...], list[Peer]] = {}
    for peer in sorted(peers, key=lambda peer: peer.order(namespace)):
        by_ports.setdefault(tuple(sorted(peer.ports)), []).append(peer)
    for ports, alike in by_ports.items():
        yield PolicyRule(tuple(alike), ports)


def _policy_names(workloads: Iterable[Workload], prefix: str) -> dict[Workload, str]:
    """A name for each workload's policy: the workload's name, with its kind if two would have the same."""
    every = list(workloads)
    count = Counter((each.namespace, each.name) for each in every)
    names = {}
    for each in every:
        name = each.name if count[each.namespace, each.name] == 1 else f"{each.name}-{each.kind.lower()}"
        fits = _NAME.fullmatch(name) and len(prefix + name) <= _LONGEST_NAME
        names[each] = name if fits else re.sub(r"[^-a-z0-9.]+", "-", name.lower()).strip("-.")[:200].rstrip("-.")
    again = Counter((each.namespace, names[each]) for each in every)
    for each in every:
        if again[each.namespace, names[each]] > 1 or not names[each]:
            what = repr((each.kind, each.name, each.selector))
            names[each] = f"{names[each] or 'workload'}-{sha256(what.encode()).hexdigest()[:6]}"
    return {each: f"{prefix}{name}" for each, name in names.items()}
