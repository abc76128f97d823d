"""What deploy makes, as Kubernetes objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gadget.runtimes import State

#: What says that an object is deploy's, and so undeploy's.
MANAGED_BY = {"app.kubernetes.io/managed-by": "kubectl-gadget"}
NAMESPACE = "gadget"
#: As in agent.yaml.
RULES, RULES_PATH = "gadget-rules", "/etc/gadget/rules.d"
CRITICAL = "system-node-critical"
#: What the agent takes for recordings unless it is told else, which the limit in agent.yaml has in it.
TRACELOOP_MIB = 128


#: The receiver of audit events, as in k8s-audit.yaml.
AUDIT, AUDIT_PORT = "gadget-k8s-audit", 9765

#: Hubble's API, as in hubble.yaml: the Service, and the Secrets of the server and of its clients.
HUBBLE_SERVICE, HUBBLE_SECRETS = "hubble-relay", ("hubble-relay-server-certs", "hubble-relay-client-certs")
#: Its Deployment.
HUBBLE_SERVER = "gadget-hubble"

#: Where agents serve numbers, and how pods say so by habit; podmonitor.yaml says it to Prometheus' operator.
METRICS_PORT = 7071
SCRAPED = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"}


class HubbleKeys(NamedTuple):
    """The certificates of Hubble's API and of its clients: the data of a Secret for each."""

    server: Mapping[str, str]
    client: Mapping[str, str]


@dataclass(frozen=True)
class Settings:
    """What deploy lets users choose."""

    image: str
    namespace: str = NAMESPACE
    image_pull_policy: str = "IfNotPresent"
    image_pull_secret: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"
    least_privilege: bool = True
    #: RuntimeDefault, Unconfined or localhost/PATH; of a privileged agent none applies
    seccomp: str = "RuntimeDefault"
    #: whether an agent without bpffs ends, instead of going on without recorders
    expect_bpffs: bool = False
    #: none: what pods have that say nothing
    priority_class: str = CRITICAL
    #: whether to make the quota without which some clusters, such as GKE, refuse that class outside kube-system
    critical_quota: bool = False
    traceloop: str = "all"
    traceloop_memory: int | None = None
    redact: tuple[str, ...] = ()
    no_flows: bool = False
    no_syscalls: bool = False
    #: whether Prometheus may ask for numbers, on the pod network
    metrics: bool = False
    #: rules that always judge: whether the default ones do, and files by name
    default_rules: bool = False
    rules: Mapping[str, str] = field(default_factory=dict)
    #: of the Secret of a receiver of audit events; None: there is to be none
    audit: Mapping[str, str] | None = None
    #: of the Secrets of Hubble's API; None: there is to be none
    hubble: HubbleKeys | None = None
    #: settings of agents, SECTION.KEY=VALUE
    sets: tuple[str, ...] = ()
    tolerations: tuple[Mapping[str, str], ...] = ()
    states: tuple[State, ...] = ()


def read(name: str) -> str:
    """A file of manifests/, which an installed package has inside."""
    inside = Path(__file__).parents[1] / "manifests"
    return ((inside if inside.is_dir() else Path(__file__).parents[2] / "manifests") / name).read_text()


def render(settings: Settings) -> list[dict[str, Any]]:
    """All objects, in the order to make them."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(read("agent.yaml")))
    if settings.audit is not None:
        objects[-1:-1] = yaml.safe_load_all(read("k8s-audit.yaml"))
    if settings.hubble is not None:
        objects[-1:-1] = yaml.safe_load_all(read("hubble.yaml"))
    for item in objects:
        metadata = item["metadata"]
        metadata["labels"] = {**metadata.get("labels", {}), **MANAGED_BY}
        if item["kind"] == "Namespace":
            metadata["name"] = settings.namespace
        elif "namespace" in metadata:
            metadata["namespace"] = settings.namespace
        elif settings.namespace != NAMESPACE:
            metadata["name"] += f"-{settings.namespace}"
        if item["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            item["roleRef"]["name"] = metadata["name"]
            item["subjects"][0]["namespace"] = settings.namespace
        if item["kind"] == "DaemonSet":
            _adapt(item["spec"]["template"]["spec"], settings)
            if settings.metrics:
                item["spec"]["template"]["metadata"]["annotations"] = dict(SCRAPED)
        if item["kind"] == "Deployment":
            adapt = _adapt_hubble if metadata["name"] == HUBBLE_SERVER else _adapt_receiver
            adapt(item["spec"]["template"]["spec"], settings)
            if settings.metrics and adapt == _adapt_hubble:
                item["spec"]["template"]["metadata"]["annotations"] = dict(SCRAPED)
    if settings.audit is not None:
        objects.insert(1, audit_secret(settings.audit, settings.namespace))
    if settings.hubble is not None:
        pairs = zip(HUBBLE_SECRETS, settings.hubble, strict=True)
        objects[1:1] = [hubble_secret(name, data, settings.namespace) for name, data in pairs]
    if settings.rules:
        objects.insert(-1, rules_map(settings.rules, settings.namespace))
    if settings.critical_quota:
        objects.insert(1, critical_quota(settings.namespace))
    return objects


def rules_map(rules: Mapping[str, str], namespace: str) -> dict[str, Any]:
    """The ConfigMap that has rule files, by name."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": RULES, "namespace": namespace, "labels": dict(MANAGED_BY)},
        "data": dict(rules),
    }


def audit_secret(data: Mapping[str, str], namespace: str) -> dict[str, Any]:
    """The Secret with the certificate and the token that an API server and its receiver use."""
    return _secret(AUDIT, "Opaque", data, namespace)


def hubble_secret(name: str, data: Mapping[str, str], namespace: str) -> dict[str, Any]:
    """The Secret that has what one side of Hubble's API needs."""
    return _secret(name, "kubernetes.io/tls", data, namespace)


def _secret(name: str, kind: str, data: Mapping[str, str], namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": dict(MANAGED_BY)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": dict(data)}


def audit_service(namespace: str) -> dict[str, Any]:
    """The Service by which the receiver of audit events is reached, by name alone."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": AUDIT, "namespace": namespace}}


def critical_quota(namespace: str) -> dict[str, Any]:
    """What lets pods of a namespace be critical where the cluster's admission wants a quota for that.

    Quotas that match a priority class are what its LimitedResources ask for; GKE's documentation has this one.
    """
    classes = {"scopeName": "PriorityClass", "operator": "In", "values": [CRITICAL]}
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gadget-critical-pods", "namespace": namespace, "labels": dict(MANAGED_BY)},
        "spec": {"hard": {"pods": "1G"}, "scopeSelector": {"matchExpressions": [classes]}},
    }


def _seccomp(profile: str) -> dict[str, str]:
    kind, _, path = profile.partition("/")
    return {"type": "Localhost", "localhostProfile": path} if kind == "localhost" else {"type": profile}


def _adapt_receiver(pod: dict[str, Any], settings: Settings) -> None:
    """Audit events are judged by the same rules as all else, and masked likewise."""
    (container,) = pod["containers"]
    _adapt_image(pod, settings)
    container["args"] += [f"--redact={pattern}" for pattern in settings.redact]
    container["args"] += [f"--detect={place}" for place in _places(settings) or ["default"]]
    _adapt_place(pod, settings)


def _adapt_hubble(pod: dict[str, Any], settings: Settings) -> None:
    """Hubble's API is asked for by a name, and reads the agents of a namespace."""
    (container,) = pod["containers"]
    _adapt_image(pod, settings)
    container["args"] = [item.replace("=gadget", f"={settings.namespace}") for item in container["args"]]
    container["args"].append(f"--tls-name={HUBBLE_SERVICE}.{settings.namespace}.svc")
    if settings.metrics:
        _tell_numbers(container)
    _adapt_place(pod, settings)


def _tell_numbers(container: dict[str, Any]) -> None:
    """Have agents serve numbers to Prometheus, on the pod network."""
    container["env"].append({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    container["args"].append(f"--metrics=$(POD_IP):{METRICS_PORT}")
    container.setdefault("ports", []).append({"name": "metrics", "containerPort": METRICS_PORT})


def _adapt_place(pod: dict[str, Any], settings: Settings) -> None:
    pod["nodeSelector"] |= settings.node_selector
    if settings.tolerations:
        pod["tolerations"] = [dict(item) for item in settings.tolerations]


def _places(settings: Settings) -> list[str]:
    """Where rules that always judge are."""
    return ["default"] * settings.default_rules + [RULES_PATH] * bool(settings.rules)


def _adapt_image(pod: dict[str, Any], settings: Settings) -> None:
    container = pod["containers"][0]
    container["image"] = settings.image
    container["imagePullPolicy"] = settings.image_pull_policy
    container["args"] = [
        f"--log-level={settings.log_level}" if item.startswith("--log-level=") else item for item in container["args"]
    ]
    if settings.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.image_pull_secret}]


def _adapt(pod: dict[str, Any], settings: Settings) -> None:
    container = pod["containers"][0]
    _adapt_image(pod, settings)
    container["args"] += [f"--traceloop={settings.traceloop}", *(f"--redact={pattern}" for pattern in settings.redact)]
    if settings.traceloop_memory:
        container["args"].append(f"--traceloop-memory={settings.traceloop_memory}")
        limits = container["resources"]["limits"]  # the kernel counts what an agent's recordings take as its own
        more = max(0, settings.traceloop_memory - TRACELOOP_MIB)
        limits["memory"] = f"{int(limits['memory'].removesuffix('Mi')) + more}Mi"
    if settings.no_flows:
        container["args"].append("--no-flows")
    if settings.no_syscalls:
        container["args"].append("--no-syscalls")
    if settings.metrics:
        _tell_numbers(container)
    container["args"] += [f"--detect={place}" for place in _places(settings)]
    container["args"] += [f"--set={text}" for text in settings.sets]
    for number, state in enumerate(settings.states):
        _mount_state(pod, f"runtime-state-{number}", state)
    if settings.expect_bpffs and settings.least_privilege:
        container["args"].append("--expect-bpffs")
    if settings.tolerations:
        pod["tolerations"] = [dict(item) for item in settings.tolerations]
    pod["nodeSelector"] |= settings.node_selector
    if settings.priority_class == "none":
        del pod["priorityClassName"]
    else:
        pod["priorityClassName"] = settings.priority_class
    if settings.least_privilege:
        container["securityContext"] = yaml.safe_load(read("least-privilege.yaml"))
        container["securityContext"]["seccompProfile"] = _seccomp(settings.seccomp)
        del pod["hostPID"]
        for mount in container["volumeMounts"]:
            if mount.get("mountPropagation") == "Bidirectional":  # for the privileged alone: bpffs must be there
                mount["mountPropagation"] = "HostToContainer"


def _mount_state(pod: dict[str, Any], name: str, state: State) -> None:
    """Have the agent look at a runtime's containers, and at nothing beside them."""
    container = pod["containers"][0]
    container["args"].append(f"--runtime-state={state}")
    place = f"/host{state.containers}"
    if place not in [mount["mountPath"] for mount in container["volumeMounts"]]:
        container["volumeMounts"].append(
            {"name": name, "mountPath": place, "readOnly": True, "mountPropagation": "HostToContainer"}
        )
        pod["volumes"].append({"name": name, "hostPath": {"path": state.containers, "type": "DirectoryOrCreate"}})


def to_yaml(objects: list[dict[str, Any]]) -> str:
    """Objects as one file, in the order of their keys' making."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Plain.add_representer(str, text)
    return yaml.dump_all(objects, Dumper=Plain, sort_keys=False)
