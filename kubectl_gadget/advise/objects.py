"""Kubernetes objects, cut down to what the advice is made from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

_OWNERS = [{"kind": str, "name": str, "controller": ...}]
_METADATA = {"name": str, "namespace": str, "uid": str, "labels": ..., "ownerReferences": _OWNERS}
_TEMPLATE = {"metadata": {"labels": ...}}
_OWNER = {"metadata": _METADATA, "spec": {"selector": ..., "template": _TEMPLATE}}
_CONTAINERS = [{"ports": [{"name": str, "containerPort": int, "hostPort": int, "protocol": str}]}]

#: What is kept of each kind. ... keeps a value whole, a type one of it, a list of one shape is that of every item.
_SHAPES: dict[str, Any] = {
    "Pod": {
        "metadata": _METADATA,
        "spec": {"nodeName": str, "hostNetwork": ..., "containers": _CONTAINERS, "initContainers": _CONTAINERS},
        "status": {
            "phase": str,
            "podIPs": ...,
            "startTime": str,
            "containerStatuses": [{"state": {"terminated": {"finishedAt": str}}}],
        },
    },
    "Service": {
        "metadata": _METADATA,
        "spec": {"clusterIPs": ..., "externalIPs": ..., "ports": ..., "selector": ...},
        "status": {"loadBalancer": {"ingress": [{"ip": str, "ipMode": str}]}},
    },
    "EndpointSlice": {
        "metadata": _METADATA,
        "endpoints": [{"addresses": ..., "targetRef": {"kind": str, "namespace": str, "name": str, "uid": str}}],
        "ports": ...,
    },
    "Namespace": {"metadata": _METADATA},
    "Node": {"metadata": _METADATA, "spec": {"podCIDRs": ...}, "status": {"addresses": ...}},
    "ReplicaSet": _OWNER,
    "Deployment": _OWNER,
    "StatefulSet": _OWNER,
    "DaemonSet": _OWNER,
    "Job": _OWNER,
    "CronJob": {"metadata": _METADATA, "spec": {"jobTemplate": {"spec": {"template": _TEMPLATE}}}},
    "NetworkPolicy": {"metadata": _METADATA},
}
#: The kinds that the advice is made from.
KINDS = tuple(_SHAPES)


def trim(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """An object as it goes into a flows file; None if it is of a kind that is not needed. ValueError if it is none."""
    shape = _SHAPES.get(item.get("kind", ""))
    return None if shape is None else {"kind": item["kind"], **_cut(item, shape)}


def _cut(value: Any, shape: Any) -> Any:
    if isinstance(shape, type) and value and not isinstance(value, shape):
        raise ValueError(f"{str(value)[:100]!r} where {shape.__name__} belongs")
    if shape is ... or isinstance(shape, type) or not value:
        return value
    if isinstance(shape, list):
        return [_cut(item, shape[0]) for item in value]
    return {key: _cut(value[key], part) for key, part in shape.items() if value.get(key) is not None}


def controller(item: Mapping[str, Any]) -> str:
    """What owns an object, as "ReplicaSet/cart-6c9f"; empty if nothing does."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((f"{owner['kind']}/{owner['name']}" for owner in owners if owner.get("controller")), "")


def moment_ns(text: str | None) -> int:
    """An RFC 3339 time in nanoseconds since 1970; 0 for none."""
    if not text:
        return 0
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * 1_000_000_000
