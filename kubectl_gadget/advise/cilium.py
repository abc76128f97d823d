"""The same policy for Cilium: cilium.io/v2 CiliumNetworkPolicy.

docs.cilium.io, "Layer 3 Policies": an endpointSelector matches in the policy's own namespace unless it names another,
CIDR rules match nothing that Cilium manages, so nodes are entities; "DNS based": names are allowed for the addresses
that Cilium's DNS proxy sees in answers, so that a rule has to lead questions through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.advise.labels import Selector
from kubectl_gadget.advise.observation import Evidence
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Peer, Policy, PolicyRule, Port

#: Cilium refuses an entry of toPorts with more (MaxItems of PortRule.Ports in its CRD).
MOST_PORTS = 40
#: Cilium's own label of an endpoint's namespace.
NAMESPACE = "k8s:io.kubernetes.pod.namespace"
FQDNS = "toFQDNs"


def to_cilium(policy: Policy) -> dict[str, Any]:
    """The object, as it is applied."""
    spec: dict[str, Any] = {"endpointSelector": _selector(policy.selector)}
    for direction, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if direction in policy.types:
            # an empty rule closes a direction, as a policyType without rules does
            spec[key] = [_rule(*part, policy) for part in parts(policy, direction)] or [{}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": policy.metadata,
        "spec": spec,
    }


def has_names(peers: Iterable[Peer]) -> bool:
    """Whether egress rules of peers can be about names: some are known, and DNS is asked for them."""
    every = list(peers)
    return any(peer.domains for peer in every) and any(peer.answers for peer in every)


def parts(policy: Policy, direction: str) -> list[tuple[str, list[Peer], PolicyRule]]:
    """What the rules of a direction become, by the key of their peers: one rule of Cilium's has only one kind."""
    rules = policy.rules.get(direction, ())
    names = direction == EGRESS and has_names(peer for rule in rules for peer in rule.peers)
    return [(key, peers, rule) for rule in rules for key, peers in _kinds(rule, direction, names) if peers]


def by_domain(peers: Iterable[Peer]) -> list[Peer]:
    """Peers by name in place of peers by address, one for each name."""
    found: dict[str, Peer] = {}
    for peer in peers:
        for domain in peer.domains:
            own = found.setdefault(domain, replace(peer, names=set(), cidr="", domains={domain}, ports={}))
            own.names |= peer.names
            for port, evidence in peer.ports.items():
                own.ports.setdefault(port, Evidence()).add(evidence)
    return [found[domain] for domain in sorted(found)]


def _kinds(rule: PolicyRule, direction: str, names: bool) -> Iterable[tuple[str, list[Peer]]]:
    word = "from" if direction == INGRESS else "to"
    networks = [peer for peer in rule.peers if peer.cidr and not peer.is_node]
    named = [peer for peer in networks if names and peer.domains]
    plain = [peer for peer in networks if not (peer.excepted or peer in named)]
    yield f"{word}Endpoints", [peer for peer in rule.peers if peer.selector is not None]
    yield f"{word}Entities", [peer for peer in rule.peers if peer.is_node]
    yield f"{word}CIDR", plain
    yield f"{word}CIDRSet", [peer for peer in networks if peer.excepted]
    yield FQDNS, by_domain(named)


def _rule(key: str, peers: list[Peer], rule: PolicyRule, policy: Policy) -> dict[str, Any]:
    made: list[Any]
    if key.endswith("Endpoints"):
        made = [_endpoint(peer, policy) for peer in peers]
    elif key.endswith("Entities"):
        made = ["host", "remote-node"]
    elif key.endswith("Set"):
        made = [{"cidr": peer.cidr, "except": [*peer.excepted]} for peer in peers]
    elif key == FQDNS:
        made = [{"matchName": domain} for peer in peers for domain in peer.domains]
    else:
        made = [peer.cidr for peer in peers]
    return {key: made, "toPorts": _ports(rule, peers, policy)}


def _ports(rule: PolicyRule, peers: Iterable[Peer], policy: Policy) -> list[dict[str, Any]]:
    """The ports of a rule; those of DNS by Cilium's proxy, if names are allowed."""
    answering = {port for peer in peers for port in peer.answers}
    if not has_names(peer for each in policy.rules.get(EGRESS, ()) for peer in each.peers):
        answering = set()
    plain = _entries([port for port in rule.ports if port not in answering])
    proxied = _entries([port for port in rule.ports if port in answering])
    return [*({**each, "rules": {"dns": [{"matchPattern": "*"}]}} for each in proxied), *plain]


def _entries(ports: Sequence[Port]) -> list[dict[str, Any]]:
    numbers = [{**port.to_dict(), "port": str(port.port)} for port in ports]
    return [{"ports": numbers[at : at + MOST_PORTS]} for at in range(0, len(numbers), MOST_PORTS)]


def _endpoint(peer: Peer, policy: Policy) -> Selector:
    selector = _selector(peer.selector or {})
    if peer.namespace == policy.namespace:
        return selector
    return {**selector, "matchLabels": {NAMESPACE: peer.namespace, **selector.get("matchLabels", {})}}


def _selector(selector: Selector) -> Selector:
    """A selector with its labels marked as Kubernetes' own."""
    made: Selector = {}
    if labels := selector.get("matchLabels"):
        made["matchLabels"] = {f"k8s:{key}": value for key, value in labels.items()}
    if expressions := selector.get("matchExpressions"):
        made["matchExpressions"] = [{**item, "key": f"k8s:{item['key']}"} for item in expressions]
    return made
