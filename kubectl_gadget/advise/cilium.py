"""The same policy for Cilium: cilium.io/v2 CiliumNetworkPolicy.

docs.cilium.io, "Layer 3 Policies": an endpointSelector matches in the policy's own namespace unless it names another,
CIDR rules match nothing that Cilium manages, so nodes are entities.
"""

from __future__ import annotations

from typing import Any

from kubectl_gadget.advise.labels import Selector
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Peer, Policy, Rule

#: Cilium refuses an entry of toPorts with more (MaxItems of PortRule.Ports in its CRD).
MOST_PORTS = 40
#: Cilium's own label of an endpoint's namespace.
NAMESPACE = "k8s:io.kubernetes.pod.namespace"


def to_cilium(policy: Policy) -> dict[str, Any]:
    """The object, as it is applied."""
    spec: dict[str, Any] = {"endpointSelector": _selector(policy.selector)}
    for direction, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if direction in policy.types:
            # an empty rule closes a direction, as a policyType without rules does
            spec[key] = [part for rule in policy.rules[direction] for part in _rules(rule, direction, policy)] or [{}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": policy.metadata,
        "spec": spec,
    }


def parts(rule: Rule, direction: str) -> list[tuple[str, list[Peer]]]:
    """The rules that one becomes, by the key of their peers: within one rule Cilium takes only one kind."""
    word = "from" if direction == INGRESS else "to"
    pods = [peer for peer in rule.peers if peer.selector is not None]
    nodes = [peer for peer in rule.peers if peer.is_node]
    networks = [peer for peer in rule.peers if peer.cidr and not peer.is_node]
    plain, others = ([peer for peer in networks if bool(peer.excepted) == some] for some in (False, True))
    kinds = (
        (f"{word}Endpoints", pods),
        (f"{word}Entities", nodes),
        (f"{word}CIDR", plain),
        (f"{word}CIDRSet", others),
    )
    return [(key, peers) for key, peers in kinds if peers]


def _rules(rule: Rule, direction: str, policy: Policy) -> list[dict[str, Any]]:
    numbers = [{**port.to_dict(), "port": str(port.port)} for port in rule.ports]
    ports = [{"ports": numbers[at : at + MOST_PORTS]} for at in range(0, len(numbers), MOST_PORTS)]
    made: list[dict[str, Any]] = []
    for key, peers in parts(rule, direction):
        if key.endswith("Endpoints"):
            made.append({key: [_endpoint(peer, policy) for peer in peers], "toPorts": ports})
        elif key.endswith("Entities"):
            made.append({key: ["host", "remote-node"], "toPorts": ports})
        elif key.endswith("Set"):
            sets = [{"cidr": peer.cidr, "except": [*peer.excepted]} for peer in peers]
            made.append({key: sets, "toPorts": ports})
        else:
            made.append({key: [peer.cidr for peer in peers], "toPorts": ports})
    return made


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
