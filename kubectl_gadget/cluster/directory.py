"""The owners of addresses, as the API server tells this user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gadget.endpoints import Owner
from gadget.errors import GadgetError
from gadget.selector import parse_names

if TYPE_CHECKING:
    from gadget.kube.api import ApiServer
    from kubectl_gadget.agents.targets import Targets
    from kubectl_gadget.stream.peers import Directory, Look

_LISTS = ("nodes", "pods", "services")  # the later wins: an address of a host-network pod is its node's
FORBIDDEN = 403


def find_directory(targets: Targets, namespaces: Sequence[str], *, cluster: bool) -> Look:
    """Where names come from: the cluster as its user may see it, and what the agents themselves know.

    namespaces are those that the user asks about, who may see nothing of others.
    """
    from kubectl_gadget.stream.peers import ask_agents  # numpy

    if not cluster:
        return lambda context: ask_agents(targets)
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_clusters

    apis = {each.context: api_server(read_context(each.flags)) for each in chosen_clusters()}
    wanted = sorted(parse_names(namespaces).wanted)

    def look(context: str) -> Directory:
        found, complete = ask_cluster(apis[context], wanted)
        return found if complete else ask_agents(targets, context) | found

    return look


def ask_cluster(api: ApiServer, namespaces: Sequence[str]) -> tuple[dict[str, Owner], bool]:
    """Nodes, pods and services by address, and whether those are all nodes and pods that there are.

    A kind that the user may not list in the whole cluster is listed in namespaces; what may not be listed has no names.
    """
    from gadget.kube.api import ApiError  # http, email, msgspec

    directory: dict[str, Owner] = {}
    complete = True
    for kind in _LISTS:
        try:
            directory |= _ask(api, f"/api/v1/{kind}")
        except GadgetError as error:
            complete &= kind == "services"
            if isinstance(error, ApiError) and error.code == FORBIDDEN and kind != "nodes":
                for namespace in namespaces:
                    with suppress(GadgetError):
                        directory |= _ask(api, f"/api/v1/namespaces/{quote(namespace, safe='')}/{kind}")
    return directory, complete


def names_of(kind: str, items: Iterable[dict[str, Any]]) -> dict[str, Owner]:
    """The addresses of objects of a kind, as the API server names it."""
    read = _READ[kind]
    found: dict[str, Owner] = {}
    for item in items:
        with suppress(AttributeError, KeyError, TypeError):  # an object that is not as it has to be
            found |= read(item)
    return found


def _ask(api: ApiServer, path: str) -> dict[str, Owner]:
    return names_of(path.rpartition("/")[2], api.list(path))


def _node(node: dict[str, Any]) -> dict[str, Owner]:
    name = Owner("node", "", node["metadata"]["name"])
    addresses = node.get("status", {}).get("addresses") or ()
    return {item["address"]: name for item in addresses if item["type"] in ("InternalIP", "ExternalIP")}


def _pod(pod: dict[str, Any]) -> dict[str, Owner]:
    if pod["spec"].get("hostNetwork") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return {}  # a finished pod's address may be another's by now
    name = Owner("pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    return {item["ip"]: name for item in pod.get("status", {}).get("podIPs") or ()}


def _service(service: dict[str, Any]) -> dict[str, Owner]:
    name = Owner("svc", service["metadata"]["namespace"], service["metadata"]["name"])
    spec, balancer = service["spec"], service.get("status", {}).get("loadBalancer", {})
    addresses = [*(spec.get("clusterIPs") or ()), *(spec.get("externalIPs") or ())]
    addresses += [item["ip"] for item in balancer.get("ingress") or () if item.get("ip")]
    return {address: name for address in addresses if address not in ("", "None")}


_READ: dict[str, Callable[[dict[str, Any]], dict[str, Owner]]] = {"nodes": _node, "pods": _pod, "services": _service}
