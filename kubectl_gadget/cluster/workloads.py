"""The pods of deployments, jobs, services and the like, by the selectors that the API server has of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from gadget.errors import GadgetError, UsageError
from gadget.kube.api import ApiError, ApiServer
from gadget.pod_choice import PodChoice
from gadget.selector import parse_names
from kubectl_gadget.pods import PodName

_GROUPS = {
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "daemonsets": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "replicationcontrollers": "/api/v1",
    "services": "/api/v1",
}
_OPERATORS = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}
#: Names that an error lists.
LISTED = 10


def find_pods(api: ApiServer, name: PodName, namespaces: Sequence[str]) -> tuple[list[PodChoice], list[str]]:
    """How to tell the pods of a workload, also later ones; and the names of the existing ones.

    In these namespaces, all if none is wanted. UsageError if there is no such workload, GadgetError if its pods cannot
    be told or the user may not see it.
    """
    choices, pods = [], []
    for namespace, found in _find(api, name, namespaces):
        selector = _selector_text(found)
        if not selector:
            raise GadgetError(f"-p {name.written}: it selects no pods in namespace {namespace}: name them")
        choices.append(PodChoice(labels=selector, namespace=namespace, without=name.without))
        path = f"/api/v1/namespaces/{quote(namespace)}/pods"
        try:
            answer = api.get(path, labelSelector=selector, resourceVersion="0")
            pods += [pod["metadata"]["name"] for pod in answer.get("items") or ()]
        except ApiError:  # agents know them without, those of today's version
            continue
    return choices, pods


def _find(api: ApiServer, name: PodName, namespaces: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of that name, with their namespaces."""
    names = parse_names(namespaces)
    group = _GROUPS[name.kind]
    found = []
    try:
        for namespace in sorted(names.wanted):
            try:
                found.append((namespace, api.get(f"{group}/namespaces/{quote(namespace)}/{name.kind}/{name.name}")))
            except ApiError as error:
                if error.code != 404:
                    raise
        if not names.wanted:
            answer = api.get(f"{group}/{name.kind}", fieldSelector=f"metadata.name={name.name}")
            found += [(item["metadata"]["namespace"], item) for item in answer.get("items") or ()]
    except ApiError as error:
        if error.code != 403:
            raise
        where = f"namespace {', '.join(sorted(names.wanted))}" if names.wanted else "all namespaces"
        raise GadgetError(f"-p {name.written}: you may not get {name.kind} in {where}: name pods, or use -l") from None
    found = [(namespace, item) for namespace, item in found if names.matches(namespace)]
    if not found:
        raise UsageError(f"-p {name.written}: {_there_is(api, name, sorted(names.wanted))}")
    return found


def _there_is(api: ApiServer, name: PodName, namespaces: Sequence[str]) -> str:
    """An error that says what exists in place of the name that was asked for."""
    where = f" in namespace {', '.join(namespaces)}" if namespaces else ""
    group = _GROUPS[name.kind]
    try:
        paths = [f"{group}/namespaces/{quote(each)}/{name.kind}" for each in namespaces] or [f"{group}/{name.kind}"]
        names = sorted({item["metadata"]["name"] for path in paths for item in api.get(path).get("items") or ()})
    except ApiError:
        return f"there is none of that name{where}"
    from difflib import get_close_matches

    near = get_close_matches(name.name, names, 3) or names[:LISTED]
    return f"there is none of that name{where}" + (f"; there is {', '.join(near)}" if near else "")


def _selector_text(found: Mapping[str, Any]) -> str:
    """An object's selector as text; empty if it has none."""
    selector = (found.get("spec") or {}).get("selector") or {}
    if not {"matchLabels", "matchExpressions"} & selector.keys():  # services and replication controllers: labels alone
        selector = {"matchLabels": selector}
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    parts += [
        _OPERATORS[item["operator"]].format(item["key"], ",".join(item.get("values") or ()))
        for item in selector.get("matchExpressions") or ()
    ]
    return ",".join(parts)
