"""Finds the workload that owns a pod, from the API server or from the pod's name."""

from __future__ import annotations

import re

#: Letters of the random parts of pods' names (rand.SafeEncodeString of k8s.io/apimachinery).
SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
_BY_NAME = re.compile(rf"(?P<name>.+)-{SAFE}{{6,10}}-{SAFE}{{5}}")
#: What controllers put behind a workload's name: Deployments, CronJobs; DaemonSets, Jobs; StatefulSets.
_BEHIND = re.compile(rf"(?<=.)(?:(?:-{SAFE}{{6,10}}|-[0-9]{{8,10}})?-{SAFE}{{5}}|-[0-9]+)$")


def workload(pod: str, owner: str, revision: str) -> str:
    """The workload of a pod, KIND/NAME, from its owner and the label pod-template-hash, else from its name."""
    kind, _, name = owner.partition("/")
    if kind == "ReplicaSet" and revision and name.endswith(f"-{revision}"):
        return f"Deployment/{name.removesuffix(f'-{revision}')}"
    if kind == "Job" and (found := re.fullmatch(r"(.+)-[0-9]{8,10}", name)):
        return f"CronJob/{found[1]}"
    if name and kind != "Node":
        return owner
    named = None if owner else _BY_NAME.fullmatch(pod)
    return f"Deployment/{named['name']}" if named else f"Pod/{pod}" if pod else ""


def name_by_pod(pod: str) -> str:
    """The name of a pod's workload, from the pod's name alone."""
    return _BEHIND.sub("", pod)
