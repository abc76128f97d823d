"""Label selectors as objects have them, and the labels that are no good for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gadget.selector import Requirement

#: A podSelector of the API: matchLabels, matchExpressions or both, never empty.
Selector = dict[str, Any]

#: Labels of one pod or one revision: a policy that asks for them is wrong after the next rollout.
_PASSING = {
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "kubernetes.io/hostname",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "istio.io/rev",
    "service.istio.io/canonical-revision",
    "statefulset.kubernetes.io/pod-name",
}
_PASSING_PREFIXES = (
    "apps.kubernetes.io/",
    "batch.kubernetes.io/",
    "failure-domain.beta.kubernetes.io/",
    "topology.kubernetes.io/",
    "topology.",
)
#: Labels that a new version changes; an owner's selector may have them, as it never changes.
_VERSIONS = {"app.kubernetes.io/version", "helm.sh/chart", "version"}

_OPERATORS = {"In": (True, False), "NotIn": (True, True), "Exists": (False, False), "DoesNotExist": (False, True)}


def is_passing(label: str) -> bool:
    """Whether a label is of one pod or one revision alone."""
    return label in _PASSING or label.startswith(_PASSING_PREFIXES)


def stable(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that a pod's successors will have too."""
    return {key: value for key, value in labels.items() if not is_passing(key) and key not in _VERSIONS}


def owner_selector(selector: Mapping[str, Any] | None) -> Selector | None:
    """The selector of an owner without labels of one revision, in a fixed order; None if nothing is left."""
    selector = selector or {}
    if selector and not {"matchLabels", "matchExpressions"} & selector.keys():
        selector = {"matchLabels": selector}  # a ReplicationController's
    labels = {key: value for key, value in sorted((selector.get("matchLabels") or {}).items()) if not is_passing(key)}
    expressions = [
        {
            key: sorted(item[key]) if key == "values" else item[key]
            for key in ("key", "operator", "values")
            if key in item
        }
        for item in selector.get("matchExpressions") or ()
        if not is_passing(item["key"])
    ]
    expressions.sort(key=lambda item: (item["key"], item["operator"], item.get("values", [])))
    return _selector(labels, expressions)


def common_selector(labels: Iterable[Mapping[str, str]]) -> Selector | None:
    """The stable labels that all have; None if there are none."""
    common: dict[str, str] | None = None
    for each in labels:
        own = stable(each)
        common = own if common is None else {key: value for key, value in common.items() if own.get(key) == value}
    return _selector(dict(sorted((common or {}).items())), [])


def _selector(labels: dict[str, str], expressions: list[dict[str, Any]]) -> Selector | None:
    made: Selector = {}
    if labels:
        made["matchLabels"] = labels
    if expressions:
        made["matchExpressions"] = expressions
    return made or None


def requirements(selector: Selector) -> list[Requirement]:
    """The conditions of a selector, all of which must hold."""
    made = [Requirement(key, frozenset([value]), False) for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or ():
        has_values, negated = _OPERATORS[item["operator"]]
        made.append(Requirement(item["key"], frozenset(item.get("values") or ()) if has_values else None, negated))
    return made
