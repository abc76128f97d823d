"""What deploy makes: the promises of docs/cluster.md, in both modes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from agent.identity import CONFIGS
from kubectl_gadget.cluster.manifests import Settings, render
from tests.conftest import run_cli

MODES = pytest.mark.parametrize("least", [False, True], ids=["privileged", "least-privilege"])


def pod_of(**settings: Any) -> dict[str, Any]:
    """The spec of an agent's pod."""
    pod: dict[str, Any] = render(Settings("agent:1", **settings))[-1]["spec"]["template"]["spec"]
    return pod


@MODES
def test_survives_on_a_full_node(least: bool) -> None:
    """An agent goes on where others are evicted, on every node whatever its taints, and takes what was measured."""
    pod = pod_of(least_privilege=least)
    (container,) = pod["containers"]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert container["resources"] == {"requests": {"cpu": "20m", "memory": "208Mi"}, "limits": {"memory": "512Mi"}}


@MODES
def test_probes(least: bool) -> None:
    """Kubernetes asks an agent whether it is well, from inside its pod, as nothing listens on the pod network."""
    (container,) = pod_of(least_privilege=least)["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["exec"]["command"] == ["gadget-agent-health", "127.0.0.1:7070"], probe
        assert not {"grpc", "httpGet", "tcpSocket"} & container[probe].keys()


@MODES
def test_what_it_may_do(least: bool) -> None:
    """The root file system is read only, and with --least-privilege an agent has four capabilities and no more."""
    pod = pod_of(least_privilege=least)
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostIPC"} & pod.keys()
    assert ("hostPID" in pod, "privileged" in security) == (not least, not least)
    if least:
        capabilities = security["capabilities"]
        assert capabilities == {"drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN", "DAC_READ_SEARCH"]}
        assert security["allowPrivilegeEscalation"] is False
        propagations = {mount.get("mountPropagation") for mount in pod["containers"][0]["volumeMounts"]}
        assert propagations == {"HostToContainer", None}  # the other is for the privileged alone


@MODES
def test_no_runtime_is_in_reach(least: bool) -> None:
    """No socket of a runtime is mounted, which would make an agent root on its node; each runtime's config.json is."""
    pod = pod_of(least_privilege=least)
    paths = {volume["name"]: PurePosixPath(volume["hostPath"]["path"]) for volume in pod["volumes"]}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert paths.keys() == mounts.keys()
    for socket in ("containerd/containerd.sock", "k3s/containerd/containerd.sock", "docker.sock", "crio/crio.sock",
                   "docker/containerd/containerd.sock", "podman/podman.sock", "containerd/s/shim"):  # fmt: skip
        assert not [path for path in paths.values() if PurePosixPath("/run", socket).is_relative_to(path)], socket
    for config in CONFIGS:
        folder = PurePosixPath("/", config[: config.index("{id}")].removesuffix("*/"))
        if folder.is_relative_to("/run"):
            (name,) = [name for name, path in paths.items() if folder.is_relative_to(path)]
            assert mounts[name]["mountPath"] == f"/host{paths[name]}" and mounts[name]["readOnly"] is True


@MODES
def test_settings_of_the_recorders(least: bool) -> None:
    """What I say of recorders, masking and taints reaches the agents."""
    given = ["--traceloop=shop,web", "--redact=pass=.*", '--redact="', "--traceloop-memory=64", "--no-flows"]
    taints = ["--toleration=a", "--toleration=b=c:NoSchedule", "--toleration=d:NoExecute"]
    mode = ["--least-privilege"] if least else []
    shown = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", *given, *taints, *mode)
    assert shown.returncode == 0, shown.stderr
    pod = list(yaml.safe_load_all(shown.stdout))[-1]["spec"]["template"]["spec"]
    assert set(given) <= set(pod["containers"][0]["args"])
    assert pod["tolerations"] == [
        {"key": "a", "operator": "Exists"},
        {"key": "b", "operator": "Equal", "value": "c", "effect": "NoSchedule"},
        {"key": "d", "operator": "Exists", "effect": "NoExecute"},
    ]


@pytest.mark.parametrize("given", ["--toleration=:NoSchedule", "--toleration=a:Never", "--node-selector=a"])
def test_mistakes(given: str) -> None:
    """A toleration or a selector that says nothing is refused in one line."""
    done = run_cli("deploy", "--print-only", "--kubeconfig=/dev/null", given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert given.partition("=")[2] in done.stderr
