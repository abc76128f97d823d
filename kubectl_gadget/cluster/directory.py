"""Who has which address, as the API server tells this user."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gadget.endpoints import Name
from gadget.errors import GadgetError
from kubectl_gadget.cluster.api import ApiServer

_LISTS = ("nodes", "pods", "services")  # the later wins: an address of a host-network pod is its node's


def ask_cluster(api: ApiServer) -> dict[str, Name]:
    """Nodes, pods and services by address. What the user may not list has no names."""
    directory: dict[str, Name] = {}
    for kind in _LISTS:
        with suppress(GadgetError):
            for item in api.list(f"/api/v1/{kind}"):
                directory |= _READ[kind](item)
    return directory


def _node(node: dict[str, Any]) -> dict[str, Name]:
    name = Name("node", "", node["metadata"]["name"])
    addresses = node.get("status", {}).get("addresses") or ()
    return {item["address"]: name for item in addresses if item["type"] in ("InternalIP", "ExternalIP")}


def _pod(pod: dict[str, Any]) -> dict[str, Name]:
    if pod["spec"].get("hostNetwork") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return {}  # a finished pod's address may be another's by now
    name = Name("pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    return {item["ip"]: name for item in pod.get("status", {}).get("podIPs") or ()}


def _service(service: dict[str, Any]) -> dict[str, Name]:
    name = Name("svc", service["metadata"]["namespace"], service["metadata"]["name"])
    spec, balancer = service["spec"], service.get("status", {}).get("loadBalancer", {})
    addresses = [*(spec.get("clusterIPs") or ()), *(spec.get("externalIPs") or ())]
    addresses += [item["ip"] for item in balancer.get("ingress") or () if item.get("ip")]
    return {address: name for address in addresses if address not in ("", "None")}


_READ: dict[str, Callable[[dict[str, Any]], dict[str, Name]]] = {"nodes": _node, "pods": _pod, "services": _service}
