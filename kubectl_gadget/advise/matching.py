"""The parts of a NetworkPolicy, and what each matches, from the API's own description (k8s.io/api/networking/v1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Literal

from gadget.selector import Requirement

Direction = Literal["ingress", "egress"]
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")

#: IP version and number: an address is between two others only if all are of one version.
Address = tuple[int, int]

NAMESPACE_NAME = "kubernetes.io/metadata.name"  # a label that every namespace has, with its name


@dataclass(frozen=True, eq=False)  # compared by identity, as it is the key of tables about it
class SelectedPod:
    """What selectors see of a pod."""

    namespace: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str]


@dataclass(frozen=True)
class Selector:
    """A LabelSelector: all requirements must hold; none selects everything."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(_describe_requirement, self.requirements))


@dataclass(frozen=True)
class PodPeer:
    """Pods that a rule admits: of its policy's own namespace if namespaces is None."""

    own_namespace: str
    namespaces: Selector | None
    pods: Selector

    def matches(self, pod: SelectedPod) -> bool:
        """Whether pod is one of these."""
        if self.namespaces is None:
            return pod.namespace == self.own_namespace and self.pods.matches(pod.labels)
        return self.namespaces.matches(pod.namespace_labels) and self.pods.matches(pod.labels)

    def __str__(self) -> str:
        pods = str(self.pods) or "all pods"
        if self.namespaces is None:
            return pods
        named = [item for item in self.namespaces.requirements if item.key == NAMESPACE_NAME and item.values]
        if len(named) == len(self.namespaces.requirements) == 1 and not named[0].negated:
            return f"{pods} in {', '.join(sorted(named[0].values or ()))}"
        return f"{pods} in {f'namespaces {self.namespaces}' if self.namespaces.requirements else 'all namespaces'}"


@dataclass(frozen=True)
class BlockPeer:
    """Addresses that a rule admits. First and last of each network; text as the policy has it."""

    first: Address
    last: Address
    excepted: tuple[tuple[Address, Address], ...]
    text: str

    def matches(self, address: Address) -> bool:
        """Whether address is in the block. Pods' too: the API advises against blocks for them, but says no more.

        Which address a rewriting node or load balancer shows to policies is left open; here it is the flow's own.
        """
        if not self.first <= address <= self.last:
            return False
        return not any(first <= address <= last for first, last in self.excepted)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Ports:
    """One entry of ports: first to last, a name if it is not empty, or all ports of the protocol (0 to 65535)."""

    protocol: str
    first: int = 0
    last: int = 65535
    name: str = ""

    def __str__(self) -> str:
        if self.name or self.first == self.last:
            return f"{self.name or self.first}/{self.protocol}"
        return self.protocol if self.first == 0 else f"{self.first}-{self.last}/{self.protocol}"


@dataclass(frozen=True, eq=False)
class CompiledRule:
    """One rule of a policy, the index-th of its direction from 0. No peers admit everyone, no ports all ports.

    It is effective if its direction is among the policyTypes.
    """

    namespace: str
    policy: str
    direction: Direction
    index: int
    peers: tuple[PodPeer | BlockPeer, ...]
    ports: tuple[Ports, ...]
    effective: bool

    @cached_property
    def text(self) -> str:
        """The peers and ports that it admits, such as "from app=web on 8080/TCP"."""
        way = "from" if self.direction == "ingress" else "to"
        text = f"{way} {_some(self.peers) or 'everyone'}"
        return f"{text} on {_some(self.ports)}" if self.ports else text

    def __str__(self) -> str:
        return f"{self.policy} {self.direction} rule {self.index + 1} ({self.text})"


@dataclass(frozen=True, eq=False)
class CompiledPolicy:
    """A policy: the pods it selects, in which directions it isolates them, its rules by direction."""

    namespace: str
    name: str
    pods: Selector
    isolates: frozenset[Direction]
    rules: Mapping[Direction, tuple[CompiledRule, ...]]


def _some(items: Sequence[object], most: int = 3) -> str:
    shown = ", ".join(map(str, items[:most]))
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown


def _describe_requirement(requirement: Requirement) -> str:
    key, values, negated = requirement.key, requirement.values, requirement.negated
    if values is None:
        return f"!{key}" if negated else key
    if len(values) == 1:
        return f"{key}{'!=' if negated else '='}{next(iter(values))}"
    return f"{key} {'not ' * negated}in ({','.join(sorted(values))})"


@lru_cache(8192)
def parse_address(text: str) -> Address | None:
    """An IPv4 or IPv6 address, ::ffff:a.b.c.d as IPv4, zones ignored. None if it is empty; ValueError if it is none."""
    if not text:
        return None
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address.version, int(address)
