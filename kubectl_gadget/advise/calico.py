"""The same policy for Calico: projectcalico.org/v3 NetworkPolicy.

docs.tigera.io, "Network policy": a rule has one protocol, one selector, and addresses of one family; a selector without
namespaceSelector is about the policy's own namespace. Names (`domains`, of egress rules that allow) are of Calico
Enterprise and Cloud only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from kubectl_gadget.advise.cilium import by_domain
from kubectl_gadget.advise.labels import Selector
from kubectl_gadget.advise.policy import EGRESS, INGRESS, Peer, Policy, PolicyRule, Port

_OPERATORS = {"In": "{key} in {{{values}}}", "NotIn": "{key} not in {{{values}}}", "Exists": "has({key})",
              "DoesNotExist": "!has({key})"}  # fmt: skip
#: Where a rule names its peers, and its ports.
SIDES = {INGRESS: "source", EGRESS: "destination"}


def to_calico(policy: Policy, *, names: bool) -> dict[str, Any]:
    """The object, as it is applied. names: rules may be about names."""
    spec: dict[str, Any] = {"selector": _selector(policy.selector), "types": list(policy.types)}
    for direction, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if rules := [_rule(direction, *part, policy) for part in parts(policy, direction, names=names)]:
            spec[key] = rules
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": policy.metadata,
        "spec": spec,
    }


def parts(policy: Policy, direction: str, *, names: bool) -> Iterator[tuple[str, list[Peer], list[Port]]]:
    """The rules of a direction for Calico, each as: how peers are named, its peers, and its ports of one protocol."""
    for rule in policy.rules.get(direction, ()):
        for key, peers in _kinds(rule, names=names and direction == EGRESS):
            for protocol in sorted({port.protocol for port in rule.ports}):
                yield key, peers, [port for port in rule.ports if port.protocol == protocol]


def _kinds(rule: PolicyRule, *, names: bool) -> Iterator[tuple[str, list[Peer]]]:
    for peer in rule.peers:
        if peer.selector is not None:
            yield "selector", [peer]
    networks = [peer for peer in rule.peers if peer.cidr]
    named = [peer for peer in networks if names and peer.domains]
    plain = [peer for peer in networks if not (peer.excepted or peer in named)]
    for _, family in groupby(sorted(plain, key=_is_ipv6), _is_ipv6):
        yield "nets", [*family]
    for peer in networks:
        if peer.excepted:
            yield "notNets", [peer]
    if named:
        yield "domains", by_domain(named)


def _is_ipv6(peer: Peer) -> bool:
    return ":" in peer.cidr


def _rule(direction: str, key: str, peers: list[Peer], ports: list[Port], policy: Policy) -> dict[str, Any]:
    peer = peers[0]
    side: dict[str, Any] = {}
    if key == "selector":
        if peer.namespace != policy.namespace:
            side["namespaceSelector"] = f"projectcalico.org/name == '{peer.namespace}'"
        side["selector"] = _selector(peer.selector or {})
    elif key == "domains":
        side["domains"] = [domain for each in peers for domain in each.domains]
    else:
        side["nets"] = [each.cidr for each in peers]
        if key == "notNets":
            side["notNets"] = [*peer.excepted]
    target = {"ports": [f"{port.port}:{port.end}" if port.end else port.port for port in ports]}
    made: dict[str, Any] = {"action": "Allow", "protocol": ports[0].protocol, SIDES[direction]: side}
    made.setdefault("destination", {}).update(target)
    return made


def _selector(selector: Selector) -> str:
    """A selector in Calico's language."""
    found = [f"{key} == '{value}'" for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or ():
        values = ", ".join(f"'{value}'" for value in item.get("values") or ())
        found.append(_OPERATORS[item["operator"]].format(key=item["key"], values=values))
    return " && ".join(found) or "all()"
