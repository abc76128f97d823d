"""Which container a cgroup belongs to, from its path: container id, most often its runtime and its pod's UID."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class CgroupPath:
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
        """Whether its pod is unknown: the container came and went before anybody read its config.json."""
        return bool(self.pod_uid) and not self.pod


def parse_path(path: str) -> CgroupPath | None:
    """The container that a cgroup path lies in; None outside containers.

    In a pod it is the first container below the pod's cgroup: cgroups inside that are part of it. kind's nodes
    are docker containers around pods, so a pod further down wins over a container further up.
    """
    pod_uid = node = ""
    best: CgroupPath | None = None
    parts = path.strip("/").split("/")
    for depth, part in enumerate(parts):
        if pod := _POD.fullmatch(part):
            pod_uid, best = pod["uid"].replace("_", "-"), None
            above = parts[:depth]
            while above and _ABOVE_PODS.fullmatch(above[-1]):
                above.pop()
            node = "/" + "/".join(above)
            if not pod["more"]:
                continue  # if not, the container's name follows in the same component
        found = _ID.fullmatch(part)
        if not found or _MONITOR.fullmatch(part):
            continue
        if best is None:
            parent = parts[depth - 1] if depth else ""
            prefix = (found["prefix"] or parent).rpartition(":")[2]
            runtime = _RUNTIMES.get(prefix, "")
            best = CgroupPath("/" + "/".join(parts[: depth + 1]), found["id"], runtime, pod_uid, node)
        if pod_uid:
            break
    return best
