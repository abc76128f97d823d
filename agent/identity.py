"""Which container a cgroup belongs to, from its path and the runtime's own files; nobody is asked.

The path gives container id, runtime and pod UID. The OCI config.json that the runtime writes before it starts a
container gives names, as annotations: containerd's pkg/cri/annotations, CRI-O's pkg/annotations.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

_ID = re.compile(r"(?:(?P<prefix>.+)[-:])?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_POD = re.compile(r"(?:.*-)?pod(?P<uid>[0-9a-f]{8}[-_0-9a-f]{24,28})(?:\.slice)?(?P<more>:.*)?")
_ABOVE_PODS = re.compile(r".*kubepods.*|burstable|besteffort")
_MONITOR = re.compile(r".*conmon.*")  # a runtime's helper beside the container, with the container's id in its name
_RUNTIMES = {
    "cri-containerd": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
    "libpod_parent": "podman",
}

#: Where runtimes keep config.json, below the host's root; {id} is the container's.
CONFIGS = (
    "run/containerd/io.containerd.runtime.v2.task/*/{id}/config.json",
    "run/k3s/containerd/io.containerd.runtime.v2.task/*/{id}/config.json",
    "run/docker/containerd/daemon/io.containerd.runtime.v2.task/*/{id}/config.json",
    "run/containers/storage/overlay-containers/{id}/userdata/config.json",
    "var/lib/containers/storage/overlay-containers/{id}/userdata/config.json",
)
#: annotation keys of each runtime: namespace, pod, container, container type
ANNOTATIONS = (
    (
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.container-name",
        "io.kubernetes.cri.container-type",
    ),
    (
        "io.kubernetes.pod.namespace",
        "io.kubernetes.pod.name",
        "io.kubernetes.container.name",
        "io.kubernetes.cri-o.ContainerType",
    ),
)


@dataclass(frozen=True)
class Place:
    """What a cgroup path says. path is the container's own cgroup, which may lie above the one asked for.

    node is the cgroup that the pods of a node are in, for a pod's container.
    """

    path: str
    id: str
    runtime: str
    pod_uid: str
    node: str = ""


@dataclass(frozen=True)
class Container:
    """A container with the names users know it by; empty where they are not known."""

    id: str
    runtime: str = ""
    namespace: str = ""
    pod: str = ""
    name: str = ""
    sandbox: bool = False
    pod_uid: str = ""

    @property
    def nameless(self) -> bool:
        """Whether it is a pod's and nobody knows which: it came and went before its config.json was looked at."""
        return bool(self.pod_uid) and not self.pod


def parse_path(path: str) -> Place | None:
    """The container that a cgroup path lies in; None outside containers.

    In a pod it is the first container below the pod's cgroup: what that one nests is part of it. kind's nodes
    are docker containers around pods, so a pod further down wins over a container further up.
    """
    pod_uid = node = ""
    best: Place | None = None
    parts = path.strip("/").split("/")
    for depth, part in enumerate(parts):
        if pod := _POD.fullmatch(part):
            pod_uid, best = pod["uid"].replace("_", "-"), None
            above = parts[:depth]
            while above and _ABOVE_PODS.fullmatch(above[-1]):
                above.pop()
            node = "/" + "/".join(above)
            if not pod["more"]:
                continue  # else the container's name follows in the same component
        found = _ID.fullmatch(part)
        if not found or _MONITOR.fullmatch(part):
            continue
        if best is None:
            parent = parts[depth - 1] if depth else ""
            prefix = (found["prefix"] or parent).rpartition(":")[2]
            runtime = _RUNTIMES.get(prefix, "")
            best = Place("/" + "/".join(parts[: depth + 1]), found["id"], runtime, pod_uid, node)
        if pod_uid:
            break
    return best


def _candidates(host_root: Path, container_id: str) -> Iterator[Path]:
    for pattern in CONFIGS:
        yield from host_root.glob(pattern.format(id=container_id))


def _named(annotations: dict[str, Any], place: Place) -> Container:
    def text(key: str) -> str:
        value = annotations.get(key, "")
        return value if isinstance(value, str) else ""

    for namespace, pod, name, kind in ANNOTATIONS:
        if text(pod):
            runtime = place.runtime or ("containerd" if kind.startswith("io.kubernetes.cri.") else "cri-o")
            sandbox = text(kind) == "sandbox"
            return Container(place.id, runtime, text(namespace), text(pod), text(name), sandbox, place.pod_uid)
    runtime = place.runtime or ("podman" if text("io.container.manager") == "libpod" else "")
    return Container(place.id, runtime, name=text("nerdctl/name"), pod_uid=place.pod_uid)


def _load(path: Path) -> Any:
    """A runtime's JSON file; None, and a log line, if it is not there or not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: %s", path, error)
        return None


def _plain_name(host_root: Path, place: Place) -> str:
    """The name of a docker or podman container, which no annotation carries."""
    if place.runtime == "docker":
        config = _load(host_root / "var/lib/docker/containers" / place.id / "config.v2.json")
        name = config.get("Name") if isinstance(config, dict) else None
        return name.lstrip("/") if isinstance(name, str) else ""
    known = _load(host_root / "var/lib/containers/storage/overlay-containers/containers.json")
    for item in known if isinstance(known, list) else []:
        if isinstance(item, dict) and item.get("id") == place.id and isinstance(item.get("names"), list):
            return next((name for name in item["names"] if isinstance(name, str)), "")
    return ""


def identify(place: Place, host_root: Path = Path("/")) -> Container:
    """The container at a place, named as far as its runtime's files tell."""
    container = Container(place.id, place.runtime, pod_uid=place.pod_uid)
    try:
        configs = list(_candidates(host_root, place.id))
    except OSError as error:
        log.warning("container %s: %s", place.id[:12], error)
        configs = []
    for path in configs:
        config = _load(path)
        annotations = config.get("annotations") if isinstance(config, dict) else None
        if isinstance(annotations, dict):
            container = _named(annotations, place)
            break
    if not container.pod and not container.name and container.runtime in ("docker", "podman"):
        container = replace(container, name=_plain_name(host_root, place))
    if not container.pod and not container.name:
        log.info("container %s of %s: no names found", place.id[:12], container.runtime or "an unknown runtime")
    return container
