"""A NetworkPolicy as the advice makes it, before it is written in one form or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, NamedTuple

from kubectl_gadget.advise.labels import Selector
from kubectl_gadget.advise.observation import Evidence

#: The label that the API server puts on each namespace, with its name.
NAMESPACE_NAME = "kubernetes.io/metadata.name"
INGRESS, EGRESS = "Ingress", "Egress"
#: By which our policies are found, pruned, and told from those that a person or a chart wrote.
MANAGED_BY = ("app.kubernetes.io/managed-by", "kubectl-gadget")


class Port(NamedTuple):
    """A port that pods listen on; with an end all from it to there."""

    port: int
    protocol: str
    end: int = 0

    def __str__(self) -> str:
        return f"{self.port}-{self.end}/{self.protocol}" if self.end else f"{self.port}/{self.protocol}"

    def to_dict(self) -> dict[str, Any]:
        """A NetworkPolicyPort."""
        return {"port": self.port, **({"endPort": self.end} if self.end else {}), "protocol": self.protocol}


@dataclass
class Peer:
    """Who a rule is about: pods of a namespace, or a network. names are for people; is_node: a node has the address.

    unnamed: how many addresses of a network were seen, where they are too many to name. excepted: networks within the
    network that the rule is not about. domains: for which names the workload got the address. answers: the ports at
    which it answers for DNS.
    """

    names: set[str]
    namespace: str = ""
    selector: Selector | None = None
    cidr: str = ""
    is_node: bool = False
    unnamed: int = 0
    excepted: tuple[str, ...] = ()
    domains: set[str] = field(default_factory=set)
    answers: set[Port] = field(default_factory=set)
    ports: dict[Port, Evidence] = field(default_factory=dict)

    @property
    def evidence(self) -> Evidence:
        """What was seen, at all ports together."""
        total = Evidence()
        for each in self.ports.values():
            total.add(each)
        return total

    def merge(self, other: Peer) -> None:
        """Merge another peer for the same pods or network, except its ports."""
        self.names |= other.names
        self.is_node = self.is_node or other.is_node
        self.unnamed = max(self.unnamed, other.unnamed)
        self.domains |= other.domains
        self.answers |= other.answers

    def order(self, namespace: str) -> tuple[object, ...]:
        """A sort key: own pods first, then pods of other namespaces, nodes, networks."""
        if self.selector is not None:
            return (self.namespace != namespace, self.namespace, sorted(self.names), repr(self.selector))
        network = ip_network(self.cidr)
        return (2 if self.is_node else 3, network.version, int(network.network_address), network.prefixlen)

    def to_dict(self, namespace: str) -> dict[str, Any]:
        """A NetworkPolicyPeer for a policy of namespace."""
        if self.selector is None:
            return {"ipBlock": {"cidr": self.cidr, **({"except": [*self.excepted]} if self.excepted else {})}}
        pods: dict[str, Any] = {"podSelector": self.selector}
        if self.namespace != namespace:
            return {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: self.namespace}}, **pods}
        return pods


@dataclass(frozen=True)
class PolicyRule:
    """Peers, and the ports that all of them use."""

    peers: tuple[Peer, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class Policy:
    """One workload's policy. types are the directions that it closes, rules what is open of them."""

    namespace: str
    name: str
    workload: str
    selector: Selector
    types: tuple[str, ...]
    rules: Mapping[str, tuple[PolicyRule, ...]]

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def metadata(self) -> dict[str, Any]:
        """The same in each form."""
        key, value = MANAGED_BY
        return {"name": self.name, "namespace": self.namespace, "labels": {key: value}}

    def to_dict(self) -> dict[str, Any]:
        """The object, as it is applied."""
        spec: dict[str, Any] = {"podSelector": self.selector, "policyTypes": list(self.types)}
        for direction, key, peers in ((INGRESS, "ingress", "from"), (EGRESS, "egress", "to")):
            if rules := self.rules.get(direction):
                spec[key] = [
                    {
                        peers: [peer.to_dict(self.namespace) for peer in rule.peers],
                        "ports": [port.to_dict() for port in rule.ports],
                    }
                    for rule in rules
                ]
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self.metadata,
            "spec": spec,
        }


class Remark(NamedTuple):
    """Something to tell beside the policies. namespace and policy are empty where it is about all of them.

    passing: it is about the recording, and another one of the same traffic may not have it.
    """

    text: str
    namespace: str = ""
    policy: str = ""
    passing: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name of the policy that it is about."""
        return self.namespace, self.policy


@dataclass(frozen=True)
class Advice:
    """Policies, and what they do not say: warnings are about what may break or stay open, notes about the rest.

    spans: for how long there was something to see of all pods of a policy, in ns.
    """

    policies: tuple[Policy, ...]
    warnings: tuple[Remark, ...]
    notes: tuple[Remark, ...]
    summary: str
    spans: Mapping[tuple[str, str], int]
