"""What given NetworkPolicies do to a flow, by the specification and nothing else: allowed or denied, and by what.

Sources: the comments of k8s.io/api/networking/v1 and the concept page "Network Policies". Policies decide about
connections, replies included; both ends must allow one. Where the specification leaves something open:

- Pods with hostNetwork: "undefined"; here the more common of the two behaviours that the concept page describes, they
  are as their node. No policy selects them and no selector admits them; an ipBlock with the node's address does.
- A pod and its own node: the API names only traffic from the node, the concept page traffic "to and from" it. Plugins
  let in what comes from the node; what goes to it they judge like all else (Calico and kube-router in the INPUT chain,
  Cilium as entity host). So it is here. The rules that match what comes from the node are reported nevertheless.
- ipBlock and pods: by the flow's address, see BlockPeer.
- Named ports: resolved on the target pod, for egress too. A target that is no pod has none, so that no name matches.
- Protocols besides TCP, UDP and SCTP: "not defined", so that there is no verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from gadget.errors import UsageError
from kubectl_gadget.advise.compile import PROTOCOLS, compile_policy
from kubectl_gadget.advise.matching import (
    DIRECTIONS,
    NAMESPACE_NAME,
    BlockPeer,
    CompiledPolicy,
    CompiledRule,
    Direction,
    SelectedPod,
    parse_address,
)
from kubectl_gadget.advise.union import OPEN, EndVerdict, Union


@dataclass(frozen=True, slots=True)
class PolicyEnd:
    """One end of a flow: a pod, or with an address alone a node or someone outside.

    pod is the name that tells a pod from its replicas; named_ports its ports by protocol and name. is_own_node is true
    of a source: the node (kubelet, host-network pods) on which the target runs.
    """

    address: str = ""
    namespace: str = ""
    pod: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    named_ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    host_network: bool = False
    is_own_node: bool = False


@dataclass(frozen=True)
class Verdict:
    """What becomes of a flow: egress at its source, ingress at its target."""

    egress: EndVerdict
    ingress: EndVerdict

    @property
    def allowed(self) -> bool:
        """Whether both ends allow it."""
        return self.egress.allowed and self.ingress.allowed

    @property
    def rules(self) -> tuple[CompiledRule, ...]:
        """The rules of either end that match it."""
        return self.egress.rules + self.ingress.rules

    @property
    def deciders(self) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """The namespace and name of the policies that allow it, or that deny it, at each end."""
        return _deciders(self.egress, allowed=self.allowed), _deciders(self.ingress, allowed=self.allowed)

    @property
    def reason(self) -> str:
        """Why it is denied, by the ends that deny it; or why it is allowed, by the ends that are isolated."""
        sides = (self.egress, self.ingress)
        telling = [side for side in sides if not side.allowed] or [side for side in sides if side.isolated]
        return "; ".join(dict.fromkeys(side.reason for side in telling)) or OPEN.reason


class Evaluator:
    """Decides about flows under a set of policies. What selectors match is found once, and kept."""

    def __init__(self, policies: Iterable[Mapping[str, Any]], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        """Policies as the API serves them, and the labels of namespaces. UsageError if a policy is not valid."""
        compiled = sorted(map(compile_policy, policies), key=lambda policy: (policy.namespace, policy.name))
        for policy, following in pairwise(compiled):
            if (policy.namespace, policy.name) == (following.namespace, following.name):
                raise UsageError(f"policy {policy.namespace}/{policy.name}: is there twice")
        self._policies: dict[str, list[CompiledPolicy]] = {}
        for policy in compiled:
            self._policies.setdefault(policy.namespace, []).append(policy)
        self._namespaces = namespaces
        self._pods: dict[tuple[str, frozenset[tuple[str, str]]], SelectedPod] = {}
        self._unions: dict[tuple[Direction, tuple[CompiledPolicy, ...]], Union] = {}
        self._isolating: dict[tuple[Direction, SelectedPod], Union | None] = {}

    @property
    def policies(self) -> list[CompiledPolicy]:
        """All policies, by namespace and name."""
        return [policy for name in self._policies for policy in self._policies[name]]

    @property
    def looks_at_addresses(self) -> bool:
        """Whether an ipBlock may tell one pod from its replicas."""
        rules = (rule for policy in self.policies for rules in policy.rules.values() for rule in rules)
        return any(isinstance(peer, BlockPeer) for rule in rules for peer in rule.peers)

    def allows(self, source: PolicyEnd, target: PolicyEnd, protocol: str, port: int) -> bool:
        """Whether decide() would allow a flow to a port of target."""
        return self.decide(source, target, protocol, port).allowed

    def decide(self, source: PolicyEnd, target: PolicyEnd, protocol: str, port: int) -> Verdict:
        """What becomes of a flow to a port of target. ValueError for an address or protocol that policies know not."""
        if protocol not in PROTOCOLS:
            raise ValueError(f"policies know no protocol {protocol}")
        sender, receiver = self._pod(source), self._pod(target)
        sent_from, sent_to = parse_address(source.address), parse_address(target.address)
        egress = ingress = OPEN
        if sender and (union := self._union("egress", sender)):
            named = target.named_ports if receiver else {}
            egress = union.decide(receiver, sent_to, protocol, port, named)
        if receiver and (union := self._union("ingress", receiver)):
            ingress = union.decide(sender, sent_from, protocol, port, target.named_ports)
        if sender and receiver and _is_itself(source, target):
            egress, ingress = (_exempt(side, "a pod always reaches itself") for side in (egress, ingress))
        elif source.is_own_node:
            ingress = _exempt(ingress, "a node always reaches its own pods")
        return Verdict(egress, ingress)

    def unused(self, used: Collection[CompiledRule]) -> list[CompiledRule]:
        """All rules but those that verdicts named, by policy, direction and index.

        A rule that matches a flow is used even though the flow's other end may deny it.
        """
        rules = (rule for policy in self.policies for direction in DIRECTIONS for rule in policy.rules[direction])
        return [rule for rule in rules if rule not in used]

    def _pod(self, end: PolicyEnd) -> SelectedPod | None:
        if not end.namespace or end.host_network:
            return None
        key = (end.namespace, frozenset(end.labels.items()))
        pod = self._pods.get(key)
        if pod is None:
            labels = {NAMESPACE_NAME: end.namespace, **self._namespaces.get(end.namespace, {})}
            pod = self._pods[key] = SelectedPod(end.namespace, dict(end.labels), labels)
        return pod

    def _union(self, direction: Direction, pod: SelectedPod) -> Union | None:
        """The policies that isolate pod, None if there are none. Those of many pods are often the same."""
        if (direction, pod) not in self._isolating:
            policies = tuple(
                policy
                for policy in self._policies.get(pod.namespace, ())
                if direction in policy.isolates and policy.pods.matches(pod.labels)
            )
            if policies and (direction, policies) not in self._unions:
                self._unions[direction, policies] = Union(direction, policies)
            self._isolating[direction, pod] = self._unions.get((direction, policies))
        return self._isolating[direction, pod]


def _deciders(side: EndVerdict, *, allowed: bool) -> tuple[tuple[str, str], ...]:
    if allowed:
        return tuple(dict.fromkeys((rule.namespace, rule.policy) for rule in side.rules))
    return () if side.allowed else tuple((policy.namespace, policy.name) for policy in side.policies)


def _is_itself(source: PolicyEnd, target: PolicyEnd) -> bool:
    """Whether two ends are the same pod: by name, or by address where a name is not known."""
    if source.pod and target.pod:
        return (source.namespace, source.pod) == (target.namespace, target.pod)
    return source.address != "" and parse_address(source.address) == parse_address(target.address)


def _exempt(side: EndVerdict, reason: str) -> EndVerdict:
    """The verdict of an end to which no policy applies."""
    return replace(side, allowed=True, reason=reason)
