"""Removes the agents of a cluster, and what they leave on nodes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from gadget.errors import GadgetError
from gadget.kube.api import ApiServer
from gadget.kube.kubeconfig import read_context
from gadget.text import escape
from kubectl_gadget.cluster import manifests
from kubectl_gadget.cluster.agents import NoAgents, cluster_agents
from kubectl_gadget.cluster.definitions import config_map
from kubectl_gadget.cluster.objects import explained, find, is_ours, name_of, path_of
from kubectl_gadget.cluster.options import ClusterOptions
from kubectl_gadget.tell import tell, write_line

POLL_SECONDS = 0.3
END_SECONDS = 10.0
#: What Kubernetes itself puts into every namespace.
_EVERYWHERE = {("configmaps", "kube-root-ca.crt"), ("serviceaccounts", "default")}
#: …and before 1.24 one of these for each service account.
_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
#: Kinds that only tell of others.
_TELLING = ("events", "endpoints", "endpointslices", "leases")


def undeploy(cluster: ClusterOptions, seconds: float) -> None:
    """Remove what deploy made, and wait until it is gone. GadgetError if it is not in time."""
    api = ApiServer(read_context(cluster.flags))
    everything = manifests.Settings("", critical_quota=True, audit={}, hubble=manifests.HubbleKeys({}, {}))
    objects = manifests.render(replace(everything, namespace=cluster.namespace))
    objects += [config_map((), cluster.namespace), manifests.rules_map({}, cluster.namespace)]
    _end_recorders(api, cluster.namespace)
    removed, kept = [], False
    deadline = time.monotonic() + seconds
    for item in reversed(objects):
        found = find(api, item)
        if not found or not is_ours(found):
            continue
        if item["kind"] == "Namespace" and (why := _others(api, cluster.namespace)):
            tell(f"{name_of(item)} stays: {why}")
            kept = True
            continue
        with explained(item, "delete"):
            api.request("DELETE", path_of(item), {"propagationPolicy": "Foreground"})
        removed.append(item)
        while find(api, item):  # agents end before they lose their rights
            if time.monotonic() > deadline:
                raise GadgetError(f"{name_of(item)} is still there after {seconds:.0f} s: it may yet go")
            time.sleep(POLL_SECONDS)
    if removed:
        write_line(f"removed: {', '.join(map(name_of, removed))}")
    elif not kept:
        raise GadgetError(f"nothing to remove: there are no agents in namespace {cluster.namespace}")


def _others(api: ApiServer, namespace: str) -> str:
    """What is in a namespace that neither deploy nor Kubernetes put there, in words; empty if nothing is."""
    try:
        for base in ("/api/v1", *_groups(api)):
            for kind in api.get(base)["resources"]:
                if not kind["namespaced"] or not {"list", "delete"} <= set(kind["verbs"]) or kind["name"] in _TELLING:
                    continue
                for item in api.list(f"{base}/namespaces/{namespace}/{kind['name']}"):
                    metadata = item["metadata"]
                    of_another = metadata.get("ownerReferences")  # it goes with that one, which counts itself
                    of_account = item.get("type") == _ACCOUNT_TOKEN
                    if not (of_another or of_account or (kind["name"], metadata["name"]) in _EVERYWHERE):
                        return f"{kind['kind']} {escape(metadata['name'])} is in it"
    except GadgetError as error:
        return f"what is in it cannot be seen: {error}"
    return ""


def _groups(api: ApiServer) -> list[str]:
    groups: list[dict[str, Any]] = api.get("/apis")["groups"]
    return [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups]


def _end_recorders(api: ApiServer, namespace: str) -> None:
    """Remove what the agents have pinned on their nodes, as far as they can be reached."""
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.client import ask_once

    with cluster_agents(api, namespace, ()) as targets:
        try:
            reached = targets()
        except NoAgents:
            return
        except GadgetError as error:
            _warn("every node", error)
            return
        for node in reached:
            try:
                ask_once(reached.reach(node), "End", pb.EndRequest(), END_SECONDS)
            except GadgetError as error:
                _warn(node, error)


def _warn(where: str, why: object) -> None:
    tell(f"warning: /sys/fs/bpf/gadget may stay behind on {where}: {why}")
