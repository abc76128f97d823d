"""What policies that select the same pods admit together: "they are additive", so their rules are one set.

Sets of rules are integers here, with the bit of a rule set if it is a member. What a pod, an address and a port each
admit is found once, and a flow is their intersection: many flows have few pods and ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kubectl_gadget.advise.matching import (
    Address,
    BlockPeer,
    CompiledPolicy,
    CompiledRule,
    Direction,
    PodPeer,
    SelectedPod,
)

#: A pod's ports, by protocol and name.
NamedPorts = Mapping[tuple[str, str], int]

_Condition = TypeVar("_Condition")
#: Addresses of which is remembered what admits them; there may be very many that come once.
MOST_REMEMBERED = 4096


@dataclass(frozen=True)
class EndVerdict:
    """What the policies at one end say: which isolate it, the rules that match the flow, and why all that."""

    allowed: bool
    rules: tuple[CompiledRule, ...]
    reason: str
    policies: tuple[CompiledPolicy, ...] = ()

    @property
    def isolated(self) -> bool:
        """Whether a policy isolates it."""
        return bool(self.policies)


OPEN = EndVerdict(allowed=True, rules=(), reason="no policy isolates it")


class Union:
    """The rules of one direction of policies that all isolate a pod."""

    def __init__(self, direction: Direction, policies: Sequence[CompiledPolicy]) -> None:
        """Policies in the order in which they shall be named."""
        self._direction = direction
        self._policies = tuple(policies)
        self._rules = [rule for policy in policies for rule in policy.rules[direction]]
        self._anyone = _where(not rule.peers for rule in self._rules)
        self._any_port = _where(not rule.ports for rule in self._rules)
        peers = _by_condition([rule.peers for rule in self._rules])
        self._pod_peers = {peer: rules for peer, rules in peers.items() if isinstance(peer, PodPeer)}
        self._blocks = {peer: rules for peer, rules in peers.items() if isinstance(peer, BlockPeer)}
        ports = _by_condition([rule.ports for rule in self._rules])
        self._ports = {port: rules for port, rules in ports.items() if not port.name}
        self._named = {port: rules for port, rules in ports.items() if port.name}
        self._of_pods: dict[SelectedPod | None, int] = {
            None: 0
        }  # nobody without labels is selected, by an empty selector too
        self._of_addresses: dict[Address | None, int] = {None: 0}
        self._of_ports: dict[tuple[str, int], int] = {}
        self._allowed: dict[int, EndVerdict] = {}
        self._denied: dict[tuple[bool, bool, str, int], EndVerdict] = {}

    def decide(
        self, pod: SelectedPod | None, address: Address | None, protocol: str, port: int, named: NamedPorts
    ) -> EndVerdict:
        """What becomes of a flow, with a pod or address at the other end, to a port of the target, whose are named."""
        admitting = self._anyone | self._admitting_pod(pod) | self._admitting_address(address)
        opening = self._any_port | self._opening(protocol, port, named)
        if matching := admitting & opening:
            if matching not in self._allowed:
                rules = tuple(self._members(matching))
                self._allowed[matching] = EndVerdict(True, rules, str(rules[0]), self._policies)
            return self._allowed[matching]
        key = (admitting != 0, opening != 0, protocol, port)
        if key not in self._denied:
            self._denied[key] = EndVerdict(False, (), self._denial(*key), self._policies)
        return self._denied[key]

    def _admitting_pod(self, pod: SelectedPod | None) -> int:
        found = self._of_pods.get(pod)
        if found is None:
            assert pod
            found = self._of_pods[pod] = _join(rules for peer, rules in self._pod_peers.items() if peer.matches(pod))
        return found

    def _admitting_address(self, address: Address | None) -> int:
        found = self._of_addresses.get(address)
        if found is None:
            assert address
            found = _join(rules for block, rules in self._blocks.items() if block.matches(address))
            if len(self._of_addresses) < MOST_REMEMBERED:
                self._of_addresses[address] = found
        return found

    def _opening(self, protocol: str, port: int, named: NamedPorts) -> int:
        found = self._of_ports.get((protocol, port))
        if found is None:
            found = self._of_ports[protocol, port] = _join(
                rules
                for ports, rules in self._ports.items()
                if ports.protocol == protocol and ports.first <= port <= ports.last
            )
        for ports, rules in self._named.items():
            if ports.protocol == protocol and named.get((protocol, ports.name)) == port:
                found |= rules
        return found

    def _members(self, rules: int) -> Iterator[CompiledRule]:
        while rules:
            lowest = rules & -rules
            yield self._rules[lowest.bit_length() - 1]
            rules ^= lowest

    def _denial(self, admits_peer: bool, opens_port: bool, protocol: str, port: int) -> str:
        """Why a flow is denied. Names the policies that allow anything at all."""
        speaking = [policy.name for policy in self._policies if policy.rules[self._direction]]
        names = speaking or [policy.name for policy in self._policies]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        if not speaking:
            return f"{shown} {'allows' if len(names) == 1 else 'allow'} no {self._direction} at all"
        wanted = f"port {port}/{protocol}"
        if admits_peer and opens_port:
            wanted = f"this peer on {wanted}"  # by two rules, and none does both
        elif not admits_peer:
            wanted = "this peer" if opens_port else f"this peer or {wanted}"
        return f"no {self._direction} rule of {shown} allows {wanted}"


def _where(flags: Iterable[bool]) -> int:
    return sum(1 << index for index, flag in enumerate(flags) if flag)


def _join(sets: Iterable[int]) -> int:
    joined = 0
    for rules in sets:
        joined |= rules
    return joined


def _by_condition(conditions: Iterable[Iterable[_Condition]]) -> dict[_Condition, int]:
    """Each distinct condition, and the set of the rules that have it."""
    found: dict[_Condition, int] = {}
    for index, of_rule in enumerate(conditions):
        for condition in of_rule:
            found[condition] = found.get(condition, 0) | 1 << index
    return found
