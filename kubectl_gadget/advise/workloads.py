"""Pods, and the workloads that they belong to. A policy is for one workload."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.advise.flows import NamedPort, RememberedPod
from kubectl_gadget.advise.labels import (
    Selector,
    common,
    common_selector,
    is_generated,
    is_numbered,
    is_role,
    likeness,
    names_a_workload,
    of_one_run,
    owner_selector,
    requirements,
    stable,
)
from kubectl_gadget.advise.networks import normalize
from kubectl_gadget.advise.objects import controller, moment_ns

#: The last moment of a pod that runs.
FOREVER = 1 << 63

#: Labels that name what a bare pod is, the best first.
_NAMES = ("app.kubernetes.io/name", "app", "k8s-app", "run", "name", "component")
#: Kinds that own the pods of one run. The next run has another owner.
_RUNS = re.compile(r"(?!Cron|Scheduled).*(Application|Build|Job|Pod|Run|Runner|Task|Workflow)")
#: What ends the name of one run: a random word as the API server makes them, or a number.
_RUN_SUFFIX = re.compile(r"-([bcdfghjklmnpqrstvwxz2456789]{5}|\d{5,})$")
#: The most that a label's value can hold of a name.
_VALUE_LENGTH = 63
_OF_REPLICASET = re.compile(r"-[a-z0-9]{1,10}-[a-z0-9]{5}")
#: What Argo Rollouts gives the pods of a revision; their ReplicaSets are named as those of a Deployment are.
ROLLOUT_HASH = "rollouts-pod-template-hash"
#: Labels by which pods tell what they are a revision of, where each revision has an owner of its own.
_REVISED = {"deploymentconfig": "DeploymentConfig", "serving.knative.dev/configuration": "Configuration"}
#: What follows the name of an owner in its pods' names.
_SUFFIXES = {
    "Deployment": _OF_REPLICASET,
    "DaemonSet": re.compile(r"-[a-z0-9]{5}"),
    "StatefulSet": re.compile(r"-\d+"),
    "Job": re.compile(r"(-\d+)?-[a-z0-9]{5}"),
    "CronJob": re.compile(r"-\d+(-\d+)?-[a-z0-9]{5}"),
}


@dataclass(eq=False)
class Pod:
    """A pod, running or gone. first and last: when it had its addresses, in nanoseconds since 1970.

    times: when it had each of them, if they changed. host_ports: protocols, ports of its node, and the pod's own ports
    that these lead to. only_named: no more is known of it than its name, as when it came and went while the agent had
    no API server.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    owner: str
    addresses: tuple[str, ...]
    first: int
    last: int
    node: str
    host_network: bool
    ports: tuple[NamedPort, ...]
    only_named: bool = False
    times: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    host_ports: tuple[tuple[str, int, int], ...] = ()

    def had(self, address: str) -> list[tuple[int, int]]:
        """When it had an address: from, to."""
        return self.times.get(address) or [(self.first, self.last)]


@dataclass(eq=False)
class Workload:
    """Pods that are replicas of each other, or runs of one thing.

    selector is None where no stable label tells them from others. Of the labels that all pods have, it is without
    moving, which a failover gives to another pod, and without generated, which look like those of one run; of those in
    it, numbered may be of one run, as no other was seen.
    """

    namespace: str
    kind: str
    name: str
    selector: Selector | None = None
    pods: list[Pod] = field(default_factory=list)
    moving: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()
    numbered: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def read_pod(item: Mapping[str, Any], until: int) -> Pod:
    """A Pod object. A finished one had its addresses until it ended, others have them for ever."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    first, last = moment_ns(status.get("startTime")), FOREVER
    if status.get("phase") in ("Succeeded", "Failed"):
        ends = [
            moment_ns((each.get("state") or {}).get("terminated", {}).get("finishedAt"))
            for each in status.get("containerStatuses") or ()
        ]
        last = max(ends, default=0) or min(first, until)
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    ports = {
        NamedPort(port["name"], port.get("protocol", "TCP"), port["containerPort"])
        for each in containers
        for port in each.get("ports") or ()
        if port.get("name")
    }
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid") or f"{metadata['namespace']}/{metadata['name']}",
        labels=metadata.get("labels") or {},
        owner=controller(item),
        addresses=tuple(normalize(each["ip"]) for each in status.get("podIPs") or ()),
        first=first,
        last=last,
        node=spec.get("nodeName") or "",
        host_network=bool(spec.get("hostNetwork")),
        ports=_sorted_ports(ports),
        host_ports=tuple(
            (port.get("protocol", "TCP"), port["hostPort"], port["containerPort"])
            for each in containers
            for port in each.get("ports") or ()
            if port.get("hostPort")
        ),
    )


def _sorted_ports(ports: Iterable[NamedPort]) -> tuple[NamedPort, ...]:
    return tuple(sorted(ports, key=lambda port: (port.name, port.protocol, port.port)))


def merge_pods(live: Iterable[Pod], remembered: Iterable[RememberedPod]) -> list[Pod]:
    """All pods, each once: what the API server says of it now, and since when agents have known it."""
    pods = {pod.uid: pod for pod in live}
    remembered = list(remembered)
    changed = _changed(remembered)
    for item in sorted(remembered, key=lambda item: (item.last, item.first, item.namespace, item.name)):
        pod = pods.get(item.uid)
        if pod is None:
            pod = pods[item.uid] = Pod(
                item.namespace, item.name, item.uid, item.labels, item.owner, (), item.first, item.last, item.node,
                item.host_network, _sorted_ports(item.ports), only_named=True,
            )  # fmt: skip
        pod.labels, pod.owner = pod.labels or item.labels, pod.owner or item.owner
        pod.only_named = pod.only_named and not (pod.labels or pod.owner)
        pod.addresses = tuple(sorted({*pod.addresses, *item.addresses}))
        pod.first, pod.last = min(pod.first or item.first, item.first), max(pod.last, item.last)
    for uid, items in changed.items():
        _set_times(pods[uid], items)
    return sorted(pods.values(), key=lambda pod: (pod.namespace, pod.name, pod.uid))


def _changed(remembered: Iterable[RememberedPod]) -> dict[str, list[RememberedPod]]:
    """Of pods whose addresses changed: what they had one after the other."""
    by_uid: dict[str, list[RememberedPod]] = {}
    for item in remembered:
        by_uid.setdefault(item.uid, []).append(item)
    return {uid: items for uid, items in by_uid.items() if len({item.addresses for item in items}) > 1}


def _set_times(pod: Pod, items: list[RememberedPod]) -> None:
    """The pod was there before an agent knew it, and is still there: with the first addresses, and with the last."""
    first, last = min(item.first for item in items), max(item.last for item in items)
    for item in items:
        span = pod.first if item.first == first else item.first, pod.last if item.last == last else item.last
        for address in item.addresses:
            pod.times.setdefault(address, []).append(span)


class Workloads:
    """The workloads of all pods, and those that objects tell of without pods."""

    def __init__(self, objects: Iterable[Mapping[str, Any]], pods: Iterable[Pod]) -> None:
        """Group pods by their owners as far up as those are known."""
        found = {
            (item["metadata"].get("namespace", ""), item["kind"], item["metadata"]["name"]): item
            for item in objects
            if item["kind"] in ("ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
        }
        # the longest name first, as web-canary's pods are named like web's too
        self._objects = dict(sorted(found.items(), key=lambda each: (-len(each[0][2]), each[0])))
        self._found: dict[tuple[str, str, object], Workload] = {}
        runs: dict[tuple[str, str, str], list[Pod]] = {}
        for pod in pods:
            kind, name = (self._named(pod.namespace, pod.name) if pod.only_named else None) or self._owner(pod)
            if self._is_beside(pod, kind, name):
                kind, name = "Pod", ""
            if name and (kind == "Pod" or not _RUNS.fullmatch(kind)):  # a static pod's name stays
                self._add(pod, kind, name, name)
                continue
            if pod.only_named and name:
                pod.labels = self._template_labels(pod.namespace, kind, name)
            runs.setdefault((pod.namespace, kind, name or pod.owner or pod.uid), []).append(pod)
        self._add_runs(runs)
        for workload in self._found.values():
            self._finish(workload)

    @property
    def all(self) -> list[Workload]:
        """All that have pods, by namespace, name and kind."""
        return sorted(self._found.values(), key=lambda each: (each.namespace, each.name, each.kind))

    def _add_runs(self, runs: Mapping[tuple[str, str, str], list[Pod]]) -> None:
        """Make workloads of pods without a lasting owner: pods with like labels are one workload."""
        alike: dict[tuple[str, str, frozenset[tuple[str, str]]], list[tuple[str, dict[str, str]]]] = {}
        for (namespace, kind, owner), pods in runs.items():
            labels = common(map(lasting, pods))
            alike.setdefault((namespace, kind, likeness(labels)), []).append((owner, labels))
        for (namespace, kind, like), several in alike.items():
            passing = of_one_run([labels for _, labels in several])
            for owner, labels in several:
                kept = frozenset((key, value) for key, value in labels.items() if key not in passing)
                for pod in runs[namespace, kind, owner]:  # those that have nothing else are runs of one thing too
                    self._add(pod, kind, "", kept or (like if labels else owner))

    def _add(self, pod: Pod, kind: str, name: str, key: object) -> None:
        workload = self._found.get((pod.namespace, kind, key))
        if workload is None:
            workload = self._found[pod.namespace, kind, key] = Workload(pod.namespace, kind, name)
        workload.pods.append(pod)

    def by_pod_name(self, namespace: str, pod: str) -> Workload | None:
        """The workload whose pods are named like that. For a pod that is known only by its name."""
        owner = self._named(namespace, pod)
        if owner is None:
            return None
        kind, name = owner
        key: object = name
        if _RUNS.fullmatch(kind):
            key = frozenset(_lasting(self._template_labels(namespace, kind, name), pod, owner).items()) or name
        workload = self._found.get((namespace, kind, key))
        if workload is None:
            workload = self._found[namespace, kind, key] = Workload(namespace, kind, name)
            self._finish(workload)
        return workload

    def _is_beside(self, pod: Pod, kind: str, name: str) -> bool:
        """Whether a pod is an owner's but none of those that it selects, as Flink's task managers are."""
        item = self._objects.get((pod.namespace, kind, name))
        if item is None or pod.owner != f"{kind}/{name}" or not pod.labels:
            return False
        wanted = requirements(owner_selector((item.get("spec") or {}).get("selector")) or {})
        return not all(each.matches(pod.labels) for each in wanted)

    def _template_labels(self, namespace: str, kind: str, name: str) -> dict[str, str]:
        """The labels that an owner gives its pods, as far as they are known."""
        spec = self._objects.get((namespace, kind, name), {}).get("spec") or {}
        template = (spec.get("jobTemplate") or {}).get("spec", spec).get("template") or {}
        own = (template.get("metadata") or {}).get("labels") or (spec.get("selector") or {}).get("matchLabels") or {}
        return dict(own)

    def _named(self, namespace: str, pod: str) -> tuple[str, str] | None:
        """Kind and name of the workload whose pods are named like that."""
        for (own, kind, name), item in self._objects.items():
            rest = pod.removeprefix(name)
            if own == namespace and kind in _SUFFIXES and rest != pod and _SUFFIXES[kind].fullmatch(rest):
                return self._top(namespace, kind, name, controller(item))
        return None

    def _owner(self, pod: Pod) -> tuple[str, str]:
        """Kind and name of the topmost owner; a bare pod has no name."""
        kind, _, name = pod.owner.partition("/")
        if kind == "Node":  # a static pod, which each node has under a name of its own
            return "Pod", pod.name.removesuffix(f"-{name}")
        if not name or kind == "Pod":
            return "Pod", ""
        for label, above in _REVISED.items() if kind in ("ReplicaSet", "ReplicationController") else ():
            if revised := pod.labels.get(label):
                return above, revised
        item = self._objects.get((pod.namespace, kind, name))
        if item is not None:
            return self._top(pod.namespace, kind, name, controller(item))
        shorter, _, revision = name.rpartition("-")
        if kind == "ReplicaSet" and pod.labels.get(ROLLOUT_HASH) == revision:
            return "Rollout", shorter
        above = {"ReplicaSet": "Deployment", "Job": "CronJob"}.get(kind, "")
        owner = self._objects.get((pod.namespace, above, shorter))
        if owner is None:
            hashed = kind == "ReplicaSet" and revision != "" and pod.labels.get("pod-template-hash") == revision
            return ("Deployment", shorter) if hashed else (kind, name)
        wanted = requirements(owner_selector((owner.get("spec") or {}).get("selector")) or {})
        return (above, shorter) if all(each.matches(pod.labels) for each in wanted) else (kind, name)

    def _top(self, namespace: str, kind: str, name: str, owner: str) -> tuple[str, str]:
        while owner:
            kind, _, name = owner.partition("/")
            item = self._objects.get((namespace, kind, name))
            owner = controller(item) if item else ""
        return kind, name

    def _finish(self, workload: Workload) -> None:
        """Find its selector, and the name of bare pods."""
        workload.pods.sort(key=lambda pod: (pod.name, pod.uid))
        item = self._objects.get((workload.namespace, workload.kind, workload.name), {})
        spec = item.get("spec") or {}
        known = [pod for pod in workload.pods if not pod.only_named]
        if not known:
            labels = self._template_labels(workload.namespace, workload.kind, workload.name)
            known = [pod for pod in workload.pods if not labels]
        else:
            labels = dict(known[0].labels)
        for pod in workload.pods:
            pod.labels = stable(labels) if pod.only_named and workload.name else pod.labels
        own = list(map(lasting, known)) or [_lasting(labels, "", (workload.kind, workload.name))]
        workload.selector = owner_selector(spec.get("selector")) or common_selector(own)
        if workload.selector and not owner_selector(spec.get("selector")):
            _note_doubts(workload, common(stable(pod.labels) for pod in known), workload.selector["matchLabels"])
        if not workload.name:
            workload.name = _run_name(workload) or _bare_name(workload.pods)


def find_overlaps(workloads: Iterable[Workload], selecting: Iterable[Workload]) -> dict[Workload, list[Workload]]:
    """For each workload the other workloads whose pods its selector finds, too."""
    by_label: dict[tuple[str, str, str], dict[Workload, list[Mapping[str, str]]]] = {}
    for workload in workloads:
        for labels in {frozenset(pod.labels.items()) for pod in workload.pods if not pod.host_network}:
            own = dict(labels)
            for key, value in [*own.items(), ("", "")]:
                by_label.setdefault((workload.namespace, key, value), {}).setdefault(workload, []).append(own)
    found: dict[Workload, list[Workload]] = {}
    for workload in selecting:
        conditions = requirements(workload.selector or {})
        # those with a label that one of the conditions wants, if one does
        narrow = next((each for each in conditions if each.values and not each.negated), None)
        keys = [(narrow.key, value) for value in sorted(narrow.values or ())] if narrow else [("", "")]
        candidates = [by_label.get((workload.namespace, *key), {}) for key in keys]
        for other, several in (item for each in candidates for item in each.items()):
            if other is not workload and any(all(each.matches(own) for each in conditions) for own in several):
                found.setdefault(workload, []).append(other)
    return found


def lasting(pod: Pod) -> dict[str, str]:
    """The labels that a pod's successors will have too, in the next run and after a failover."""
    kind, _, name = pod.owner.partition("/")
    found = _lasting(pod.labels, pod.name, (kind, name))
    elsewhere = {key: value for key, value in found.items() if value != pod.node or names_a_workload(key)}
    return elsewhere or found


def _lasting(labels: Mapping[str, str], pod: str, owner: tuple[str, str]) -> dict[str, str]:
    kind, name = owner
    stays = stable(labels)
    for key, value in stable(labels).items():
        own_pod = value == pod[:_VALUE_LENGTH] or (key == "pod" and pod.startswith(f"{value}-"))
        own_run = value == name[:_VALUE_LENGTH] and _RUNS.fullmatch(kind)
        # app=web is no label of one pod or run where someone gave the pod or Job web its name
        given = names_a_workload(key) if not own_pod else not name and (names_a_workload(key) or not is_numbered(value))
        if is_generated(value) or ((own_pod or own_run) and not (given and not _RUN_SUFFIX.search(value))):
            del stays[key]
    return {key: value for key, value in stays.items() if not is_role(key, value)} or stays


def _note_doubts(workload: Workload, labels: Mapping[str, str], kept: Mapping[str, str]) -> None:
    """Say which of the labels that all pods have may be wrong to ask for, or not to."""
    left = {key: value for key, value in sorted(labels.items()) if key not in kept}
    workload.moving = tuple(f"{key}={value}" for key, value in left.items() if is_role(key, value))
    workload.generated = tuple(f"{key}={value}" for key, value in left.items() if is_generated(value))
    runs = {pod.owner or pod.uid for pod in workload.pods}
    if len(runs) == 1 and (workload.kind == "Pod" or _RUNS.fullmatch(workload.kind)):
        doubtful = ((key, value) for key, value in kept.items() if is_numbered(value) and not names_a_workload(key))
        workload.numbered = tuple(f"{key}={value}" for key, value in doubtful)


def _run_name(workload: Workload) -> str:
    """A name for runs of one thing, the same for the next run; empty for bare pods."""
    if workload.kind == "Pod":
        return ""
    names = {pod.owner.partition("/")[2] for pod in workload.pods} - {""}
    if len(names) < 2:
        return "".join(_RUN_SUFFIX.sub("", name) for name in names)
    return _common_start(sorted(names)).rpartition("-")[0]


def _bare_name(pods: list[Pod]) -> str:
    """A name for pods without an owner, or beside what it selects, the same for the same pods."""
    beside = pods[0].owner and not pods[0].owner.startswith("Pod/")
    if len({pod.name for pod in pods}) == 1 and not beside:
        return pods[0].name
    for label in () if beside else _NAMES:
        if value := pods[0].labels.get(label):
            return value
    return _common_start([pod.name for pod in pods]).rstrip("-.0123456789") or pods[0].name


def _common_start(names: list[str]) -> str:
    first, last = min(names), max(names)
    same = next((at for at, letter in enumerate(first) if letter != last[at : at + 1]), len(first))
    return first[:same]
