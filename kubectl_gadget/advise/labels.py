"""Label selectors of objects, and labels that make no lasting selector."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
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
    "airflow-worker",
    "cnpg.io/instanceName",
    "kubevirt.io/created-by",
    "manager.runner.gitlab.com/id-short",
    "map_index",
    "run_id",
    "service.istio.io/canonical-revision",
    "spark-app-selector",
    "spark-exec-id",
    "sparkoperator.k8s.io/submission-id",
    "serving.knative.dev/configurationGeneration",
    "serving.knative.dev/revision",
    "serving.knative.dev/routingState",
    "statefulset.kubernetes.io/pod-name",
    "strimzi.io/pod-name",
    "tekton.dev/pipelineRun",
    "tekton.dev/pipelineRunUID",
    "tekton.dev/taskRun",
    "tekton.dev/taskRunUID",
    "triggers.tekton.dev/triggers-eventid",
    "try_number",
    "workflows.argoproj.io/completed",
    "workflows.argoproj.io/resubmitted-from-workflow",
    "workflows.argoproj.io/workflow",
}
_PASSING_PREFIXES = (
    "apps.kubernetes.io/",
    "batch.kubernetes.io/",
    "failure-domain.beta.kubernetes.io/",
    "job.runner.gitlab.com/",
    "pipelinesascode.tekton.dev/",
    "topology.kubernetes.io/",
    "topology.",
    "workflows.argoproj.io/creator",
)
#: Identities, of whatever; names of runs and revisions, which other labels of the same pods may have as well.
_IDENTITY = re.compile(r".*(?:[-_./]uid|UID)")
_RUN_NAMES = (
    "serving.knative.dev/revision",
    "tekton.dev/pipelineRun",
    "tekton.dev/taskRun",
    "workflows.argoproj.io/workflow",
)
#: Labels that a new version changes; an owner's selector may have them, as it never changes.
_VERSIONS = re.compile(r"helm\.sh/chart|(?:.*[-_./])?version")

#: The last parts of labels that say what a pod is: one such is never taken for that of one run.
_NAMING = {"app", "component", "instance", "k8s-app", "name", "part-of", "run"}
#: Who leads a group of replicas, and who follows: operators give these values to others at a failover.
_ROLES = {"follower", "leader", "master", "primary", "replica", "secondary", "slave", "standby", "standby-leader"}
#: Those that some set beside: Bitnami's Redis, Percona's MySQL, Vault.
_STATES = re.compile(
    r"(?:.*/)?(?:is[-_]?)?(?:primary|master|leader)|(?:vault|openbao)-(?:active|initialized|perf-standby|sealed)",
    re.IGNORECASE,
)
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
#: The cluster that a RayJob or RayService has made for itself, and what is named after it.
_RAY_CLUSTER = r"raycluster-[a-z0-9]{5}(?:-.*)?"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[-_.T].*)?"
#: UUIDs, hashes, times, and such at the end of a word.
_GENERATED = re.compile(
    rf"(?:.*[-_.])?(?:{_UUID}|{_DATE}|{_RAY_CLUSTER}|(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{{8,}}|[0-9]{{8,}})"
)
_OPERATORS = {"In": (True, False), "NotIn": (True, True), "Exists": (False, False), "DoesNotExist": (False, True)}


def is_passing(label: str) -> bool:
    """Whether a label is of one pod or one revision alone."""
    return label in _PASSING or label.startswith(_PASSING_PREFIXES) or bool(_IDENTITY.fullmatch(label))


def stable(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that a pod's successors will have too."""
    runs = {labels[key] for key in _RUN_NAMES if key in labels}
    if "deploymentconfig" in labels:  # OpenShift's, each revision of which is a deployment
        runs.add(labels.get("deployment", ""))
    return {
        key: value
        for key, value in labels.items()
        if not (is_passing(key) or _VERSIONS.fullmatch(key))
        # app=nightly is no label of one run where someone gave that the name nightly
        and not (value in runs and (is_numbered(value) or not names_a_workload(key)))
    }


def is_role(label: str, value: str) -> bool:
    """Whether a label says which replica leads: at a failover it moves to another pod."""
    if value in ("true", "false"):
        return bool(_STATES.fullmatch(label))
    return "role" in label.lower() and value.lower() in _ROLES


def is_generated(value: str) -> bool:
    """Whether a value looks as if a program had made it for one run or revision."""
    return _GENERATED.fullmatch(value) is not None


def is_numbered(value: str) -> bool:
    """Whether a digit is in a value."""
    return any(map(str.isdecimal, value))


def names_a_workload(label: str) -> bool:
    """Whether a label says what a pod is, as app and app.kubernetes.io/name do."""
    return label.rpartition("/")[2] in _NAMING


def of_one_run(runs: Collection[Mapping[str, str]]) -> set[str]:
    """The labels whose values differ between all runs of one thing."""
    values: dict[str, set[str]] = {}
    for labels in runs:
        for key, value in labels.items():
            values.setdefault(key, set()).add(value)
    return {key for key, own in values.items() if len(own) == len(runs) > 1}


def likeness(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """A key that is equal for runs that differ in numbered labels only, such as the number of a run."""
    return frozenset(
        (key, "" if is_numbered(value) and not names_a_workload(key) else value) for key, value in labels.items()
    )


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
    return _selector(dict(sorted(common(map(stable, labels)).items())), [])


def common(labels: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The labels that all have."""
    found: dict[str, str] | None = None
    for own in labels:
        found = dict(own) if found is None else {key: value for key, value in found.items() if own.get(key) == value}
    return found or {}


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
