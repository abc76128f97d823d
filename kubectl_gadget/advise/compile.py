"""NetworkPolicies made ready for matching: checked as the API server checks them, selectors and networks parsed once.

What is refused is what its validation refuses, and unknown fields, as `kubectl apply` does: a misspelt one that is left
out can turn a rule into its opposite. A field that is null is absent, as there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from gadget.errors import UsageError
from gadget.selector import LABEL_KEY, LABEL_VALUE, Requirement
from kubectl_gadget.advise.matching import (
    DIRECTIONS,
    Address,
    BlockPeer,
    CompiledPolicy,
    CompiledRule,
    Direction,
    PodPeer,
    Ports,
    Selector,
)

PROTOCOLS = ("TCP", "UDP", "SCTP")

_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")  # IANA_SVC_NAME
_OBJECT_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class _Invalid(Exception):
    """The path of a field, and what is wrong with it."""


def compile_policy(policy: Mapping[str, Any]) -> CompiledPolicy:
    """A networking.k8s.io/v1 NetworkPolicy ready for matching. UsageError if the API server would refuse it."""
    metadata = policy.get("metadata")
    name, namespace = (metadata.get(key) if isinstance(metadata, Mapping) else None for key in ("name", "namespace"))
    for key, value in (("name", name), ("namespace", namespace)):
        if not isinstance(value, str) or not _OBJECT_NAME.fullmatch(value):
            raise UsageError(f"policy {name!r}: metadata.{key}: {value!r} is no name in lower case, such as cart")
    try:
        return _policy(str(namespace), str(name), policy.get("spec"))
    except _Invalid as error:
        path, what = error.args
        raise UsageError(f"policy {namespace}/{name}: {path}: {what}") from None


def _policy(namespace: str, name: str, item: Any) -> CompiledPolicy:
    spec = _fields(_or_empty(item), "spec", {"podSelector", "policyTypes", *DIRECTIONS})
    pods = _selector(_or_empty(spec.get("podSelector")), "spec.podSelector")
    isolates = _isolates(spec)
    rules: dict[Direction, tuple[CompiledRule, ...]] = {}
    for direction in DIRECTIONS:
        key = "from" if direction == "ingress" else "to"
        rules[direction] = tuple(
            CompiledRule(namespace, name, direction, index, *_rule(rule, key, namespace, path), direction in isolates)
            for index, (path, rule) in enumerate(_items(spec, direction, "spec"))
        )
    return CompiledPolicy(namespace, name, pods, isolates, rules)


def _isolates(spec: Mapping[str, Any]) -> frozenset[Direction]:
    types = []
    for path, item in _items(spec, "policyTypes", "spec"):
        if item not in ("Ingress", "Egress"):
            raise _Invalid(path, f"{item!r} is neither Ingress nor Egress")
        types.append(item.lower())
    if not types:  # "Ingress will always be set and Egress will be set if the NetworkPolicy has any egress rules"
        types = ["ingress", "egress"] if spec.get("egress") else ["ingress"]
    return frozenset(direction for direction in DIRECTIONS if direction in types)


def _rule(item: Any, key: str, namespace: str, path: str) -> tuple[tuple[PodPeer | BlockPeer, ...], tuple[Ports, ...]]:
    rule = _fields(item, path, {key, "ports"})
    peers = tuple(_peer(peer, namespace, where) for where, peer in _items(rule, key, path))
    return peers, tuple(_ports(ports, where) for where, ports in _items(rule, "ports", path))


def _peer(item: Any, namespace: str, path: str) -> PodPeer | BlockPeer:
    peer = _fields(item, path, {"podSelector", "namespaceSelector", "ipBlock"})
    pods, namespaces, block = (peer.get(key) for key in ("podSelector", "namespaceSelector", "ipBlock"))
    if block is not None:
        if pods is not None or namespaces is not None:
            raise _Invalid(path, "may not have both an ipBlock and a selector")
        return _block(block, f"{path}.ipBlock")
    if pods is None and namespaces is None:
        raise _Invalid(path, "must have a podSelector, a namespaceSelector or an ipBlock")
    return PodPeer(
        namespace,
        None if namespaces is None else _selector(namespaces, f"{path}.namespaceSelector"),
        _selector(_or_empty(pods), f"{path}.podSelector"),
    )


def _block(item: Any, path: str) -> BlockPeer:
    block = _fields(item, path, {"cidr", "except"})
    network = _network(block.get("cidr"), f"{path}.cidr")
    first, last = _ends(network)
    excepted = []
    for where, text in _items(block, "except", path):
        inner = _network(text, where)
        if inner.prefixlen <= network.prefixlen or not first <= _ends(inner)[0] <= last:
            raise _Invalid(where, f"{inner} is not a part of {network}")
        excepted.append(inner)
    text = f"{network} except {', '.join(map(str, excepted))}" if excepted else str(network)
    return BlockPeer(first, last, tuple(map(_ends, excepted)), text)


def _network(text: Any, path: str) -> IPv4Network | IPv6Network:
    if isinstance(text, str) and re.fullmatch(r"[^/%]+/\d{1,3}", text):
        try:
            return ip_network(text, strict=False)  # bits beyond the prefix count for nothing, as in the API
        except ValueError:
            pass
    raise _Invalid(path, f"{text!r} is no network such as 10.0.0.0/8 or 2001:db8::/64")


def _ends(network: IPv4Network | IPv6Network) -> tuple[Address, Address]:
    return (network.version, int(network.network_address)), (network.version, int(network.broadcast_address))


def _ports(item: Any, path: str) -> Ports:
    ports = _fields(item, path, {"protocol", "port", "endPort"})
    protocol, port, last = ports.get("protocol"), ports.get("port"), ports.get("endPort")
    protocol = "TCP" if protocol is None else protocol
    if protocol not in PROTOCOLS:
        raise _Invalid(f"{path}.protocol", f"{protocol!r} is none of {', '.join(PROTOCOLS)}")
    if last is not None and (port is None or isinstance(port, str)):
        raise _Invalid(f"{path}.endPort", "needs a number as port")
    if port is None:
        return Ports(protocol)
    if isinstance(port, str):
        if not _PORT_NAME.fullmatch(port):
            raise _Invalid(f"{path}.port", f"{port!r} is neither a number nor the name of a port")
        return Ports(protocol, name=port)
    first = _number(port, f"{path}.port")
    last = first if last is None else _number(last, f"{path}.endPort")
    if last < first:
        raise _Invalid(f"{path}.endPort", f"{last} is less than port {first}")
    return Ports(protocol, first, last)


def _number(value: Any, path: str) -> int:
    if type(value) is not int or not 1 <= value <= 65535:  # isinstance would take True for a number
        raise _Invalid(path, f"{value!r} is no port from 1 to 65535")
    return value


def _selector(item: Any, path: str) -> Selector:
    selector = _fields(item, path, {"matchLabels", "matchExpressions"})
    requirements = []
    for key, value in _mapping(_or_empty(selector.get("matchLabels")), f"{path}.matchLabels").items():
        _check_label(key, [value], f"{path}.matchLabels")
        requirements.append(Requirement(key, frozenset([value]), negated=False))
    requirements += [_requirement(each, where) for where, each in _items(selector, "matchExpressions", path)]
    return Selector(tuple(requirements))


def _requirement(item: Any, path: str) -> Requirement:
    expression = _fields(item, path, {"key", "operator", "values"})
    key, operator = expression.get("key"), expression.get("operator")
    values = [value for _, value in _items(expression, "values", path)]
    _check_label(key, values, path)
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise _Invalid(f"{path}.operator", f"{operator!r} is none of In, NotIn, Exists, DoesNotExist")
    negated = operator in ("NotIn", "DoesNotExist")
    if operator in ("In", "NotIn"):
        if not values:
            raise _Invalid(f"{path}.values", f"{operator} needs at least one")
        return Requirement(str(key), frozenset(values), negated)
    if values:
        raise _Invalid(f"{path}.values", f"{operator} takes none")
    return Requirement(str(key), None, negated)


def _check_label(key: Any, values: Collection[Any], path: str) -> None:
    if not isinstance(key, str) or not re.fullmatch(LABEL_KEY, key):
        raise _Invalid(path, f"{key!r} is no label")
    for value in values:
        if not isinstance(value, str):
            raise _Invalid(path, f"{key}: {value!r} is no text: put it in quotes")
        if not re.fullmatch(LABEL_VALUE, value) or len(value) > 63:
            raise _Invalid(path, f"{key}: {value!r} is no label's value")


def _or_empty(item: Any) -> Any:
    return {} if item is None else item


def _fields(item: Any, path: str, known: Collection[str]) -> Mapping[str, Any]:
    fields = _mapping(item, path)
    for key in fields:
        if key not in known:
            raise _Invalid(path, f"has no field {key!r}, only {', '.join(sorted(known))}")
    return fields


def _mapping(item: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise _Invalid(path, f"must have fields, and is {item!r}")
    return item


def _items(parent: Mapping[str, Any], key: str, path: str) -> Iterator[tuple[str, Any]]:
    """The path of each item of a list, and the item. None if the list is absent."""
    items = parent.get(key)
    if items is None:
        return
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise _Invalid(f"{path}.{key}", f"must be a list, and is {items!r}")
    for index, item in enumerate(items):
        yield f"{path}.{key}[{index}]", item
