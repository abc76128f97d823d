from __future__ import annotations

from typing import Any

import pytest

from kubectl_gadget.cluster.agents import read_pod
from kubectl_gadget.cluster.manifests import Settings, render, to_yaml

READY = [{"type": "Ready", "status": "True"}]
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-c"]}]}]
        }
    }
}


def pod(conditions: list[dict[str, Any]] = [], phase: str = "Pending", **container: Any) -> dict[str, Any]:  # noqa: B006
    return {
        "metadata": {"name": "gadget-7xk"},
        "spec": {"affinity": AFFINITY},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": [container] if container else []},
    }


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 1 Insufficient cpu.",
}


@pytest.mark.parametrize(
    ("given", "problem", "hopeless"),
    [
        (pod(READY, "Running", state={"running": {}}), "", False),
        (pod([UNSCHEDULABLE]), "Unschedulable: 0/3 nodes are available: 1 Insufficient cpu.", True),
        (pod(), "Pending", False),
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), "ContainerCreating", False),
        (
            pod(state={"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}),
            'ImagePullBackOff: Back-off pulling image "x"',
            True,
        ),
        (
            pod(
                phase="Running",
                state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
                lastState={"terminated": {"exitCode": 1}},
            ),
            "CrashLoopBackOff: its agent ended with exit code 1",
            True,
        ),
        (pod(phase="Running", state={"running": {}}), "Running: its agent does not serve yet", False),
    ],
)
def test_why_there_is_no_agent(given: dict[str, Any], problem: str, hopeless: bool) -> None:
    """Of a pod that does not serve I see why, and deploy waits only for what may still come."""
    agent = read_pod(given)
    assert (agent.node, agent.hopeless) == ("node-c", hopeless)
    assert agent.problem == (f"pod gadget-7xk is {problem}" if problem else "")
    assert agent.ready is not bool(problem)
    assert agent.running is ("running" in str(given["status"]["containerStatuses"]))


def test_settings_reach_the_manifests() -> None:
    """What I give to deploy is in what it makes."""
    settings = Settings(
        "registry/agent:1", "tracing", "Always", "pull", {"pool": "a"}, log_level="debug", least_privilege=True
    )
    objects = {item["kind"]: item for item in render(settings)}
    spec = objects["DaemonSet"]["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("registry/agent:1", "Always")
    assert "--log-level=debug" in container["args"] and spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "a"}
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in container["securityContext"]
    assert {item["metadata"].get("namespace", "tracing") for item in objects.values()} == {"tracing"}
    binding = objects["ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == objects["ClusterRole"]["metadata"]["name"] == "kubectl-gadget-tracing"
    assert binding["subjects"][0]["namespace"] == "tracing"


def test_the_safe_defaults() -> None:
    """Agents listen on loopback alone, outside the host's namespaces, and may only read pods."""
    objects = {item["kind"]: item for item in render(Settings("x"))}
    spec = objects["DaemonSet"]["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostIPC"} & spec.keys()
    assert "--listen=127.0.0.1:7070" in spec["containers"][0]["args"] and "ports" not in spec["containers"][0]
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    assert objects["ClusterRole"]["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    assert "&" not in to_yaml(list(objects.values()))


@pytest.mark.parametrize(("mebibytes", "limit"), [(None, "832Mi"), (128, "832Mi"), (64, "832Mi"), (1024, "1728Mi")])
def test_memory_for_recordings(mebibytes: int | None, limit: str) -> None:
    """`deploy --traceloop-memory` raises the limit of agents, which recordings are counted in, by what it gives them."""
    objects = {item["kind"]: item for item in render(Settings("x", traceloop_memory=mebibytes))}
    (agent,) = objects["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    assert agent["resources"]["limits"]["memory"] == limit
    assert (f"--traceloop-memory={mebibytes}" in agent["args"]) is bool(mebibytes)
