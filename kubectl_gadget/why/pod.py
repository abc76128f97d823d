"""Reads the facts about one container from its pod object and events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from kubectl_gadget.why.facts import Kubernetes, PodEvent

Object = Mapping[str, Any]
#: Events that are looked at.
MOST_EVENTS = 50
_FACTORS = {"": 1, "m": 1e-3, **{unit: 1000**power for power, unit in enumerate("kMGTPE", 1)},
            **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)}}  # fmt: skip
_QUANTITY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]{0,2})")
_CONTAINER = re.compile(r"spec\.\w+\{(.*)\}")
#: What a volume is, by its key: the word for it, and where its name is.
_VOLUMES = {
    "configMap": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    "hostPath": ("the node's", "path"),
    "csi": ("a volume of", "driver"),
    "nfs": ("NFS of", "server"),
    "image": ("image", "reference"),
}


class PodContainer:
    """A container of a pod: its part of the pod's spec and status."""

    def __init__(self, pod: Object, spec: Object, *, init: bool) -> None:
        """The container that spec describes."""
        self.pod, self.spec = pod, spec
        self.name = str(spec.get("name", ""))
        self.sidecar = init and spec.get("restartPolicy") == "Always"
        self.init = init and not self.sidecar
        statuses = (pod.get("status") or {}).get("initContainerStatuses" if init else "containerStatuses") or ()
        self.status: Object = next((each for each in statuses if each.get("name") == self.name), {})

    @property
    def waiting(self) -> Object:
        """Its state, if it waits."""
        return self._state("state", "waiting")

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return "running" in (self.status.get("state") or {})

    @property
    def ended(self) -> Object:
        """How it ended last."""
        return self._state("state", "terminated") or self._state("lastState", "terminated")

    @property
    def done(self) -> bool:
        """Whether it ended well, and for good."""
        return self._state("state", "terminated").get("exitCode") == 0

    @property
    def id(self) -> str:
        """The id of the newest run, without the runtime's name."""
        return bare_id(self.status.get("containerID")) or bare_id(self.ended.get("containerID"))

    def run(self, container_id: str) -> Object:
        """How a run ended; nothing if that is not known, or it was an earlier one."""
        for state in ("state", "lastState"):
            terminated = self._state(state, "terminated")
            if terminated and container_id in ("", bare_id(terminated.get("containerID"))):
                return terminated
        return {}

    def _state(self, state: str, what: str) -> Object:
        found: Object = (self.status.get(state) or {}).get(what) or {}
        return found


def bare_id(text: object) -> str:
    """A container's id, without containerd://."""
    return str(text or "").rpartition("/")[2]


def containers(pod: Object) -> list[PodContainer]:
    """A pod's containers, those that run before the others first."""
    spec = pod.get("spec") or {}
    init = [PodContainer(pod, each, init=True) for each in spec.get("initContainers") or ()]
    return init + [PodContainer(pod, each, init=False) for each in spec.get("containers") or ()]


def kubernetes_facts(
    pod: Object, container: str, container_id: str = "", events: Iterable[PodEvent] = ()
) -> Kubernetes:
    """What is said of a run of a container, the newest if no id is given; of the pod alone if it has none such."""
    metadata, spec, status = pod.get("metadata") or {}, pod.get("spec") or {}, pod.get("status") or {}
    every = containers(pod)
    found = next((each for each in every if each.name == container), None)
    conditions = {each["type"]: each for each in status.get("conditions") or () if "type" in each}
    disruption = conditions.get("DisruptionTarget", {})
    waits_for = _waits_for(every, found)
    common: dict[str, Any] = {
        "phase": status.get("phase") or "",
        "pod_reason": status.get("reason") or "",
        "pod_message": status.get("message") or "",
        "disruption": disruption.get("reason", "") if disruption.get("status") == "True" else "",
        "disrupted_ns": parse_time(disruption.get("lastTransitionTime")) if disruption.get("status") == "True" else 0,
        "conditions": {name: (each.get("reason") or "", each.get("message") or "") for name, each in conditions.items()
                       if each.get("status") == "False"},
        "deleted": bool(metadata.get("deletionTimestamp")),
        "deleted_ns": _deleted_ns(metadata),
        "restart_policy": spec.get("restartPolicy") or "Always",
        "grace_seconds": metadata.get("deletionGracePeriodSeconds") or spec.get("terminationGracePeriodSeconds") or 0,
        "waits_for": waits_for.name if waits_for else "",
        "waits_begun": bool(waits_for and (waits_for.runs or waits_for.id)),
        "events": tuple(each for each in events if not each.container or each.container == container or not found),
    }  # fmt: skip
    if found is None:
        return Kubernetes(**common)
    ended = found.run(container_id)
    newest = not container_id or bool(ended) or bare_id(found.status.get("containerID")) == container_id
    waiting = found.waiting if newest else {}
    return Kubernetes(
        **common,
        waiting=waiting.get("reason") or "",
        terminated=ended.get("reason") or "",
        message=(waiting.get("message") if waiting.get("reason") != "CrashLoopBackOff" else "")
        or ended.get("message") or "",
        exit_code=ended.get("exitCode"),
        restarts=found.status.get("restartCount") or 0,
        init=found.init,
        newest=container_id in ("", found.id or container_id),
        ready=found.status.get("ready") if found.status and newest else None,
        started=found.status.get("started"),
        memory_limit=quantity(((found.spec.get("resources") or {}).get("limits") or {}).get("memory")
                              or ((spec.get("resources") or {}).get("limits") or {}).get("memory")),
        image=found.spec.get("image") or "",
        mounts=_mounts(found.spec, spec),
        probes=_probes(found.spec),
    )  # fmt: skip


def _deleted_ns(metadata: Object) -> int:
    """When a pod was asked to go: what it has is when it is to be gone."""
    grace = int(metadata.get("deletionGracePeriodSeconds") or 0)
    return max(0, parse_time(metadata.get("deletionTimestamp")) - grace * 1_000_000_000)


def _waits_for(every: Sequence[PodContainer], found: PodContainer | None) -> PodContainer | None:
    """The init container that is not done yet, before this one."""
    for each in every:
        if each is found or not (each.init or each.sidecar):
            return None
        if not (each.done if each.init else each.runs):
            return each
    return None


def gone_facts(events: Iterable[PodEvent], container: str) -> Kubernetes:
    """What is left of a pod that was deleted."""
    kept = tuple(each for each in events if not each.container or each.container == container)
    return Kubernetes(deleted=True, restart_policy="", grace_seconds=0, events=kept)


def read_events(items: Iterable[Object], uid: str = "") -> tuple[PodEvent, ...]:
    """Events of a pod, the newest last; of the one with a uid alone, if one is given."""
    found = []
    for item in items:
        with suppress(AttributeError, TypeError, ValueError):
            about = item.get("involvedObject") or {}
            if uid and about.get("uid") and about["uid"] != uid:
                continue
            container = _CONTAINER.fullmatch(about.get("fieldPath") or "")
            series = item.get("series") or {}
            first = parse_time(item.get("firstTimestamp") or item.get("eventTime"))
            last = parse_time(series.get("lastObservedTime") or item.get("lastTimestamp") or item.get("eventTime"))
            found.append(PodEvent(last or first, str(item.get("reason") or ""), str(item.get("message") or "").strip(),
                               container[1] if container else "", int(series.get("count") or item.get("count") or 1),
                               first))  # fmt: skip
    return tuple(sorted(found, key=lambda each: each.time_ns)[-MOST_EVENTS:])


def parse_time(text: object) -> int:
    """Nanoseconds since 1970 of a time as the API server writes it; 0 if it is none."""
    with suppress(ValueError):
        return int(datetime.fromisoformat(str(text or "")).timestamp() * 1e6) * 1000
    return 0


def quantity(text: object) -> int:
    """A number as Kubernetes writes it: 64Mi; 0 if it is none."""
    found = _QUANTITY.fullmatch(str(text or ""))
    with suppress(KeyError, ValueError, OverflowError):
        return int(float(found[1]) * _FACTORS[found[2]]) if found else 0
    return 0


def _mounts(container: Object, spec: Object) -> dict[str, str]:
    volumes = {each.get("name"): each for each in spec.get("volumes") or ()}
    found = {}
    for mount in container.get("volumeMounts") or ():
        what = _volume(volumes.get(mount.get("name")) or {})
        part = f", {mount['subPath']} of it" if mount.get("subPath") else ""
        only = ", read-only" if mount.get("readOnly") and not what.startswith("the service account") else ""
        found[str(mount.get("mountPath"))] = f"{what}{part}{only}"
    return found


def _volume(volume: Object) -> str:
    """A volume's kind and name, in words."""
    kind = next((name for name in volume if name != "name"), "")
    about = volume.get(kind) or {}
    if kind == "projected":
        sources = [(each, content) for source in about.get("sources") or () for each, content in source.items()]
        if any(each == "serviceAccountToken" for each, _ in sources):
            return "the service account's token"
        named = [f"{_VOLUMES[each][0]} {content.get('name')}" for each, content in sources if each in _VOLUMES]
        return " and ".join(named) or "a projected volume"
    if kind in _VOLUMES:
        word, key = _VOLUMES[kind]
        return f"{word} {about.get(key)}"
    return {"emptyDir": "an emptyDir", "downwardAPI": "fields of the pod"}.get(kind, f"a volume of kind {kind}")


def _probes(container: Object) -> dict[str, str]:
    ports = {each.get("name"): each.get("containerPort") for each in container.get("ports") or ()}
    return {
        kind: text
        for kind in ("startup", "liveness", "readiness")
        if (probe := container.get(f"{kind}Probe")) and (text := _probe(probe, ports))
    }


def _probe(probe: Object, ports: Mapping[Any, Any]) -> str:
    """A probe's request, in words."""
    if get := probe.get("httpGet"):
        return f"GET :{ports.get(get.get('port'), get.get('port'))}{get.get('path') or '/'}"
    if connect := probe.get("tcpSocket"):
        return f"connect to :{ports.get(connect.get('port'), connect.get('port'))}"
    if grpc := probe.get("grpc"):
        return f"gRPC :{grpc.get('port')}"
    return " ".join(map(str, (probe.get("exec") or {}).get("command") or ()))
