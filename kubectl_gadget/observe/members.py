"""Finds the pods of a workload, or with labels, by the API server: flows name pods only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from gadget.errors import GadgetError, UsageError
from gadget.kube.api import ApiError, ApiServer
from gadget.pod_choice import PodChoice
from gadget.selector import parse_labels, parse_names
from kubectl_gadget.pods import read_pods

#: The namespace and name of each pod.
Pods = set[tuple[str, str]]
#: Makes the condition on {end} of an option and one of its values.
Find = Callable[[str, str], str]
_FORBIDDEN = 403


def of_pods(pods: Pods) -> str:
    """The condition that {end} is one of these pods."""
    of_each: dict[str, list[str]] = {}
    for namespace, name in sorted(pods):
        of_each.setdefault(namespace, []).append(re.escape(name))
    every = [
        f'({{end}}.namespace=="{namespace}",{{end}}.name~"^(?:{"|".join(names)})$")'
        for namespace, names in of_each.items()
    ]
    return f"{{end}}.kind==pod,({' or '.join(every)})"


def find_labelled(apis: Sequence[ApiServer], namespaces: Sequence[str]) -> Find:
    """Finds pods by a selector of labels."""

    def find(option: str, value: str) -> str:
        parse_labels(value)
        pods = {pod for api in apis for pod in _list(api, value, namespaces)}
        if not pods:
            raise UsageError(f"{option} {value!r}: no pod has such labels")
        return of_pods(pods)

    return find


def find_members(apis: Sequence[ApiServer], namespaces: Sequence[str]) -> Find:
    """Finds pods by KIND/NAME of a workload."""
    from kubectl_gadget.cluster.workloads import find_pods

    def find(option: str, value: str) -> str:
        (name,) = read_pods([value])
        if not name.is_workload:
            raise UsageError(f"{option} {value!r}: want KIND/NAME, such as deploy/cart")
        pods: Pods = set()
        wrong: GadgetError | None = None
        for api in apis:
            try:
                choices, _ = find_pods(api, name, namespaces)
            except GadgetError as error:
                wrong = wrong or error
                continue
            pods |= {pod for choice in choices for pod in _chosen(api, choice)}
        if not pods:
            raise wrong or UsageError(f"{option} {value}: it has no pods")
        return of_pods(pods)

    return find


def _chosen(api: ApiServer, choice: PodChoice) -> Pods:
    return _list(api, choice.labels, [choice.namespace])


def _list(api: ApiServer, labels: str, namespaces: Sequence[str]) -> Pods:
    """The pods with labels, in the whole cluster or, where that is forbidden, in namespaces."""
    wanted = sorted(parse_names(namespaces).wanted)
    paths = ["/api/v1/pods"] if len(wanted) != 1 else [f"/api/v1/namespaces/{quote(wanted[0])}/pods"]
    found: Pods = set()
    while paths:
        try:
            for pod in api.list(paths.pop(), labelSelector=labels):
                found.add((pod["metadata"]["namespace"], pod["metadata"]["name"]))
        except ApiError as error:
            if error.code != _FORBIDDEN or not wanted or len(wanted) == 1:
                raise
            paths, wanted = [f"/api/v1/namespaces/{quote(each)}/pods" for each in wanted], []
    return found
